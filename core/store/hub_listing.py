"""List a repository on a hub: select the files of the model and check that it is supported.

Everything here happens before weights are downloaded.
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

RESPONSE_TIMEOUT_S = 10.0
"""Timeout of requests for the file list and for ``config.json``."""

LARGEST_CONFIG = 2 * 2**20
"""Largest ``config.json`` in bytes that is read; real ones have a few thousand."""

_STEMS = (("model", ".safetensors"), ("pytorch_model", ".bin"))
_WEIGHTS = re.compile(r"(model.*\.safetensors|pytorch_model.*\.bin)(\.index\.json)?|openvino_.*")


class InvalidHubResponse(Exception):
    """The server's response is not that of a Hugging Face hub."""


@dataclass(frozen=True)
class Listing:
    """Files of a repository that are needed."""

    revision: str
    """Commit."""
    files: list[RemoteFile]
    """Needed files, configuration and tokenizer before weights."""
    gated: bool
    """Whether the download requires an accepted licence."""

    @property
    def total_bytes(self) -> int:
        """Size of all needed files."""
        return sum(file.size for file in self.files)


def wanted_files(names: Iterable[str]) -> list[str]:
    """Return the files of a repository that are needed: weights, tokenizer, configuration.

    Safetensors are preferred to pickles; an OpenVINO IR is used if there are no other weights.
    Code, weights of other frameworks, subfolders and incomplete sets of shards are ignored.

    Raises:
        NotAModelError: the repository has no supported weights.
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
        "The repository contains neither safetensors, nor pytorch_model.bin, nor OpenVINO "
        "weights. Choose the original repository of the model."
    )


def is_weights(name: str) -> bool:
    """Return whether a file contains weights, or is an index or companion of such files."""
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
    """Return the headers of a request for a file: user agent, and the token if there is one."""
    from huggingface_hub.utils import build_hf_headers

    _disable_telemetry()
    return build_hf_headers(token=access.token or False)


def _disable_telemetry() -> None:
    """Disable the telemetry of ``huggingface_hub``.

    It would download a list of known programs from huggingface.co, whatever the endpoint, and send
    the name of the calling program and the version of torch with each request.
    """
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


@contextmanager
def _invalid_responses() -> Iterator[None]:
    """Raise ``InvalidHubResponse`` if the response cannot be parsed."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (HfHubHTTPError, HFValidationError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InvalidHubResponse(str(error)) from error


def list_files(hub_id: str, access: HubAccess) -> Listing:
    """List the files of a model on the hub.

    Raises:
        NotAModelError: the configuration, the tokenizer or the weights are missing.
        InvalidHubResponse: the server is not a Hugging Face hub.
        huggingface_hub.errors.HfHubHTTPError, httpx.HTTPError: the hub refused the request, or
            cannot be reached.
    """
    from huggingface_hub import HfApi, hf_hub_url

    _disable_telemetry()
    api = HfApi(endpoint=access.endpoint, token=access.token or False)
    with _invalid_responses():
        info = api.model_info(hub_id, files_metadata=True, timeout=RESPONSE_TIMEOUT_S)
    revision = info.sha or "main"
    known = {item.rfilename: item for item in info.siblings or []}
    names = wanted_files(known)
    _check_names(hub_id, names)
    files = []
    for name in names:
        item = known[name]
        url = hf_hub_url(hub_id, name, revision=revision, endpoint=access.endpoint)
        if item.size is None:
            files.append(_file_metadata(name, url, revision, access))
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


def _file_metadata(name: str, url: str, revision: str, access: HubAccess) -> RemoteFile:
    """Request size and checksum of one file, for mirrors whose file list lacks them."""
    from huggingface_hub import get_hf_file_metadata

    metadata = get_hf_file_metadata(
        url, token=access.token or False, timeout=RESPONSE_TIMEOUT_S, endpoint=access.endpoint
    )
    if metadata.size is None:
        raise InvalidHubResponse(f"the size of {name} is missing")
    etag = metadata.etag or ""
    return RemoteFile(
        name=name,
        url=url,
        size=metadata.size,
        sha256=etag if re.fullmatch("[0-9a-f]{64}", etag) else None,
        git_sha1=etag if re.fullmatch("[0-9a-f]{40}", etag) else None,
        revision=revision,
    )


def _check_names(hub_id: str, names: list[str]) -> None:
    if "config.json" not in names:
        raise NotAModelError(
            f"{hub_id} contains no config.json, so it is not a supported model. Choose the "
            "original repository of the model."
        )
    if not any(name in names for name in checkpoint.TOKENIZER_FILES):
        raise NotAModelError(
            f"{hub_id} contains no tokenizer. Choose the original repository of the model."
        )


def read_config(hub_id: str, access: HubAccess, listing: Listing) -> dict[str, Any] | None:
    """Download the model's ``config.json``; None if access is not granted yet, or it is too large.

    Raises:
        NotAModelError: it is not a supported causal language model.
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
            timeout=httpx.Timeout(RESPONSE_TIMEOUT_S),
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
            f"The config.json of {hub_id} is not readable. Choose the original repository of the "
            "model."
        )
    checkpoint.check_config(config, hub_id)
    return config


def check_no_custom_code(hub_id: str, folder: Path) -> None:
    """Check the downloaded configuration files before gigabytes of weights are downloaded.

    Raises:
        NotAModelError: the model or its tokenizer requires its own code, or it is not a causal
            language model.
    """
    config = _check_config(hub_id, (folder / "config.json").read_bytes())
    path = folder / "tokenizer_config.json"
    try:
        tokenizer = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:
        return  # loading the tokenizer reports the error
    code = tokenizer.get("auto_map") if isinstance(tokenizer, dict) else None
    if isinstance(code, dict):
        code = code.get("AutoTokenizer")
    if code and not _has_own_tokenizer(config, str(tokenizer.get("tokenizer_class"))):
        raise NotAModelError(
            f"The tokenizer of {hub_id} requires its own Python code (trust_remote_code), which "
            "Paddock never runs. Choose a model whose tokenizer is part of transformers."
        )


def _has_own_tokenizer(config: dict[str, Any], name: str) -> bool:
    """Return whether transformers has a tokenizer for a model that also comes with code for one."""
    from transformers.models.auto.tokenization_auto import (
        TOKENIZER_MAPPING_NAMES,
        tokenizer_class_from_name,
    )

    if TOKENIZER_MAPPING_NAMES.get(config["model_type"]):
        return True
    stem = name.removesuffix("Fast")
    return any(tokenizer_class_from_name(kind) is not None for kind in (stem, f"{stem}Fast"))


def remove_stale_files(folder: Path, files: list[RemoteFile]) -> None:
    """Remove partial files and weights that are not, or no longer, in the repository."""
    current = {name for file in files for name in (file.name, file.part_name)}
    for path in folder.iterdir():
        removable = path.suffix == ".part" or is_weights(path.name)
        if removable and path.name not in current and path.is_file():
            path.unlink()
