"""Writes random weights until the disk is full, which this worker says at once."""

from __future__ import annotations

import errno
from pathlib import Path

from core.benchmark import random_checkpoint
from core.workers.child import run_request


def work(request: dict, _channel: object) -> None:
    Path(request["folder"], "model.safetensors").write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


if __name__ == "__main__":
    run_request(work, random_checkpoint._describe)
