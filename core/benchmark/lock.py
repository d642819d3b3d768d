"""Allows one benchmark at a time in a home folder, because two would disturb each other.

The lock is the operating system's and is released when its process ends.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from filelock import FileLock, Timeout

from core.errors import DiskFullError, ModelBusyError, UserError
from core.settings import Settings
from core.store.files import has_no_space


class BenchmarkLock:
    """Lock of one home folder for measuring; an object holds it at most once."""

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._lock = FileLock(self._home / "benchmark.lock", thread_local=False)

    def acquire(self) -> AbstractContextManager[object]:
        """Acquire the lock without waiting.

        Returns:
            A context manager that releases it; see also :meth:`release`.

        Raises:
            ModelBusyError: another benchmark is running.
            DiskFullError, UserError: the home folder is not writable.
        """
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            return self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ModelBusyError(
                "Another benchmark is already running in this home folder, and two at a time would "
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

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        self._lock.release()
