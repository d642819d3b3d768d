"""What a repository at a hub consists of: which of its files make the model, and whether it is one.

Everything here is decided before weights are fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import NotAModelError
from core.store import checkpoint
from core.store.download import RemoteFile
from core.store.weights import IR_BIN, IR_XML

if TYPE_CHECKING:
    from core.store.hub import HubAccess

ANSWER_TIMEOUT_S = 10.0
"""How long the hub may take to say what a model consists of."""

LARGEST_CONFIG = 2 * 2**20
"""Bytes of a ``config.json`` that is still looked into; real ones have a few thousand."""

_STEMS = (("model", ".safetensors"), ("pytorch_model", ".bin"))
_WEIGHTS = re.compile(r"(model.*\.safetensors|pytorch_model.*\.bin)(\.index\.json)?|openvino_.*")


class NotAHub(Exception):
    """What answers is no Hugging Face hub."""


@dataclass(frozen=True)
class Listing:
    """What the hub says of a repository."""

    revision: str
    """Commit."""
    files: list[RemoteFile]
    """The wanted ones, small before large."""
    gated: bool
    """Whether a licence must be accepted to get the files."""

    @property
    def total_bytes(self) -> int:
        """Size of all wanted files."""
        return sum(file.size for file in self.files)


def wanted_files(names: Iterable[str]) -> list[str]:
    """The files of a repository that make the model: weights once, tokenizer, configuration.

    Safetensors are preferred to pickles, and OpenVINO IR is taken where it is all there is; code,
    other frameworks' weights, subfolders and incomplete sets of shards are left where they are.

    Raises:
        NotAModelError: the repository has no weights that can be read.
    """
    present = set(names)
    small = checkpoint.SMALL_FILES & present
    for stem, ending in _STEMS:
        weights = _weights(present, stem, ending)
        if weights:
            return sorted(small | weights)
    if {IR_XML, IR_BIN} <= present:
        return sorted(small | {IR_XML, IR_BIN} | (checkpoint.IR_TOKENIZER_FILES & present))
    raise NotAModelError(
        "The repository holds neither safetensors, nor pytorch_model.bin, nor OpenVINO weights; "
        "choose the original repository of the model."
    )


def is_weights(name: str) -> bool:
    """Whether a file holds weights, or lists or accompanies files that do."""
    return _WEIGHTS.fullmatch(name) is not None


def _weights(present: set[str], stem: str, ending: str) -> set[str]:
    whole, index = f"{stem}{ending}", f"{stem}{ending}.index.json"
    if whole in present:
        return {whole}
    shard = re.compile(rf"{stem}-\d{{5}}-of-(\d{{5}}){re.escape(ending)}")
    found = {name: match[1] for name in present if (match := shard.fullmatch(name))}
    counts = set(found.values())
    if index not in present or len(counts) != 1 or len(found) != int(counts.pop()):
        return set()
    return {*found, index}


def request_headers(access: HubAccess) -> dict[str, str]:
    """Headers of a request for a file: the token, if there is one, and who asks."""
    from huggingface_hub.utils import build_hf_headers

    _report_nothing()
    return build_hf_headers(token=access.token or False)


def _report_nothing() -> None:
    """Keep ``huggingface_hub`` from asking and telling the public hub things beside the matter.

    It would look up, at huggingface.co whatever the endpoint, a list of programs to recognise the
    caller by, and name that one and torch's version in each request.
    """
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


@contextmanager
def _a_hub_answers() -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (HfHubHTTPError, HFValidationError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NotAHub(str(error)) from error


def list_files(hub_id: str, access: HubAccess) -> Listing:
    """Ask the hub which files a model has.

    Raises:
        NotAModelError: there is no configuration, tokenizer or weights among them.
        NotAHub: what answers is no hub.
        huggingface_hub.errors.HfHubHTTPError, httpx.HTTPError: the hub refused, or is not there.
    """
    from huggingface_hub import HfApi, hf_hub_url

    _report_nothing()
    api = HfApi(endpoint=access.endpoint, token=access.token or False)
    with _a_hub_answers():
        info = api.model_info(hub_id, files_metadata=True, timeout=ANSWER_TIMEOUT_S)
    revision = info.sha or "main"
    known = {item.rfilename: item for item in info.siblings or []}
    names = wanted_files(known)
    _check_names(hub_id, names)
    files = []
    for name in names:
        item = known[name]
        url = hf_hub_url(hub_id, name, revision=revision, endpoint=access.endpoint)
        if item.size is None:
            files.append(_ask_for_file(name, url, revision, access))
            continue
        files.append(
            RemoteFile(
                name=name,
                url=url,
                size=item.size,
                sha256=item.lfs.sha256 if item.lfs else None,
                git_sha1=None if item.lfs else item.blob_id,
                revision=revision,
            )
        )
    files.sort(key=lambda file: (is_weights(file.name), file.name))
    return Listing(revision, files, bool(info.gated))


def _ask_for_file(name: str, url: str, revision: str, access: HubAccess) -> RemoteFile:
    """Size and checksum of one file, from a mirror whose listing does not have them."""
    from huggingface_hub import get_hf_file_metadata

    about = get_hf_file_metadata(
        url, token=access.token or False, timeout=ANSWER_TIMEOUT_S, endpoint=access.endpoint
    )
    if about.size is None:
        raise NotAHub(f"the size of {name} is not told")
    etag = about.etag or ""
    return RemoteFile(
        name=name,
        url=url,
        size=about.size,
        sha256=etag if re.fullmatch("[0-9a-f]{64}", etag) else None,
        git_sha1=etag if re.fullmatch("[0-9a-f]{40}", etag) else None,
        revision=revision,
    )


def _check_names(hub_id: str, names: list[str]) -> None:
    if "config.json" not in names:
        raise NotAModelError(
            f"{hub_id} holds no config.json, so it is not a model that can be read; choose the "
            "original repository of the model."
        )
    if not any(name in names for name in checkpoint.TOKENIZER_FILES):
        raise NotAModelError(
            f"{hub_id} holds no tokenizer; choose the original repository of the model."
        )


def read_config(hub_id: str, access: HubAccess, listing: Listing) -> dict[str, Any] | None:
    """The model's ``config.json``; None where it may not be read yet, or is too large.

    Raises:
        NotAModelError: it is not of a causal language model that can be used.
    """
    import httpx
    from huggingface_hub.errors import GatedRepoError
    from huggingface_hub.utils import get_session, hf_raise_for_status

    file = next(file for file in listing.files if file.name == "config.json")
    if file.size > LARGEST_CONFIG:
        return None
    content = b""
    try:
        with get_session().stream(
            "GET",
            file.url,
            headers=request_headers(access),
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S),
            follow_redirects=True,
        ) as response:
            hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > LARGEST_CONFIG:
                    return None
    except GatedRepoError:
        return None
    return _check_config(hub_id, content)


def _check_config(hub_id: str, content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise NotAModelError(
            f"The config.json of {hub_id} is not readable; choose the original repository of the "
            "model."
        )
    checkpoint.check_config(config, hub_id)
    return config


def refuse_code(hub_id: str, folder: Path) -> None:
    """Look into the small files before gigabytes of weights are fetched for nothing.

    Raises:
        NotAModelError: the model or its tokenizer wants code run that comes with it, or it is no
            causal language model.
    """
    config = _check_config(hub_id, (folder / "config.json").read_bytes())
    path = folder / "tokenizer_config.json"
    try:
        tokenizer = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:
        return  # the tokenizer's own loader says what is wrong with it
    code = tokenizer.get("auto_map") if isinstance(tokenizer, dict) else None
    if isinstance(code, dict):
        code = code.get("AutoTokenizer")
    if code and not _has_own_tokenizer(config, str(tokenizer.get("tokenizer_class"))):
        raise NotAModelError(
            f"The tokenizer of {hub_id} wants its own Python code run (trust_remote_code); Paddock "
            "never runs code that comes with a model, so choose one that transformers knows by "
            "itself."
        )


def _has_own_tokenizer(config: dict[str, Any], name: str) -> bool:
    """Whether transformers has a tokenizer of its own for a model that brings code for one."""
    from transformers.models.auto.tokenization_auto import (
        TOKENIZER_MAPPING_NAMES,
        tokenizer_class_from_name,
    )

    if TOKENIZER_MAPPING_NAMES.get(config["model_type"]):
        return True
    stem = name.removesuffix("Fast")
    return any(tokenizer_class_from_name(kind) is not None for kind in (stem, f"{stem}Fast"))


def remove_strangers(folder: Path, files: list[RemoteFile]) -> None:
    """Remove parts and weights that the repository does not have, or not any more."""
    ours = {name for file in files for name in (file.name, file.part_name)}
    for path in folder.iterdir():
        stranger = path.suffix == ".part" or is_weights(path.name)
        if stranger and path.name not in ours and path.is_file():
            path.unlink()
