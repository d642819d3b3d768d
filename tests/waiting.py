"""Waiting for other threads, processes and pages, on a machine of any speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 240.0
"""Timeout in seconds of whatever is expected to happen. A busy machine may stall for many seconds,
so that no test may depend on a shorter one."""


def eventually(
    look: Callable[[], Any], what: str = "the condition", patience_s: float = PATIENCE_S
) -> Any:
    """Call ``look`` until its value is true and return that value."""
    deadline = time.monotonic() + patience_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what}: not within {patience_s} s"
        time.sleep(0.01)
    return seen
