"""The child's side of a worker process that reports in JSON lines.

The parent's side is :mod:`core.workers.process`. The JSON lines are written to standard output;
everything that libraries print goes to standard error. Standard input is a pipe from the parent:
when it closes, for whatever reason, the child ends at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import IO, Any, NoReturn


class Channel:
    """Sends events to the parent; safe to use from several threads."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, **event: Any) -> None:
        """Send one event as a line of JSON."""
        with self._lock:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()


def open_channel() -> Channel:
    """Reserve standard output for JSON lines, redirect prints to standard error, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it and kills this process
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return Channel(stream)


def exit_with_parent() -> None:
    """End this process as soon as the parent closes its standard input, which is discarded."""
    threading.Thread(target=_wait_for_parent, name="end with parent", daemon=True).start()


def exit_now(code: int) -> NoReturn:
    """Exit without the cleanup of torch and OpenVINO, which takes a second; output is flushed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait_for_parent() -> None:
    # Not ``sys.stdin``: the interpreter aborts if it exits while a thread reads from that.
    while os.read(0, 4096):
        pass
    os._exit(1)
