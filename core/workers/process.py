"""The parent's side of a worker process that reports in JSON lines.

The child's side is :mod:`core.workers.child`.
"""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

import psutil

from core.settings import CHECKOUT

log = logging.getLogger(__name__)

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

_END = None


class ChildEnded(Exception):
    """The child closed its output without a final event; not shown to users."""


class ChildProcess:
    """A Python module that runs as a child process, with threads that read its output."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        first_line: str | None = None,
        on_line: Callable[[str], None] = lambda text: None,
        on_event: Callable[[dict[str, Any] | None], None] | None = None,
        secret: str | None = None,
    ) -> None:
        """
        Args:
            module: run as ``python -m module``.
            arguments: of its command line, which all users of the machine can see.
            environment: complete environment; the output encoding is added.
            first_line: written to its standard input, which stays open until :meth:`end`.
            on_line: receives each line of its standard error, in a separate thread.
            on_event: receives its events and finally None, in a separate thread; replaces
                :meth:`next_event`.
            secret: hidden in everything the child prints.
        """
        self._secret = secret
        self._on_line = on_line
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        take, at_end = self._events.put, lambda: self._events.put(_END)
        if on_event is not None:
            take, at_end = lambda line: on_event(_event(line)), lambda: on_event(None)
        self._log: deque[str] = deque(maxlen=_LINES_KEPT)
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
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
        self._threads = [
            threading.Thread(target=_read_lines, args=arguments, daemon=True)
            for arguments in (
                (self._child.stdout, take, at_end),
                (self._child.stderr, self._keep, lambda: None),
            )
        ]
        for thread in self._threads:
            thread.start()
        if first_line is not None:
            self.write_line(first_line)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code after :meth:`end`; negative if a signal killed the child."""
        return self._child.returncode

    @property
    def log(self) -> tuple[str, ...]:
        """Last lines of its standard error."""
        return tuple(self._log)

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the child's next event, or None after the timeout.

        Raises:
            ChildEnded: the child closed its output.
        """
        try:
            line = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if line is _END:
            self.wait_for_exit()
            raise ChildEnded
        return _event(line)

    def end(self) -> None:
        """Kill the child and its child processes if they run, and read the rest of its log."""
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
        """Return why the child ended, after :meth:`end` or :meth:`wait_for_exit`."""
        lines = self.log
        if lines:
            log.warning("Output of the child process:\n%s", "\n".join(lines))
        code = self._child.returncode
        if code is None:
            return "it closed its output"
        if code < 0:
            return f"killed by signal {-code}, possibly because memory ran out"
        return lines[-1][:200] if lines else f"exit code {code}"

    def without_secret(self, text: str) -> str:
        """Return the text with the secret hidden."""
        return text.replace(self._secret, _HIDDEN) if self._secret else text

    def write_line(self, line: str) -> None:
        """Write a line to its standard input."""
        with suppress(OSError):  # it has just ended, which the reading threads notice
            self._child.stdin.write(f"{line}\n")
            self._child.stdin.flush()

    def _keep(self, line: str) -> None:
        text = self.without_secret(line.rstrip())[:_LINE_LENGTH]
        if text:
            self._log.append(text)
            self._on_line(text)

    def wait_for_exit(self) -> None:
        """Wait for a child that closed its output, so that its own exit code is known."""
        try:
            self._child.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("The child process closed its output but does not end; it will be killed")


def _read_lines(
    pipe: IO[str] | None, take: Callable[[str], None], at_end: Callable[[], None]
) -> None:
    try:
        for line in pipe or ():
            take(line)
    except (OSError, ValueError):  # the pipe was closed meanwhile
        log.debug("The output of the child process ended early")
    finally:
        at_end()


def _event(line: str) -> dict[str, Any]:
    """Parse an event; empty if the child was killed in the middle of a line."""
    try:
        event = json.loads(line)
    except ValueError:
        log.debug("Incomplete line from the child process: %r", line)
        return {}
    return event if isinstance(event, dict) else {}
