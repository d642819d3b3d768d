"""Allows one benchmark at a time in a home folder, because two would disturb each other.

The lock is the operating system's and is released when its process ends. A note beside it names the
holder, for the error that a second benchmark gets.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid

from filelock import FileLock, Timeout

from core.errors import DiskFullError, ModelBusyError, UserError
from core.settings import Settings
from core.store.files import has_no_space

log = logging.getLogger(__name__)


class BenchmarkLock:
    """Lock of one home folder for measuring; an object holds it at most once."""

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._lock = FileLock(self._home / "benchmark.lock", thread_local=False)
        self._note = self._home / "benchmark.json"

    def acquire(self) -> None:
        """Acquire the lock without waiting.

        Raises:
            ModelBusyError: another benchmark is running; the text names its process.
            DiskFullError, UserError: the home folder is not writable.
        """
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ModelBusyError(
                f"Another benchmark is already running ({self._holder()}), and two at a time would "
                "disturb each other. Wait for it, or cancel it there."
            ) from error
        except OSError as error:
            if has_no_space(error):
                raise DiskFullError(
                    f"The disk of {self._home} is full. Free some space and try again."
                ) from error
            raise UserError(
                f"The home folder {self._home} is not writable ({error.strerror or error}). Change "
                "its permissions, or set PADDOCK_HOME to another folder."
            ) from error
        self._write_note()

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        self._lock.release()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the duration of the ``with`` block.

        Raises:
            ModelBusyError, DiskFullError, UserError: see :meth:`acquire`.
        """
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _write_note(self) -> None:
        note = {"pid": getpid(), "host": platform.node()}
        try:
            self._note.write_text(json.dumps(note), encoding="utf-8")
        except OSError as error:  # only the error text needs the note
            log.warning("Could not write %s: %s", self._note, error)

    def _holder(self) -> str:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            pid, host = int(note["pid"]), str(note["host"])
        except (OSError, ValueError, KeyError, TypeError):
            return "in another process"
        if host != platform.node():
            return f"in process {pid} on {host}"
        return "in this process" if pid == getpid() else f"in process {pid}"
