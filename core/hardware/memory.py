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

import psutil

log = logging.getLogger(__name__)

_RELEASE_INTERVAL_S = 0.2
_MADV_DONTNEED = 4
"""From Linux's ``sys/mman.h``; the same on all architectures that OpenVINO runs on."""


def peak_resident_bytes() -> int:
    """Return the peak resident set size of this process, memory-mapped files included."""
    if sys.platform == "linux":  # getrusage may return that of the parent process
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
