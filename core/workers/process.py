"""The parent's side of a worker process, which exchanges JSON lines with it.

The child's side is :mod:`core.workers.child`.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, Self

import psutil

import core.errors
from core.errors import GenerationError, PaddockError, StoppedError
from core.hardware.devices import process_memory
from core.settings import CHECKOUT
from core.workers.child import shows_out_of_memory, to_line

log = logging.getLogger(__name__)

Event = dict[str, Any]
"""One line of the child; its name is in ``event``."""

_POLL_S = 0.1
"""Interval of checks for cancellation."""

_EXIT_TIMEOUT_S = 5.0
"""Time for a child to end after it has closed its output."""

_OWN_PROCESS_GROUP: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"process_group": 0}
)
"""Ctrl-C in a terminal reaches all processes of a group. A child in its own group is stopped by its
parent instead, and never while it is starting."""

_LINES_KEPT = 40
"""Number of last lines of the child's standard error that are kept for error messages."""

_LINE_LENGTH = 500
"""Longest line in characters; libraries print whole tensors."""

_HIDDEN = "•••"
"""Replaces a secret if a library prints it."""

_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PADDOCK_DATABASE_URL")
"""Environment variables that no worker needs, but for a download's token."""


class WorkerDied(Exception):
    """The worker ended before its ``done`` or ``error``; each user tells it in its own sentence."""

    def __init__(
        self, reason: str, *, signal: int | None = None, out_of_memory: bool = False
    ) -> None:
        super().__init__(reason)
        self.signal = signal
        """Number of the signal that killed it."""
        self.out_of_memory = out_of_memory
        """Whether it exceeded its limit, or its log shows a failed allocation."""


class WorkerSilent(WorkerDied):
    """The worker sent nothing for too long."""


class WorkerProcess:
    """A Python module that runs as a child process; a context manager that kills it at the end."""

    def __init__(
        self,
        module: str,
        request: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        secret: str | None = None,
        on_line: Callable[[str], None] = lambda text: None,
        on_event: Callable[[Event | None], None] | None = None,
        memory_interval_s: float | None = None,
    ) -> None:
        """
        Args:
            request: the first line of its standard input, which stays open. Not an argument: all
                users of the machine can see those, and their length is limited.
            environment: complete environment; by default this process's, without secrets and
                without access to the hub.
            secret: hidden in its log and errors.
            on_line: receives each line of its standard error, in a separate thread.
            on_event: receives its events and finally None, in a separate thread; replaces
                :meth:`follow`.
            memory_interval_s: interval at which its memory, without that of its children, becomes
                an event: ``memory``, a :class:`core.hardware.devices.ProcessMemory`.
        """
        self._secret = secret
        self._on_line = on_line
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._on_event = on_event or self._events.put
        self._log: deque[str] = deque(maxlen=_LINES_KEPT)
        self._ended = threading.Event()
        self._send_lock = threading.Lock()
        if environment is None:
            environment = {k: text for k, text in os.environ.items() if k not in _SECRETS}
            environment |= {"HF_HUB_OFFLINE": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=CHECKOUT,
            env={**environment, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            **_OWN_PROCESS_GROUP,
        )
        targets = [self._read_events, self._read_log]
        if memory_interval_s is not None:
            targets.append(lambda: self._sample_memory(memory_interval_s))
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()
        self.send(**request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def send(self, **request: Any) -> None:
        """Write a request to its standard input."""
        with self._send_lock, suppress(OSError):  # it has just ended, which a thread notices
            assert self._child.stdin is not None, "it is a pipe"
            self._child.stdin.write(f"{to_line(request)}\n")
            self._child.stdin.flush()

    def follow(
        self,
        on_event: Callable[[Event], None] = lambda event: None,
        *,
        cancel: threading.Event,
        stopped: str = "Stopped.",
        silence_s: float | None = None,
        memory_limit_bytes: int | None = None,
    ) -> Event:
        """Wait for ``done`` and return it.

        Args:
            on_event: receives all events before it, in this thread.
            stopped: text of the StoppedError.
            silence_s: timeout for a worker that sends nothing.
            memory_limit_bytes: of its private memory; requires ``memory_interval_s``.

        Raises:
            StoppedError: ``cancel`` was set.
            PaddockError: the worker's own error.
            WorkerDied: it ended, sent nothing for too long or exceeded its memory limit.
        """
        heard_at = time.monotonic()
        while not cancel.is_set():
            try:
                event = self._events.get(timeout=_POLL_S)
            except queue.Empty:
                event = {}
            if event is None:
                self._events.put(None)  # for the next call
                self.end()  # so that its whole log is read
                code = self._child.returncode
                raise WorkerDied(
                    self.exit_reason(),
                    signal=-code if code < 0 else None,
                    out_of_memory=any(map(shows_out_of_memory, self._log)),
                )
            match event.get("event"):
                case "done":
                    return event
                case "error":
                    raise error_from_json(event["type"], self._without_secret(event["message"]))
                case "memory":
                    private = event["memory"].private_bytes
                    if memory_limit_bytes is not None and private > memory_limit_bytes:
                        raise WorkerDied("it exceeded its memory limit", out_of_memory=True)
                    on_event(event)
                case str():
                    on_event(event)
                    heard_at = time.monotonic()
            if silence_s is not None and time.monotonic() - heard_at > silence_s:
                raise WorkerSilent(f"it sent nothing for {silence_s:.0f} s")
        raise StoppedError(stopped)

    def end(self) -> None:
        """Kill the child and its child processes if they run, and read the rest of its log."""
        self._ended.set()
        with suppress(psutil.Error):
            for other in psutil.Process(self._child.pid).children(recursive=True):
                with suppress(psutil.Error):
                    other.kill()
        self._child.kill()
        self._child.wait()
        for thread in self._threads:
            thread.join(_EXIT_TIMEOUT_S)
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                with suppress(OSError):  # input that the child never read cannot be flushed
                    pipe.close()

    def exit_reason(self) -> str:
        """Return why the child ended, after :meth:`end` or its last event."""
        lines = tuple(self._log)
        if lines:
            log.warning("Output of the child process:\n%s", "\n".join(lines))
        code = self._child.returncode
        if code is None:
            return "it closed its output"
        if code < 0:
            return f"killed by signal {-code}, possibly because memory ran out"
        return lines[-1][:200] if lines else f"exit code {code}"

    def _without_secret(self, text: str) -> str:
        return text.replace(self._secret, _HIDDEN) if self._secret else text

    # The following methods are threads.

    def _read_events(self) -> None:
        try:
            for line in _lines(self._child.stdout):
                self._on_event(_event(line))
        finally:
            try:  # it closed its output: wait until its exit code is known
                self._child.wait(_EXIT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                log.warning("The child process closed its output but does not end")
            self._on_event(None)

    def _read_log(self) -> None:
        for line in _lines(self._child.stderr):
            text = self._without_secret(line.rstrip())[:_LINE_LENGTH]
            if text:
                self._log.append(text)
                self._on_line(text)

    def _sample_memory(self, interval_s: float) -> None:
        while not self._ended.is_set():
            with suppress(psutil.Error):  # it has just ended
                self._on_event({"event": "memory", "memory": process_memory(self._child.pid)})
            self._ended.wait(interval_s)


def error_from_json(name: str, message: str) -> PaddockError:
    """Return the child process's error as an exception of its own class.

    An unknown class becomes :class:`core.errors.GenerationError`.
    """
    kind = getattr(core.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, PaddockError):
        return kind(message)
    return GenerationError(message)


def _lines(pipe: IO[str] | None) -> Iterator[str]:
    with suppress(OSError, ValueError):  # the pipe was closed meanwhile
        yield from pipe or ()


def _event(line: str) -> Event:
    """Parse an event; empty if the child was killed in the middle of a line."""
    try:
        event = json.loads(line)
    except ValueError:
        log.debug("Incomplete line from the child process: %r", line)
        return {}
    return event if isinstance(event, dict) else {}
