"""List a model's files on a Hugging Face hub, and download those that are needed.

A complete download is not requested again, so a downloaded model works without a network. The
user's own setup of ``huggingface_hub`` (a stored token, a cache) is not used: a call only uses the
:class:`HubAccess` it is given.
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

from core.errors import DiskFullError, StoppedError, UserError
from core.store.download import count_bytes, fetch_file
from core.store.files import free_bytes
from core.store.hub_errors import offline_error, readable_errors
from core.store.hub_listing import (
    Listing,
    check_no_custom_code,
    is_weights,
    list_files,
    read_config,
    remove_stale_files,
    request_headers,
    wanted_files,
)
from core.store.progress import Progress, ProgressCallback, Stage, Transfer
from core.store.transfer import DownloadState, run_in_thread

COMPLETE_MARK = "paddock-download.json"
"""Written last; contains the revision and the file sizes of a complete download."""

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
    """Token, endpoint and offline mode for requests to a hub."""

    token: str | None = field(default=None, repr=False)
    """Never logged, shown or stored."""
    endpoint: str | None = None
    """URL of a mirror or private hub; None for huggingface.co."""
    offline: bool = False
    """Send no requests."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", (self.token or "").strip() or None)
        object.__setattr__(self, "endpoint", (self.endpoint or "").strip().rstrip("/") or None)

    @classmethod
    def from_environment(cls) -> HubAccess:
        """Read ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE``."""
        return cls(
            token=os.environ.get("HF_TOKEN"),
            endpoint=os.environ.get("HF_ENDPOINT"),
            offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES,
        )


@dataclass(frozen=True)
class HubModel:
    """Description of a model on the hub, before it is downloaded."""

    hub_id: str
    revision: str
    """Commit of the hub's repository."""
    files: dict[str, int]
    """Name and size in bytes of each file that would be downloaded."""
    total_bytes: int
    gated: bool
    """Whether the download requires an accepted licence and a token."""
    config: dict[str, Any] | None
    """Its ``config.json``; None if access is not granted yet, or the file is too large."""


@dataclass(frozen=True)
class Download:
    """A complete download."""

    folder: Path
    revision: str
    """Commit of the hub's repository."""


def describe(hub_id: str, access: HubAccess | None = None) -> HubModel:
    """List the files of ``hub_id`` on the hub and read its ``config.json``; download nothing else.

    Args:
        hub_id: org/name.
        access: access to the hub; by default from the environment.

    Raises:
        UnknownModelError: the model does not exist on the hub, or is not visible to this user.
        GatedModelError: the token is not accepted.
        NotAModelError: it is not a causal language model, has no usable weights, or requires its
            own code.
        HubError: no network, offline, or the hub failed.
        UserError: the token or the endpoint is not valid.
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
    """Download ``hub_id`` into ``folder``; return at once if the download is complete already.

    The next call resumes a download that failed, was stopped or killed. Checksums reported by the
    hub are verified.

    Args:
        hub_id: org/name.
        folder: folder of this model alone; created if missing. Only one process at a time may
            download into it.
        on_progress: called with bytes, rate and time left, at most four times a second, from the
            calling thread.
        access: access to the hub; by default from the environment.
        cancel: when set, the call ends within a second.

    Raises:
        StoppedError: ``cancel`` was set; partial files are kept.
        DiskFullError: not enough free disk space.
        PaddockError: what :func:`describe` raises; HubError also if the connection broke too
            often, a checksum differs, or the folder cannot be written to.
    """
    done = completed(folder)
    if done is not None:
        return done
    access = _checked(hub_id, access)

    def check_stop() -> None:
        if cancel is not None and cancel.is_set():
            raise StoppedError(
                f"The download of {hub_id} was stopped. The "
                f"{fetched_bytes(folder) / 1e6:.0f} MB on disk are kept, and the next attempt "
                "resumes there."
            )

    def report(message: str, transfer: Transfer | None) -> None:
        on_progress(Progress(Stage.FETCHING, message, None, transfer))

    def work(state: DownloadState) -> Download:
        listing = list_files(hub_id, access)
        with state.writing():
            folder.mkdir(parents=True, exist_ok=True)
            remove_stale_files(folder, listing.files)
        count_bytes(listing.files, folder, state)
        _check_space(hub_id, folder, state.total - state.done)
        headers = request_headers(access)
        checked = False
        for file in listing.files:
            if is_weights(file.name) and not checked:
                check_no_custom_code(hub_id, folder)
                checked = True
            state.message = f"Downloading {hub_id} ({file.name})."
            fetch_file(file, folder, headers, state)
        with state.writing():
            _write_mark(folder, listing)
        return Download(folder, listing.revision)

    on_progress(Progress(Stage.FETCHING, f"Listing the files of {hub_id}.", None))
    with readable_errors(hub_id, access):
        return run_in_thread(work, report, check_stop)


def completed(folder: Path) -> Download | None:
    """Return the download in ``folder``, or None if it is not complete."""
    try:
        mark = json.loads((folder / COMPLETE_MARK).read_text(encoding="utf-8"))
        files = mark["files"]
        if isinstance(files, list):  # format of earlier versions, without sizes
            files = dict.fromkeys(files)
        for name, size in files.items():
            actual = (folder / name).stat().st_size
            if size is not None and actual != size:
                return None
        return Download(folder, str(mark["revision"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def fetched_bytes(folder: Path) -> int:
    """Return the downloaded bytes in ``folder``, partial files included."""
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
    """Return the access to use, after checks for mistakes that httpx reports incomprehensibly."""
    access = access or HubAccess.from_environment()
    if access.offline:
        raise offline_error(hub_id)
    if access.token is not None and not _TOKEN.fullmatch(access.token):
        raise UserError(
            "The access token contains invalid characters. Copy it again from the settings of "
            "your Hugging Face account."
        )
    if access.endpoint is not None and not _is_web_address(access.endpoint):
        raise UserError(
            "The address of the hub is not a valid URL. Set HF_ENDPOINT to a URL that begins with "
            "https://."
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
            f"Downloading {hub_id} needs {needed / 1e9:.1f} GB more and the disk has "
            f"{free / 1e9:.1f} GB free. Free disk space, or set PADDOCK_HOME to a larger disk."
        )


def _write_mark(folder: Path, listing: Listing) -> None:
    beside = folder / f"{COMPLETE_MARK}.new"
    files = {file.name: file.size for file in listing.files}
    mark = {"revision": listing.revision, "files": files}
    beside.write_text(json.dumps(mark), encoding="utf-8")
    beside.replace(folder / COMPLETE_MARK)
