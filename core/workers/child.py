"""The child's side of a worker process, which exchanges JSON lines with its parent.

The parent's side is :mod:`core.workers.process`. Requests are lines of standard input, events are
lines of standard output; everything that libraries print goes to standard error. When standard
input closes, for whatever reason, the child ends at once.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import IO, Any, NoReturn, TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from core.errors import PaddockError

log = logging.getLogger(__name__)

T = TypeVar("T")

to_line = json.JSONEncoder(default=to_jsonable_python).encode
"""Returns a request or event as JSON; dataclasses in it become objects, see :func:`from_json`."""

_OUT_OF_MEMORY_SIGNS = (
    "bad_alloc",
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "memoryerror",
    "can't start new thread",
)
"""Lower-case parts of library messages after a failed allocation; the last is Python's, when there
is no memory for a thread's stack."""


class Channel:
    """Events to the parent and requests from it; safe to use from several threads."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def say(self, **event: Any) -> None:
        """Send one event as a line of JSON."""
        with self._lock:
            self._stream.write(f"{to_line(event)}\n")
            self._stream.flush()

    def fail(self, error: BaseException) -> None:
        """Send an error, which the parent raises again."""
        self.say(event="error", type=type(error).__name__, message=str(error))

    def receive(self) -> dict[str, Any]:
        """Wait for the parent's next request."""
        request: dict[str, Any] = json.loads(self._requests.get())
        return request

    def read_requests(self) -> NoReturn:
        """Read the parent's lines; end this process when the parent ends, whatever it does."""
        # Not ``sys.stdin``: the interpreter aborts if it exits while a thread reads from that.
        with open(0, "rb", closefd=False) as lines:
            for line in lines:
                self._requests.put(line)
        os._exit(1)


def open_channel() -> Channel:
    """Reserve standard input and output for JSON lines, redirect prints to standard error, ignore
    Ctrl-C, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it and kills this process
    channel = Channel(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    threading.Thread(target=channel.read_requests, name="read requests", daemon=True).start()
    return channel


def run_request(
    work: Callable[[dict[str, Any], Channel], dict[str, Any] | None],
    describe: Callable[[Exception, dict[str, Any]], PaddockError],
) -> NoReturn:
    """Run the parent's only request, send ``done`` or ``error``, and exit.

    Args:
        work: receives the request, and the channel for its events; returns what ``done`` has.
        describe: returns the error to send; receives any exception of ``work``, because libraries
            raise anything, and the request.
    """
    channel = open_channel()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    request = channel.receive()
    code = 0
    try:
        result = work(request, channel) or {}
    except Exception as error:
        if not isinstance(error, (PaddockError, MemoryError)):
            log.exception("The worker failed unexpectedly")
        channel.fail(describe(error, request))
        code = 1
    else:
        channel.say(event="done", **result)
    sys.stderr.flush()
    os._exit(code)  # without the cleanup of torch and OpenVINO, which takes a second


def from_json(kind: type[T], plain: Any) -> T:
    """Return the dataclass that the other process has put into a request or event."""
    return _adapter(kind).validate_python(plain)


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def shows_out_of_memory(text: str) -> bool:
    """Return whether a library's message is about a failed allocation."""
    return any(sign in text.lower() for sign in _OUT_OF_MEMORY_SIGNS)


def one_line(error: BaseException) -> str:
    """Return class and text of a library's exception for a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
