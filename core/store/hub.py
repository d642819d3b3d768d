"""Fetches a checkpoint from the Hugging Face hub: the files that are needed and no others.

``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` have their usual meaning. What has been fetched
completely is not asked for again, so a model once here is usable without a network.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import DiskFullError, GatedModelError, HubError, NotAModelError, UnknownModelError
from core.store.progress import Progress, ProgressCallback, Stage
from core.store.weights import IR_BIN, IR_XML

ANSWER_TIMEOUT_S = 10.0
"""How long the hub may take to say what a model consists of."""

COMPLETE_MARK = "paddock-download.json"
"""Written last: the revision and the names of the files of a complete download."""

_SMALL_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
    }
)
_SHARD = r"(-\d{5}-of-\d{5})?"
_SAFETENSORS = re.compile(rf"model{_SHARD}\.safetensors(\.index\.json)?")
_PICKLES = re.compile(rf"pytorch_model{_SHARD}\.bin(\.index\.json)?")


@dataclass(frozen=True)
class Download:
    """A checkpoint that lies complete on disk."""

    folder: Path
    revision: str
    """Commit of the hub's repository."""


def wanted_files(names: Iterable[str]) -> list[str]:
    """The files of a repository that make the model: weights once, tokenizer, configuration.

    OpenVINO IR is preferred where it is all there is; safetensors to pickles; code, other
    frameworks' weights and subfolders are left where they are.

    Raises:
        NotAModelError: the repository has no weights that can be read.
    """
    present = set(names)
    small = _SMALL_FILES & present
    for pattern in (_SAFETENSORS, _PICKLES):
        weights = {name for name in present if pattern.fullmatch(name)}
        if any(not name.endswith(".json") for name in weights):
            return sorted(small | weights)
    if {IR_XML, IR_BIN} <= present:
        return sorted(small | {IR_XML, IR_BIN})
    raise NotAModelError(
        "The repository holds neither safetensors, nor pytorch_model.bin, nor OpenVINO weights; "
        "choose the original repository of the model."
    )


def fetch(hub_id: str, folder: Path, on_progress: ProgressCallback) -> Download:
    """Fetch ``hub_id`` into ``folder``, or return it at once where it is there already.

    An interrupted download is continued by the next call.

    Raises:
        UnknownModelError: the hub has no such model, or not for this person.
        GatedModelError: its licence must be accepted first.
        NotAModelError: the repository holds no usable weights.
        HubError: no network, or the hub failed.
        DiskFullError: it does not fit the disk.
    """
    done = completed(folder)
    if done is not None:
        return done
    on_progress(Progress(Stage.FETCHING, f"Asking the hub for {hub_id}.", None))
    with _readable_errors(hub_id):
        from huggingface_hub import HfApi, snapshot_download

        endpoint = os.environ.get("HF_ENDPOINT") or None
        info = HfApi(endpoint=endpoint).model_info(
            hub_id, files_metadata=True, timeout=ANSWER_TIMEOUT_S
        )
        sizes = {item.rfilename: item.size or 0 for item in info.siblings or []}
        names = wanted_files(sizes)
        total = sum(sizes[name] for name in names)
        folder.mkdir(parents=True, exist_ok=True)
        _check_space(hub_id, folder, total)
        on_progress(Progress(Stage.FETCHING, f"Fetching {hub_id} ({total / 1e9:.2f} GB).", None))
        snapshot_download(
            hub_id,
            revision=info.sha,
            local_dir=folder,
            allow_patterns=names,
            endpoint=endpoint,
        )
    _check_complete(hub_id, folder, {name: sizes[name] for name in names})
    _write_mark(folder, info.sha or "main", names)
    return Download(folder, info.sha or "main")


def completed(folder: Path) -> Download | None:
    """The download in ``folder`` if all of it is there."""
    try:
        mark = json.loads((folder / COMPLETE_MARK).read_text(encoding="utf-8"))
        if all((folder / name).is_file() for name in mark["files"]):
            return Download(folder, str(mark["revision"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _check_complete(hub_id: str, folder: Path, sizes: dict[str, int]) -> None:
    """snapshot_download hands out a half-filled folder where the network fails midway."""
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or (size and path.stat().st_size != size):
            raise HubError(
                f"Fetching {hub_id} stopped before {name} was complete; check the network and try "
                "again, it will go on from there."
            )


def _write_mark(folder: Path, revision: str, names: list[str]) -> None:
    beside = folder / f"{COMPLETE_MARK}.new"
    beside.write_text(json.dumps({"revision": revision, "files": names}), encoding="utf-8")
    beside.replace(folder / COMPLETE_MARK)


def _check_space(hub_id: str, folder: Path, needed: int) -> None:
    here = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if needed - here > free:
        raise DiskFullError(
            f"Fetching {hub_id} needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB "
            "free; make room, or set PADDOCK_HOME to a larger disk."
        )


@contextmanager
def _readable_errors(hub_id: str) -> Iterator[None]:
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise GatedModelError(
            f"{hub_id} is gated: accept its licence on its page at the hub, then set HF_TOKEN to "
            "a token of the same account."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UnknownModelError(
            f"The hub has no model {hub_id}, or it is private; check the spelling, or set "
            "HF_TOKEN to a token that may read it."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError(
            f"{hub_id} is not on this machine and HF_HUB_OFFLINE forbids fetching it; unset "
            "HF_HUB_OFFLINE, or give the path of a local folder."
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        raise HubError(
            f"The hub answered {status} when asked for {hub_id}; try again later."
        ) from error
    except (httpx.HTTPError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise HubError(
            f"{hub_id} is not on this machine and the hub cannot be reached; check the network, "
            "or give the path of a local folder."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"The disk became full while {hub_id} was fetched; make room and try again."
        ) from error
