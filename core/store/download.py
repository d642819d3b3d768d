"""Fetches files over HTTP so that nothing that came is lost, and so that it can be stopped at once.

``huggingface_hub`` 1.21 throws away what came of a file when the connection breaks for good or the
process ends, and its Xet client never goes on from a part. Here a file grows in a ``.part`` beside
its place; the next attempt asks for the rest by ``Range``, compares the checksum of the whole with
the hub's, and only then renames it. The requests go through ``huggingface_hub``'s own client.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.store.transfer import Courier

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 20.0
"""A connection on which nothing comes for so long is taken for broken."""

RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0, 8.0)
"""Waits before a broken file is asked for again; after the last one the attempt fails. Each byte
that comes starts the row anew."""

_RETRIED_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
_BLOCK = 2**20


class BrokenDownload(Exception):
    """The connection broke again and again; the text is the name of the file."""


class WrongContent(Exception):
    """A file does not have the checksum or length that the hub states; the text is its name."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as the hub describes it."""

    name: str
    url: str
    size: int
    """Bytes."""
    sha256: str | None
    """Of the content; the hub states it for large files."""
    git_sha1: str | None
    """Name of the content as a git blob; the hub states it for small files."""
    revision: str
    """Commit of the repository."""

    @property
    def part_name(self) -> str:
        """Name of the file while it grows: a part is never continued with other content."""
        return f"{self.name}.{(self.sha256 or self.git_sha1 or self.revision)[:16]}.part"


def count(files: list[RemoteFile], folder: Path, courier: Courier) -> None:
    """Tell the courier the bytes of these files, and what is there of them already."""
    for file in files:
        here = _size(folder / file.name) or _size(folder / file.part_name)
        courier.note(file.name, min(here, file.size))
    courier.total = sum(file.size for file in files)


def fetch_file(file: RemoteFile, folder: Path, headers: dict[str, str], courier: Courier) -> None:
    """Make ``file`` lie whole and checked in ``folder``, going on from what is there of it.

    Args:
        file: what the hub says of it.
        folder: existing folder.
        headers: of the request; an authorization is not sent on to another host.
        courier: counts the bytes and says when to stop.

    Raises:
        BrokenDownload: the connection broke too often; what came is kept.
        WrongContent: checksum or length are not those the hub states; what came is thrown away.
        huggingface_hub.errors.HfHubHTTPError: the hub refused.
        OSError: the file cannot be written.
    """
    place, part = folder / file.name, folder / file.part_name
    if place.is_file():
        if _is_right(place, file, courier):
            courier.note(file.name, file.size)
            return
        with courier.guard():
            place.unlink()
    attempts = 2 if part.is_file() else 1  # an older part may have been damaged on disk
    for attempt in range(1, attempts + 1):
        try:
            _fill(file, part, headers, courier)
            break
        except WrongContent:
            with courier.guard():
                part.unlink()
            courier.note(file.name, 0)
            if attempt == attempts:
                raise
    with courier.guard():
        part.replace(place)


def _fill(file: RemoteFile, part: Path, headers: dict[str, str], courier: Courier) -> None:
    """Fetch what ``part`` lacks of ``file``, trying again where the connection breaks."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    with courier.guard():
        handle = part.open("r+b" if part.is_file() else "x+b", buffering=0)
    with handle:
        growing = _Growing(file, handle, courier)
        failures = 0
        while growing.size < file.size:
            before = growing.size
            try:
                _receive(growing, file, headers, courier)
                cause: Exception | None = None
            except httpx.TransportError as error:
                cause = error
            except HfHubHTTPError as error:
                if error.response.status_code not in _RETRIED_STATUS:
                    raise
                if error.response.status_code == 416:
                    growing.restart()
                cause = error
            if growing.size >= file.size:
                break
            failures = 1 if growing.size > before else failures + 1
            if failures > len(RETRY_WAITS_S):
                raise BrokenDownload(file.name) from cause
            _wait_before_retry(file.name, RETRY_WAITS_S[failures - 1], courier)
        if not growing.is_right():
            raise WrongContent(file.name)
        os.fsync(handle.fileno())  # a file in its place is whole, even after a power cut


def _wait_before_retry(name: str, seconds: float, courier: Courier) -> None:
    doing = courier.message
    courier.message = f"The connection broke while {name} came; trying again in {seconds:.0f} s."
    courier.rest(seconds)
    courier.message = doing


def _receive(
    growing: _Growing, file: RemoteFile, headers: dict[str, str], courier: Courier
) -> None:
    """Append to the part what one request gives."""
    import httpx
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = headers | {"Accept-Encoding": "identity"}
    if growing.size:
        headers["Range"] = f"bytes={growing.size}-"
    timeout = httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    courier.rest(0)
    with (
        get_session().stream(
            "GET", file.url, headers=headers, timeout=timeout, follow_redirects=True
        ) as response,
        courier.listening(response),
    ):
        hf_raise_for_status(response)
        if growing.size and not _continues_at(response, growing.size):
            growing.restart()
            if response.status_code == 206:
                raise httpx.RemoteProtocolError("another range came than was asked for")
        for chunk in response.iter_bytes():
            growing.append(chunk)


def _continues_at(response: httpx.Response, offset: int) -> bool:
    given = response.headers.get("Content-Range", "")
    return response.status_code == 206 and given.startswith(f"bytes {offset}-")


class _Growing:
    """A part of a file, and the checksum of what is in it."""

    def __init__(self, file: RemoteFile, handle: Any, courier: Courier) -> None:
        self._file = file
        self._handle = handle
        self._courier = courier
        self._digest = _Digest(file)
        self.size = 0
        while block := handle.read(_BLOCK):
            courier.rest(0)
            self._digest.update(block)
            self.size += len(block)
        if self.size > file.size:
            self.restart()
        courier.note(file.name, self.size)

    def append(self, chunk: bytes) -> None:
        if self.size + len(chunk) > self._file.size:
            raise WrongContent(self._file.name)
        with self._courier.guard():
            rest = memoryview(chunk)
            while rest:  # an unbuffered file may take less than it is given
                rest = rest[self._handle.write(rest) :]
        self._digest.update(chunk)
        self.size += len(chunk)
        self._courier.arrived += len(chunk)
        self._courier.note(self._file.name, self.size)

    def restart(self) -> None:
        """Begin at the first byte again: the server cannot go on from the middle."""
        with self._courier.guard():
            self._handle.seek(0)
            self._handle.truncate()
        self._digest = _Digest(self._file)
        self.size = 0
        self._courier.note(self._file.name, 0)

    def is_right(self) -> bool:
        return self.size == self._file.size and self._digest.is_right()


class _Digest:
    """The checksum that the hub states for a file; where it states none, everything is right."""

    def __init__(self, file: RemoteFile) -> None:
        self._expected = file.sha256 or file.git_sha1
        if file.sha256:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, block: bytes) -> None:
        if self._expected:
            self._hash.update(block)

    def is_right(self) -> bool:
        return self._expected in (None, self._hash.hexdigest())


def _is_right(path: Path, file: RemoteFile, courier: Courier) -> bool:
    """Whether a file that an earlier attempt finished is still what the hub has."""
    if _size(path) != file.size or not (file.sha256 or file.git_sha1):
        return False
    digest = _Digest(file)
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            courier.rest(0)
            digest.update(block)
    return digest.is_right()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
