"""Where things lie below the models folder, and who may touch them.

Locks are the operating system's and die with their process; whoever holds the lock of a model and
precision may therefore remove every work folder of that name.
"""

from __future__ import annotations

import logging
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from core.catalogue import Precision
from core.errors import ConversionError, ModelBusyError, StoppedError
from core.store.progress import Progress, ProgressCallback, Stage

log = logging.getLogger(__name__)

_LOCK_POLL_S = 0.25


class Folders:
    """The folders and locks of one store."""

    def __init__(self, models: Path, locks: Path | None = None) -> None:
        """
        Args:
            models: where finished models lie, and work under way.
            locks: the folder of the locks, where another store has them; by default that of the
                work under way.
        """
        self.models = models
        self.work = models / ".work"
        self._locks = locks or self.work

    def of(self, key: str, precision: Precision) -> Path:
        """Where the finished model lies."""
        return self.models / key / precision.value

    def new_work(self, key: str, precision: Precision) -> Path:
        """A path for work on this model that no other work has."""
        return self.work / f"{key}.{precision}.{uuid.uuid4().hex[:8]}"

    @contextmanager
    def lock(
        self,
        key: str,
        precision: Precision | None,
        tell: ProgressCallback,
        cancel: threading.Event | None = None,
    ) -> Iterator[None]:
        """Hold the lock of a model in one precision, or of its download (None).

        Raises:
            StoppedError: ``cancel`` was set while another process held it.
            ConversionError: the home folder cannot be written to.
        """
        lock = self._lock(key, precision)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            message = f"Waiting for another process that works on {key}."
            tell(Progress(Stage.WAITING, message, None))
            _wait(lock, cancel)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def alone_with(self, key: str, what: str) -> Iterator[None]:
        """Hold every lock of a model, its download's included.

        Args:
            what: subject of the sentence of the error, "The download of org/name".

        Raises:
            ModelBusyError: it is being fetched or converted.
        """
        with ExitStack() as held:
            try:
                for precision in (None, *Precision):
                    held.enter_context(self._lock(key, precision).acquire(timeout=0))
            except Timeout as error:
                raise ModelBusyError(
                    f"{what} is in use by a download or a conversion; stop that first, or wait "
                    "for it."
                ) from error
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    @contextmanager
    def if_idle(self, key: str, precision: Precision) -> Iterator[bool]:
        """Hold the lock if it is free; gives whether it was."""
        try:
            lock = self._lock(key, precision).acquire(timeout=0)
        except Timeout:
            yield False
            return
        with lock:
            yield True

    def remove_leftovers(self, key: str, precision: Precision) -> None:
        """Remove work folders of this name; only for the holder of the lock."""
        for path in self._work_folders():
            if path.name.startswith(f"{key}.{precision}."):
                log.info("removing what an interrupted conversion left: %s", path.name)
                shutil.rmtree(path, ignore_errors=True)

    def leftovers(self) -> set[tuple[str, Precision]]:
        """Model and precision of every work folder, of conversions under way or killed."""
        found = set()
        for path in self._work_folders():
            key, _, rest = path.name.rpartition(".")[0].rpartition(".")
            if key and rest in set(Precision):
                found.add((key, Precision(rest)))
        return found

    def discard(self, folder: Path, key: str, precision: Precision) -> None:
        """Take a model out of sight in one step, then remove it.

        Raises:
            ModelBusyError: a program has its files open (Windows), or they may not be removed.
        """
        aside = self.new_work(key, precision)
        try:
            folder.rename(aside)
        except FileNotFoundError:
            return
        except PermissionError as error:
            raise ModelBusyError(
                f"The files in {folder} are in use by a program, or may not be removed; unload "
                "the model, or check the folder's permissions, and try again."
            ) from error
        shutil.rmtree(aside, ignore_errors=True)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()

    def _lock(self, key: str, precision: Precision | None) -> FileLock:
        try:
            for folder in (self.work, self._locks):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return FileLock(self._locks / f"{key}.{precision or 'source'}.lock")

    def _work_folders(self) -> list[Path]:
        return [path for path in self.work.glob("*") if path.is_dir()]

    def _unwritable(self, error: OSError) -> ConversionError:
        return ConversionError(
            f"The folder {self.models} cannot be written to ({error.strerror or error}); change "
            "its permissions, or set PADDOCK_HOME to a folder of yours."
        )


def _wait(lock: FileLock, cancel: threading.Event | None) -> None:
    while not (cancel and cancel.is_set()):
        try:
            lock.acquire(timeout=_LOCK_POLL_S, poll_interval=_LOCK_POLL_S)
        except Timeout:
            continue
        return
    raise StoppedError("Waiting for the other process was stopped; nothing was changed.")
