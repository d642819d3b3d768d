"""``bench --suite speed``: compare this machine's speed with fixed thresholds."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING

from core.errors import BadRequestError, PaddockError
from core.settings import Settings

if TYPE_CHECKING:
    from core.benchmark.speed.rows import Row


def speed_suite(options: argparse.Namespace, settings: Settings) -> int:
    """Run the speed suite, print a table and, as the last line, one JSON object.

    Returns:
        0 if every measured threshold is met, else 1.

    Raises:
        BadRequestError: there is no such part.
        ModelBusyError: a benchmark is running.
        StoppedError: Ctrl-C; the measurements so far are printed first.
    """
    from core.benchmark.lock import BenchmarkLock
    from core.benchmark.speed.rows import last_line, table
    from core.benchmark.speed.suite import FULL, PARTS, QUICK, Suite

    parts = options.parts or tuple(PARTS)
    for part in parts:
        if part not in PARTS:
            raise BadRequestError(
                f"The speed suite has no part {part!r}. Choose from {', '.join(PARTS)}."
            )
    suite = Suite(settings, QUICK if options.quick else FULL, _print_progress, threading.Event())
    rows: list[Row] = []
    with BenchmarkLock(settings).held():
        try:
            for row in suite.run(parts):
                rows.append(row)
                _print_progress(f"  {row.name}: {row.text}")
        finally:
            if rows:
                print(table(rows))
                print(last_line(rows), flush=True)
    return PaddockError.exit_code if any(row.met is False for row in rows) else 0


def _print_progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
