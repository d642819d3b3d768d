"""A child process that works for this one and tells of it in JSON lines: the parent's side.

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

_LAST_BREATH_S = 5.0
"""How long a child may take to end after its last word."""

_OUT_OF_REACH: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"process_group": 0}
)
"""Ctrl-C in a terminal reaches all processes of a group: a child in one of its own is stopped by
its parent, and not in the middle of starting."""

_LINES_KEPT = 40
"""Lines of the child's standard error that are kept to explain its end."""

_LINE_LENGTH = 500
"""Characters of such a line; libraries print whole tensors."""

_HIDDEN = "•••"
"""Stands for a secret, should a library print it."""

_END = None


class ChildEnded(Exception):
    """The child closed its output without a last word; nobody sees this."""


class ChildProcess:
    """A Python module that runs as a child of this process and is heard out by threads of ours."""

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
            module: runs as ``python -m module``.
            arguments: of its command line, for all to see.
            environment: all of it; the encoding of its output is added.
            first_line: written to its standard input, which stays open until :meth:`end`.
            on_line: receives each line of its standard error, in a thread of its own.
            on_event: receives what it says and, at its end, None, in a thread of its own; instead
                of :meth:`next_event`.
            secret: hidden wherever the child prints it.
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
            **_OUT_OF_REACH,
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
            self.tell(first_line)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """After :meth:`end`; negative is the signal that killed it."""
        return self._child.returncode

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines of its standard error."""
        return tuple(self._log)

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """What the child says next; None where it says nothing for that long.

        Raises:
            ChildEnded: it closed its output.
        """
        try:
            line = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if line is _END:
            self.let_it_end()
            raise ChildEnded
        return _event(line)

    def end(self) -> None:
        """Kill the child and whatever it started, unless they have ended, and hear its log out."""
        with suppress(psutil.Error):
            for other in psutil.Process(self._child.pid).children(recursive=True):
                with suppress(psutil.Error):
                    other.kill()
        self._child.kill()
        self._child.wait()
        for thread in self._threads:
            thread.join(_LAST_BREATH_S)
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                with suppress(OSError):  # what it never read cannot be flushed any more
                    pipe.close()

    def how_it_ended(self) -> str:
        """In a few words, after :meth:`end` or :meth:`let_it_end`."""
        lines = self.log
        if lines:
            log.warning("the child process wrote:\n%s", "\n".join(lines))
        code = self._child.returncode
        if code is None:
            return "it closed its output"
        if code < 0:
            return f"killed by signal {-code}, perhaps for want of memory"
        return lines[-1][:200] if lines else f"exit code {code}"

    def without_secret(self, text: str) -> str:
        """The text with the secret hidden."""
        return text.replace(self._secret, _HIDDEN) if self._secret else text

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        with suppress(OSError):  # it has just died, which its silence will tell
            self._child.stdin.write(f"{line}\n")
            self._child.stdin.flush()

    def _keep(self, line: str) -> None:
        text = self.without_secret(line.rstrip())[:_LINE_LENGTH]
        if text:
            self._log.append(text)
            self._on_line(text)

    def let_it_end(self) -> None:
        """Wait for a child that closed its output, so that its own exit code is seen."""
        try:
            self._child.wait(_LAST_BREATH_S)
        except subprocess.TimeoutExpired:
            log.warning("the child process neither speaks nor ends; it will be killed")


def _read_lines(
    pipe: IO[str] | None, take: Callable[[str], None], at_end: Callable[[], None]
) -> None:
    try:
        for line in pipe or ():
            take(line)
    except (OSError, ValueError):  # the pipe was closed under us
        log.debug("the output of the child process ended early")
    finally:
        at_end()


def _event(line: str) -> dict[str, Any]:
    """What the child said; nothing where it was killed in the middle of a line."""
    try:
        event = json.loads(line)
    except ValueError:
        log.debug("half a line from the child process: %r", line)
        return {}
    return event if isinstance(event, dict) else {}
