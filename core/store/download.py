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
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from core.store.progress import Progress, ProgressCallback, Stage, Transfer

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 20.0
"""A connection that receives nothing for this long is considered broken."""

RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0, 8.0)
"""Waits before each retry; after the last one the attempt fails. Each byte received resets the
number of retries."""

_RETRIED_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
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
        self, files: tuple[RemoteFile, ...], folder: Path, report: ProgressCallback
    ) -> None:
        """
        Args:
            folder: with what an earlier attempt has left.
        """
        self.message = ""
        """Current step, for the user."""
        self._report = report
        self._total = sum(file.size for file in files)
        self._sizes = {
            file.name: min(_size(folder / file.name) or _size(folder / file.part_name), file.size)
            for file in files
        }
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
        transfer = Transfer(self._total - self.missing, self._total, rate)
        self._report(Progress(Stage.FETCHING, self.message, None, transfer))


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
        if (file.sha256 or file.git_sha1) and _is_valid(place, file):
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
    with part.open("ab", buffering=0) as handle:
        failures = 0
        while (before := _size(part)) < file.size:
            cause: Exception | None = None
            try:
                _receive(file, handle, headers, meter)
            except httpx.TransportError as error:
                cause = error
            except HfHubHTTPError as error:
                if error.response.status_code not in _RETRIED_STATUS:
                    raise
                if error.response.status_code == 416:
                    handle.truncate(0)
                    meter.set_size(file.name, 0)
                cause = error
            if (now := _size(part)) >= file.size:
                break
            failures = 1 if now > before else failures + 1
            if failures > len(RETRY_WAITS_S):
                raise BrokenDownload(file.name) from cause
            seconds, message = RETRY_WAITS_S[failures - 1], meter.message
            meter.message = (
                f"The connection broke while downloading {file.name}. Retrying in {seconds:.0f} s."
            )
            meter.report()
            time.sleep(seconds)
            meter.message = message
        os.fsync(handle.fileno())  # before the rename: a named file is complete after a power cut
    if not _is_valid(part, file):
        raise ChecksumMismatch(file.name)


def _receive(file: RemoteFile, handle: FileIO, headers: dict[str, str], meter: Meter) -> None:
    """Send one request and append the response to the partial file."""
    import httpx
    from huggingface_hub.utils import get_session, hf_raise_for_status

    size = os.fstat(handle.fileno()).st_size
    headers = headers | {"Accept-Encoding": "identity"}
    if size:
        headers["Range"] = f"bytes={size}-"
    timeout = httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    with get_session().stream(
        "GET", file.url, headers=headers, timeout=timeout, follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        partial = response.status_code == 206
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {size}-")
        if size and not (partial and resumed):
            size = handle.truncate(0)
            meter.set_size(file.name, 0)
            if partial:
                raise httpx.RemoteProtocolError("the server sent another range than requested")
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > file.size:
                raise ChecksumMismatch(file.name)
            rest = memoryview(chunk)
            while rest:  # write() of an unbuffered file may write only a part
                rest = rest[handle.write(rest) :]
            meter.set_size(file.name, size, received=len(chunk))


def _is_valid(path: Path, file: RemoteFile) -> bool:
    """Return whether a file has the size and, if the hub reports one, the checksum on the hub."""
    expected = file.sha256 or file.git_sha1
    if _size(path) != file.size or expected is None:
        return _size(path) == file.size
    begin = b"" if file.sha256 else b"blob %d\0" % file.size
    kind = "sha256" if file.sha256 else "sha1"
    with path.open("rb") as content:
        digest = hashlib.file_digest(
            content, lambda: hashlib.new(kind, begin, usedforsecurity=False)
        )
    return digest.hexdigest() == expected


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
