"""Measures how fast this machine reads memory: ``python -m core.benchmark.bandwidth``.

Decoding one token reads all weights once, so memory bandwidth over bytes per token is the rate that
no runtime exceeds. What is measured is reading alone, by all cores together, of blocks far larger
than any cache; not copying, which writes as well, and not the latency of a single access.

The reduction is the sum of 64-bit integers: NumPy adds them with vector instructions, releases the
interpreter lock meanwhile, and has neither rounding nor NaN to look after. On two cores of a server
processor it read as fast as any (sum and maximum of int64, maximum and dot product of float32, all
within the noise), a third faster than the maximum of int32; dot products would start threads of
their own beside ours.
"""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import psutil

from core.errors import NotEnoughMemoryError
from core.hardware.devices import available_memory_bytes
from core.units import bytes_text

BLOCK_BYTES = 512 * 2**20
"""Of all cores together, unless the machine is short of memory: sixteen times the last-level cache
of common processors, and still larger than the 384 MiB of the largest."""

SMALLEST_BLOCK_BYTES = 128 * 2**20
"""With less than this the caches would be measured."""

_SHARE_OF_FREE = 0.25
"""Of the free memory that the block may take."""


def read_bandwidth(seconds: float = 2.0) -> float:
    """Read bandwidth in bytes/s of all cores together: the best of the passes that fit the time.

    The best, since whatever disturbs a pass only makes it slower.

    Args:
        seconds: of measuring; at least two passes are made. Filling the block comes on top.

    Raises:
        NotEnoughMemoryError: too little memory is free for a block larger than the caches.
    """
    workers = _cores()
    # Written to: untouched pages would all be the one page of zeros, which stays in the cache.
    parts = [np.ones(_block_bytes() // workers // 8, dtype=np.int64) for _ in range(workers)]
    best, passes, deadline = 0.0, 0, time.perf_counter() + seconds
    while passes < 2 or time.perf_counter() < deadline:
        best = max(best, _one_pass(parts))
        passes += 1
    return best


def _one_pass(parts: list[np.ndarray]) -> float:
    """Bytes/s of reading all parts at once, each in a thread of its own.

    Each thread stamps its own beginning and end. A thread that only looked on would get its turn
    when all cores are reading already, and see a pass that seems faster than the memory is.
    """
    ready = threading.Barrier(len(parts))
    stamps: list[tuple[float, float]] = []

    def read(part: np.ndarray) -> None:
        ready.wait()
        started = time.perf_counter()
        np.add.reduce(part)
        stamps.append((started, time.perf_counter()))

    threads = [threading.Thread(target=read, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = max(ended for _, ended in stamps) - min(started for started, _ in stamps)
    return sum(part.nbytes for part in parts) / seconds


def _cores() -> int:
    try:
        return len(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS binds no process to cores
        return psutil.cpu_count() or 1


def _block_bytes() -> int:
    free = available_memory_bytes()
    size = int(min(BLOCK_BYTES, _SHARE_OF_FREE * free))
    if size < SMALLEST_BLOCK_BYTES:
        raise NotEnoughMemoryError(
            f"Measuring the memory bandwidth needs {bytes_text(SMALLEST_BLOCK_BYTES)} and no more "
            f"than a quarter of what is free, but {bytes_text(free)} are; close other programs."
        )
    return size


def main() -> None:
    """Print the bandwidth for people, then as one line of JSON."""
    found = read_bandwidth()
    print(f"Memory is read at {bytes_text(found)}/s by {_cores()} cores together.")
    print(json.dumps({"read_bandwidth_bytes_per_s": round(found), "cores": _cores()}))


if __name__ == "__main__":
    main()
