"""Asks a Hugging Face hub what a model consists of, and fetches the files that are needed.

What has been fetched completely is not asked for again, so a model once here is usable without a
network. Whatever the person has set up for ``huggingface_hub`` itself (a stored token, a cache) is
left alone: a call uses the :class:`HubAccess` it is given and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.errors import DiskFullError, PersonMistake, StoppedError
from core.store.download import count, fetch_file
from core.store.files import free_bytes
from core.store.hub_errors import offline_error, readable_errors
from core.store.hub_listing import (
    Listing,
    is_weights,
    list_files,
    read_config,
    refuse_code,
    remove_strangers,
    request_headers,
    wanted_files,
)
from core.store.progress import Progress, ProgressCallback, Stage, Transfer
from core.store.transfer import Courier, carry_out

COMPLETE_MARK = "paddock-download.json"
"""Written last: the revision and the sizes of the files of a complete download."""

__all__ = [
    "Download",
    "HubAccess",
    "HubModel",
    "completed",
    "describe",
    "fetch",
    "fetched_bytes",
    "wanted_files",
]

_YES = frozenset({"1", "ON", "YES", "TRUE"})
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class HubAccess:
    """How a hub is asked."""

    token: str | None = field(default=None, repr=False)
    """Never logged, shown or written."""
    endpoint: str | None = None
    """Address of a mirror or private hub; None for huggingface.co."""
    offline: bool = False
    """Ask nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", (self.token or "").strip() or None)
        object.__setattr__(self, "endpoint", (self.endpoint or "").strip().rstrip("/") or None)

    @classmethod
    def from_environment(cls) -> HubAccess:
        """As ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` say."""
        return cls(
            token=os.environ.get("HF_TOKEN"),
            endpoint=os.environ.get("HF_ENDPOINT"),
            offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES,
        )


@dataclass(frozen=True)
class HubModel:
    """What the hub says of a model before anything is fetched."""

    hub_id: str
    revision: str
    """Commit of the hub's repository."""
    files: dict[str, int]
    """Name and bytes of each file that would be fetched."""
    total_bytes: int
    gated: bool
    """Whether a licence must be accepted, and a token given, to fetch it."""
    config: dict[str, Any] | None
    """Its ``config.json``; None where that may not be read yet, or is unreasonably large."""


@dataclass(frozen=True)
class Download:
    """A checkpoint that lies complete on disk."""

    folder: Path
    revision: str
    """Commit of the hub's repository."""


def describe(hub_id: str, access: HubAccess | None = None) -> HubModel:
    """Ask the hub what ``hub_id`` consists of; of its files, ``config.json`` alone is read.

    Args:
        hub_id: org/name.
        access: how to ask; by default as the environment says.

    Raises:
        UnknownModelError: the hub has no such model, or not for this person.
        GatedModelError: the token is not accepted.
        NotAModelError: it is no causal language model, has no usable weights, or wants its own
            code run.
        HubError: no network, offline, or the hub failed.
        PersonMistake: the token or the endpoint cannot be right.
    """
    access = _checked(hub_id, access)
    with readable_errors(hub_id, access):
        listing = list_files(hub_id, access)
        config = read_config(hub_id, access, listing)
    return HubModel(
        hub_id=hub_id,
        revision=listing.revision,
        files={file.name: file.size for file in listing.files},
        total_bytes=listing.total_bytes,
        gated=listing.gated,
        config=config,
    )


def fetch(
    hub_id: str,
    folder: Path,
    on_progress: ProgressCallback,
    *,
    access: HubAccess | None = None,
    cancel: threading.Event | None = None,
) -> Download:
    """Fetch ``hub_id`` into ``folder``, or return it at once where it is there already.

    A download that broke, was stopped or killed is continued by the next call. The checksums that
    the hub states are checked.

    Args:
        hub_id: org/name.
        folder: of this model alone; made if need be. One process at a time may fetch into it.
        on_progress: told of bytes, rate and time left, at most four times a second, from the
            calling thread.
        access: how to ask; by default as the environment says.
        cancel: when set, the call ends within a second.

    Raises:
        StoppedError: ``cancel`` was set; what came is kept.
        DiskFullError: it does not fit the disk.
        PaddockError: what :func:`describe` raises; HubError also where the connection broke too
            often, a checksum is wrong, or the folder cannot be written to.
    """
    done = completed(folder)
    if done is not None:
        return done
    access = _checked(hub_id, access)

    def stop_asked() -> None:
        if cancel is not None and cancel.is_set():
            raise StoppedError(
                f"Fetching {hub_id} was stopped; the {fetched_bytes(folder) / 1e6:.0f} MB that are "
                "here are kept, and the next attempt goes on from there."
            )

    def tell(message: str, transfer: Transfer | None) -> None:
        on_progress(Progress(Stage.FETCHING, message, None, transfer))

    def work(courier: Courier) -> Download:
        listing = list_files(hub_id, access)
        with courier.guard():
            folder.mkdir(parents=True, exist_ok=True)
            remove_strangers(folder, listing.files)
        count(listing.files, folder, courier)
        _check_space(hub_id, folder, courier.total - courier.done)
        headers = request_headers(access)
        looked_into = False
        for file in listing.files:
            if is_weights(file.name) and not looked_into:
                refuse_code(hub_id, folder)
                looked_into = True
            courier.message = f"Fetching {hub_id} ({file.name})."
            fetch_file(file, folder, headers, courier)
        with courier.guard():
            _write_mark(folder, listing)
        return Download(folder, listing.revision)

    on_progress(Progress(Stage.FETCHING, f"Asking the hub for {hub_id}.", None))
    with readable_errors(hub_id, access):
        return carry_out(work, tell, stop_asked)


def completed(folder: Path) -> Download | None:
    """The download in ``folder`` if all of it is there."""
    try:
        mark = json.loads((folder / COMPLETE_MARK).read_text(encoding="utf-8"))
        files = mark["files"]
        if isinstance(files, list):  # as it was written before sizes were kept
            files = dict.fromkeys(files)
        for name, size in files.items():
            there = (folder / name).stat().st_size
            if size is not None and there != size:
                return None
        return Download(folder, str(mark["revision"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def fetched_bytes(folder: Path) -> int:
    """Bytes of a model that are in ``folder``, however far its download has come."""
    total = 0
    for path in folder.glob("*"):
        if path.name.startswith(COMPLETE_MARK):
            continue
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # renamed meanwhile
            continue
    return total


def _checked(hub_id: str, access: HubAccess | None) -> HubAccess:
    """The access to use, after a look for mistakes that would only show in unreadable errors."""
    access = access or HubAccess.from_environment()
    if access.offline:
        raise offline_error(hub_id)
    if access.token is not None and not _TOKEN.fullmatch(access.token):
        raise PersonMistake(
            "The access token holds characters that no token has; copy it again from your "
            "account's settings at the hub."
        )
    if access.endpoint is not None and not _is_web_address(access.endpoint):
        raise PersonMistake(
            "The hub's address is not one; set HF_ENDPOINT to an address that begins with https://."
        )
    return access


def _is_web_address(text: str) -> bool:
    try:
        address = urlsplit(text)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        return False


def _check_space(hub_id: str, folder: Path, needed: int) -> None:
    free = free_bytes(folder)
    if needed > free:
        raise DiskFullError(
            f"Fetching {hub_id} needs {needed / 1e9:.1f} GB more and the disk has "
            f"{free / 1e9:.1f} GB free; make room, or set PADDOCK_HOME to a larger disk."
        )


def _write_mark(folder: Path, listing: Listing) -> None:
    beside = folder / f"{COMPLETE_MARK}.new"
    files = {file.name: file.size for file in listing.files}
    mark = {"revision": listing.revision, "files": files}
    beside.write_text(json.dumps(mark), encoding="utf-8")
    beside.replace(folder / COMPLETE_MARK)
