"""A child process that works for another and tells of it in JSON lines: the child's side.

The parent's side is :mod:`core.workers.process`. Standard output is the channel of the JSON
lines; what libraries print goes to standard error. Standard input is a pipe from the parent: when
that closes, for whatever reason, the child ends at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import IO, Any, NoReturn


class Channel:
    """What the parent hears; several threads may speak."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, **event: Any) -> None:
        """Send one event as a line of JSON."""
        with self._lock:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()


def become_child() -> Channel:
    """Take standard output over for the parent, end with it, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent then kills us
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return Channel(stream)


def end_with_parent() -> None:
    """From now on end at once when the parent closes our standard input, which is read no more."""
    threading.Thread(target=_wait_for_parent, name="end with parent", daemon=True).start()


def leave(code: int) -> NoReturn:
    """End without tearing down torch and OpenVINO, which takes a second; all is written."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait_for_parent() -> None:
    # Not ``sys.stdin``: an interpreter that ends while a thread is reading from that aborts.
    while os.read(0, 4096):
        pass
    os._exit(1)
