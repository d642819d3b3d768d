"""Download files over HTTP: resumable, and with verified checksums.

``huggingface_hub`` 1.21 discards a partial file when the connection finally fails or the process
ends, and its Xet client never resumes a partial file. Here a file is written to a ``.part`` file in
the same folder. The next attempt requests the rest with ``Range``, compares the checksum of the
whole file with the hub's, and only then renames it. The requests use ``huggingface_hub``'s own HTTP
client. A download is stopped by ending its process, see :mod:`core.store.subprocesses`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.store.progress import Transfer

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 20.0
"""A connection that receives nothing for this long is considered broken."""

RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0, 8.0)
"""Waits before each retry; after the last one the attempt fails. Each byte received resets the
number of retries."""

_RETRIED_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
_BLOCK = 2**20
_REPORT_INTERVAL_S = 0.25
_RATE_WINDOW_S = 5.0
_RATE_FIRST_S = 1.0
"""No rate is reported before this time has passed."""


class BrokenDownload(Exception):
    """The connection broke too often; the message is the name of the file."""


class ChecksumMismatch(Exception):
    """A file does not have the checksum or size that the hub reports; the message is its name."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as listed by the hub."""

    name: str
    url: str
    size: int
    """Bytes."""
    sha256: str | None
    """Of the content; reported by the hub for large files."""
    git_sha1: str | None
    """Of the git blob; reported by the hub for small files."""
    revision: str
    """Commit of the repository."""

    @property
    def part_name(self) -> str:
        """Name of the partial file; it depends on the content, so that a partial file is never
        continued with other content."""
        return f"{self.name}.{(self.sha256 or self.git_sha1 or self.revision)[:16]}.part"


class Meter:
    """Counts the bytes of a download, and reports them four times a second."""

    def __init__(
        self, files: tuple[RemoteFile, ...], folder: Path, report: Callable[[str, Transfer], None]
    ) -> None:
        """
        Args:
            folder: with what an earlier attempt has left.
        """
        self.message = ""
        """Current step, for the user."""
        self._report = report
        self._total = sum(file.size for file in files)
        self._sizes = {file.name: min(_present(file, folder), file.size) for file in files}
        self._received = 0
        self._samples = deque([(time.monotonic(), 0)])
        self._reported_at = float("-inf")

    @property
    def missing(self) -> int:
        """Bytes that are not on disk yet."""
        return self._total - sum(self._sizes.values())

    def set_size(self, name: str, size: int, received: int = 0) -> None:
        """Record the bytes of a file on disk, and how many of them have just been received."""
        self._sizes[name] = size
        self._received += received
        if time.monotonic() - self._reported_at >= _REPORT_INTERVAL_S:
            self.report()

    def report(self) -> None:
        """Report at once."""
        now, samples = time.monotonic(), self._samples
        samples.append((now, self._received))
        while now - samples[0][0] > _RATE_WINDOW_S:
            samples.popleft()
        seconds, received = now - samples[0][0], self._received - samples[0][1]
        rate = received / seconds if seconds >= _RATE_FIRST_S else None
        self._reported_at = now
        self._report(self.message, Transfer(self._total - self.missing, self._total, rate))


def fetch_file(file: RemoteFile, folder: Path, headers: dict[str, str], meter: Meter) -> None:
    """Download ``file`` into ``folder`` and verify it, resuming a partial file.

    Args:
        headers: of the request; the authorization is not sent to another host on a redirect.

    Raises:
        BrokenDownload: the connection broke too often; the partial file is kept.
        ChecksumMismatch: checksum or size differ from the hub's; the partial file is deleted.
        huggingface_hub.errors.HfHubHTTPError: the hub refused the request.
        OSError: the file cannot be written.
    """
    place, part = folder / file.name, folder / file.part_name
    if place.is_file():
        if _is_valid(place, file):
            meter.set_size(file.name, file.size)
            return
        place.unlink()
    attempts = 2 if part.is_file() else 1  # an older partial file may be damaged
    for attempt in range(1, attempts + 1):
        try:
            _complete(file, part, headers, meter)
            break
        except ChecksumMismatch:
            part.unlink()
            meter.set_size(file.name, 0)
            if attempt == attempts:
                raise
    part.replace(place)


def _complete(file: RemoteFile, part: Path, headers: dict[str, str], meter: Meter) -> None:
    """Download the rest of ``file`` to ``part``, with retries when the connection breaks."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("r+b" if part.is_file() else "x+b", buffering=0) as handle:
        partial = _PartialFile(file, handle, meter)
        failures = 0
        while partial.size < file.size:
            before = partial.size
            try:
                _receive(partial, file, headers)
                cause: Exception | None = None
            except httpx.TransportError as error:
                cause = error
            except HfHubHTTPError as error:
                if error.response.status_code not in _RETRIED_STATUS:
                    raise
                if error.response.status_code == 416:
                    partial.restart()
                cause = error
            if partial.size >= file.size:
                break
            failures = 1 if partial.size > before else failures + 1
            if failures > len(RETRY_WAITS_S):
                raise BrokenDownload(file.name) from cause
            _wait_before_retry(file.name, RETRY_WAITS_S[failures - 1], meter)
        if not partial.is_valid():
            raise ChecksumMismatch(file.name)
        os.fsync(handle.fileno())  # before the rename: a named file is complete after a power cut


def _wait_before_retry(name: str, seconds: float, meter: Meter) -> None:
    before = meter.message
    meter.message = f"The connection broke while downloading {name}. Retrying in {seconds:.0f} s."
    meter.report()
    time.sleep(seconds)
    meter.message = before


def _receive(partial: _PartialFile, file: RemoteFile, headers: dict[str, str]) -> None:
    """Send one request and append the response to the partial file."""
    import httpx
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = headers | {"Accept-Encoding": "identity"}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
    timeout = httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    with get_session().stream(
        "GET", file.url, headers=headers, timeout=timeout, follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        if partial.size and not _continues_at(response, partial.size):
            partial.restart()
            if response.status_code == 206:
                raise httpx.RemoteProtocolError("the server sent another range than requested")
        for chunk in response.iter_bytes():
            partial.append(chunk)


def _continues_at(response: httpx.Response, offset: int) -> bool:
    content_range = response.headers.get("Content-Range", "")
    return response.status_code == 206 and content_range.startswith(f"bytes {offset}-")


class _PartialFile:
    """A partial file and the checksum of its content."""

    def __init__(self, file: RemoteFile, handle: Any, meter: Meter) -> None:
        self._file = file
        self._handle = handle
        self._meter = meter
        self._digest = _Digest(file)
        self.size = 0
        while block := handle.read(_BLOCK):
            self._digest.update(block)
            self.size += len(block)
        if self.size > file.size:
            self.restart()
        meter.set_size(file.name, self.size)

    def append(self, chunk: bytes) -> None:
        if self.size + len(chunk) > self._file.size:
            raise ChecksumMismatch(self._file.name)
        rest = memoryview(chunk)
        while rest:  # write() of an unbuffered file may write only a part
            rest = rest[self._handle.write(rest) :]
        self._digest.update(chunk)
        self.size += len(chunk)
        self._meter.set_size(self._file.name, self.size, received=len(chunk))

    def restart(self) -> None:
        """Start again at the first byte, because the server cannot resume."""
        self._handle.seek(0)
        self._handle.truncate()
        self._digest = _Digest(self._file)
        self.size = 0
        self._meter.set_size(self._file.name, 0)

    def is_valid(self) -> bool:
        return self.size == self._file.size and self._digest.is_valid()


class _Digest:
    """The checksum that the hub reports for a file; without one, any content is valid."""

    def __init__(self, file: RemoteFile) -> None:
        self._expected = file.sha256 or file.git_sha1
        if file.sha256:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, block: bytes) -> None:
        if self._expected:
            self._hash.update(block)

    def is_valid(self) -> bool:
        return self._expected in (None, self._hash.hexdigest())


def _is_valid(path: Path, file: RemoteFile) -> bool:
    """Return whether a file from an earlier attempt still has the content on the hub."""
    if _size(path) != file.size or not (file.sha256 or file.git_sha1):
        return False
    digest = _Digest(file)
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.is_valid()


def _present(file: RemoteFile, folder: Path) -> int:
    return _size(folder / file.name) or _size(folder / file.part_name)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
