"""Peak memory of this process, and releasing memory-mapped files while it works."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import psutil

log = logging.getLogger(__name__)

SAMPLE_INTERVAL_S = 0.05
_RELEASE_INTERVAL_S = 0.2
_MADV_DONTNEED = 4
"""From Linux's ``sys/mman.h``; the same on all architectures that OpenVINO runs on."""


class PeakMemory:
    """Context manager that samples the memory of this process in a background thread.

    ``total_bytes`` is the highest resident set size, memory-mapped files included.
    ``private_bytes`` is the highest memory that belongs to this process alone; it is None where
    the operating system does not report it (macOS). Peaks shorter than :data:`SAMPLE_INTERVAL_S`
    may be missed, and longer ones while a library holds the interpreter lock. ``total_bytes`` is
    therefore raised to the operating system's own peak of the process, if that rose meanwhile.
    """

    def __init__(self) -> None:
        self.total_bytes = 0
        self.private_bytes: int | None = None
        self._process = psutil.Process()
        self._before = _highest_ever()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()
        highest = _highest_ever()
        if highest > self._before:
            self.total_bytes = max(self.total_bytes, highest)

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        info = self._process.memory_info()
        self.total_bytes = max(self.total_bytes, info.rss)
        private = _private_bytes(info)
        if private is not None:
            self.private_bytes = max(self.private_bytes or 0, private)


def _private_bytes(info: object) -> int | None:
    if hasattr(info, "private"):  # Windows: committed memory of this process alone
        return int(info.private)
    if hasattr(info, "shared"):  # Linux: resident minus file-backed and shared pages
        return int(info.rss - info.shared)
    return None


def _highest_ever() -> int:
    """Return the peak resident set size of this process in bytes; 0 if it is not recorded."""
    try:
        import resource
    except ImportError:  # Windows
        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


@contextmanager
def mapped_files_released(folder: Path) -> Iterator[None]:
    """Release the resident pages of weights that are mapped from files in ``folder``.

    Compression reads a mapped weight a few times and then never again, but its pages stay resident
    until the system runs short of memory: for a large model that is as much as the model itself.
    Here they are released several times a second; pages read again come from the file cache. Only
    read-only mappings are released, so no data can be lost. Linux only; on other systems this does
    nothing.
    """
    maps = Path("/proc/self/maps")
    if not sys.platform.startswith("linux") or not maps.is_file():
        yield
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    inside = f"{os.path.realpath(folder)}{os.sep}"
    ended = threading.Event()

    def release() -> None:
        while not ended.wait(_RELEASE_INTERVAL_S):
            for start, end in _read_only_mappings(maps, inside):
                if madvise(start, end - start, _MADV_DONTNEED):
                    log.debug("madvise: %s", os.strerror(ctypes.get_errno()))

    thread = threading.Thread(target=release, name="release-mapped-files", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _read_only_mappings(maps: Path, inside: str) -> Iterator[tuple[int, int]]:
    """Yield address ranges of read-only mappings of files in a folder."""
    for line in maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        # "7f00-7f10 r--p 00000000 fe:00 1234   /path/of the file" (the path may contain spaces)
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1].startswith("r--") and fields[5].startswith(inside):
            start, _, end = fields[0].partition("-")
            yield int(start, 16), int(end, 16)
