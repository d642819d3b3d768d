"""One benchmark at a time in a home folder: two would measure each other.

The lock is the operating system's and dies with its process. Beside it lies a note of who holds it,
for the sentence that the second is told.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid

from filelock import FileLock, Timeout

from core.errors import DiskFullError, ModelBusyError, PersonMistake
from core.settings import Settings
from core.store.files import has_no_space

log = logging.getLogger(__name__)


class Turn:
    """The right to measure in one home folder; one object takes it once at a time."""

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._lock = FileLock(self._home / "benchmark.lock", thread_local=False)
        self._note = self._home / "benchmark.json"

    def take(self) -> None:
        """Take the turn, or say who has it; does not wait.

        Raises:
            ModelBusyError: a benchmark runs; the text names its process.
            DiskFullError, PersonMistake: the home folder cannot be written to.
        """
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ModelBusyError(
                f"A benchmark runs already ({self._holder()}), and two at once would measure each "
                "other; wait for it, or cancel it there."
            ) from error
        except OSError as error:
            if has_no_space(error):
                raise DiskFullError(
                    f"The disk of {self._home} is full; make room and try again."
                ) from error
            raise PersonMistake(
                f"The home folder {self._home} cannot be written to ({error.strerror or error}); "
                "change its permissions, or set PADDOCK_HOME to a folder of yours."
            ) from error
        self._sign()

    def give_back(self) -> None:
        """Let the next one have it; nothing happens where it was not taken."""
        self._lock.release()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn for the length of the ``with`` block.

        Raises:
            ModelBusyError, DiskFullError, PersonMistake: see :meth:`take`.
        """
        self.take()
        try:
            yield
        finally:
            self.give_back()

    def _sign(self) -> None:
        note = {"pid": getpid(), "host": platform.node()}
        try:
            self._note.write_text(json.dumps(note), encoding="utf-8")
        except OSError as error:  # the lock counts; the note is for a sentence
            log.warning("%s cannot be written: %s", self._note, error)

    def _holder(self) -> str:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            pid, host = int(note["pid"]), str(note["host"])
        except (OSError, ValueError, KeyError, TypeError):
            return "in another process"
        if host != platform.node():
            return f"in process {pid} on {host}"
        return "in this process" if pid == getpid() else f"in process {pid}"
