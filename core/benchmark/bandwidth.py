"""Measures the memory read bandwidth: ``python -m core.benchmark.bandwidth``.

Decoding one token reads all weights once, so bandwidth divided by bytes per token is the upper
limit of the decode rate. Measured is reading alone, by all cores together, of blocks much larger
than any cache; not copying, which also writes, and not the latency of single accesses.

The reduction is the sum of 64-bit integers: NumPy computes it with vector instructions, releases
the interpreter lock meanwhile, and neither rounding nor NaN matter. On two cores of a server
processor it was as fast as any other (sum and maximum of int64, maximum and dot product of float32,
all within the noise), and a third faster than the maximum of int32; dot products would start
threads of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import numpy as np

from core.errors import NotEnoughMemoryError
from core.hardware.cgroups import usable_processors
from core.hardware.devices import available_memory_bytes
from core.settings import CHECKOUT
from core.units import bytes_text

BLOCK_BYTES = 512 * 2**20
"""Size of all blocks together, if there is enough memory: sixteen times the last-level cache of
common processors, and larger than the 384 MiB of the largest."""

SMALLEST_BLOCK_BYTES = 128 * 2**20
"""Smaller blocks would measure the caches."""

_SHARE_OF_FREE = 0.25
"""Share of the free memory that the blocks may use."""


def read_bandwidth(seconds: float = 2.0) -> float:
    """Return the read bandwidth of all cores together in bytes/s: the best of several passes.

    The best, because disturbances only make a pass slower.

    Args:
        seconds: duration of the measurement, with at least two passes. Filling the blocks takes
            additional time.

    Raises:
        NotEnoughMemoryError: not enough free memory for blocks larger than the caches.
    """
    workers = usable_processors()
    # Ones, not zeros: untouched pages all map to one page of zeros, which stays in the cache.
    parts = [np.ones(_block_bytes() // workers // 8, dtype=np.int64) for _ in range(workers)]
    best, passes, deadline = 0.0, 0, time.perf_counter() + seconds
    while passes < 2 or time.perf_counter() < deadline:
        best = max(best, _one_pass(parts))
        passes += 1
    return best


def read_bandwidth_apart(seconds: float = 2.0) -> float:
    """Return :func:`read_bandwidth` of a process of its own.

    In a process that runs other Python code, such as the server that draws a page, the reading
    threads wait for the interpreter lock, and the result was a quarter of the bandwidth.

    Raises:
        NotEnoughMemoryError: as there, or the process failed for another reason.
    """
    code = f"from core.benchmark.bandwidth import main; main({seconds})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotEnoughMemoryError(
            f"The memory bandwidth cannot be measured: {done.stderr.strip()[-300:]}. Close other "
            "programs."
        )
    return float(json.loads(done.stdout.splitlines()[-1])["read_bandwidth_bytes_per_s"])


def _one_pass(parts: list[np.ndarray]) -> float:
    """Return the bytes/s of reading all parts at once, each in its own thread.

    Each thread records its own start and end. A separate observing thread would be scheduled only
    after all cores are reading, and would see a pass that seems faster than the memory.
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


def _block_bytes() -> int:
    free = available_memory_bytes()
    size = int(min(BLOCK_BYTES, _SHARE_OF_FREE * free))
    if size < SMALLEST_BLOCK_BYTES:
        raise NotEnoughMemoryError(
            f"Measuring the memory bandwidth needs {bytes_text(SMALLEST_BLOCK_BYTES)}, which must "
            f"be at most a quarter of the free memory, but {bytes_text(free)} are free. Close "
            "other programs."
        )
    return size


def main(seconds: float = 2.0) -> None:
    """Print the bandwidth as text, then as one line of JSON."""
    found = read_bandwidth(seconds)
    print(f"Memory read bandwidth: {bytes_text(found)}/s with {usable_processors()} cores.")
    print(json.dumps({"read_bandwidth_bytes_per_s": round(found), "cores": usable_processors()}))


if __name__ == "__main__":
    main()
