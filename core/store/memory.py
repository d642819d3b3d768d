"""Peak memory of this process while something runs."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

SAMPLE_INTERVAL_S = 0.05


class PeakMemory:
    """Samples the memory of this process from a thread of its own, as a context manager.

    ``total_bytes`` is the highest resident set size seen, memory-mapped files included.
    ``private_bytes`` is the highest memory seen that belongs to this process alone; it is None
    where the operating system does not tell the two apart (macOS). Peaks shorter than
    :data:`SAMPLE_INTERVAL_S` may be missed.
    """

    def __init__(self) -> None:
        self.total_bytes = 0
        self.private_bytes: int | None = None
        self._process = psutil.Process()
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
