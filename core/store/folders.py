"""Paths and locks below the models folder.

Locks are file locks of the operating system and are released when their process ends. The holder of
the lock of a model and precision may therefore remove every work folder of that name.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from core.catalogue import Precision
from core.errors import ConversionError, ModelBusyError
from core.store.progress import Progress, ProgressCallback, Stage

log = logging.getLogger(__name__)


class Folders:
    """The folders and locks of one store."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.work = models / ".work"

    def path(self, key: str, precision: Precision) -> Path:
        """Return the folder of the finished model."""
        return self.models / key / precision.value

    def new_work(self, key: str, precision: Precision) -> Path:
        """Return a unique path for a conversion of this model."""
        return self.work / f"{key}.{precision}.{uuid.uuid4().hex[:8]}"

    @contextmanager
    def lock(
        self, key: str, precision: Precision | None, report: ProgressCallback
    ) -> Iterator[None]:
        """Hold the lock of a model in one precision, or of its download (None).

        Raises:
            ConversionError: the home folder is not writable.
        """
        lock = self._lock(key, precision)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            message = f"Waiting for another process that is using {key}."
            report(Progress(Stage.WAITING, message, None))
            lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def try_lock(self, key: str, *precisions: Precision | None) -> Iterator[bool]:
        """Hold these locks if all are free; the value is whether they were.

        Raises:
            ConversionError: the home folder is not writable.
        """
        with ExitStack() as held:
            try:
                for precision in precisions:
                    held.enter_context(self._lock(key, precision).acquire(timeout=0))
            except Timeout:
                held.close()
                yield False
                return
            except OSError as error:
                raise self._unwritable(error) from error
            yield True

    def remove_leftovers(self, key: str, precision: Precision) -> None:
        """Remove the work folders of this name; the caller must hold the lock."""
        for path in self._work_folders():
            if path.name.startswith(f"{key}.{precision}."):
                log.info("Removing files of an interrupted conversion: %s", path.name)
                shutil.rmtree(path, ignore_errors=True)

    def leftovers(self) -> set[tuple[str, Precision]]:
        """Return model and precision of all work folders, of running and of killed conversions."""
        found = set()
        for path in self._work_folders():
            key, _, rest = path.name.rpartition(".")[0].rpartition(".")
            if key and rest in set(Precision):
                found.add((key, Precision(rest)))
        return found

    def discard(self, folder: Path, key: str, precision: Precision) -> None:
        """Remove a model: rename its folder first, so that no incomplete model is ever visible.

        Raises:
            ModelBusyError: a program has its files open (Windows), or permission is denied.
        """
        aside = self.new_work(key, precision)
        try:
            folder.rename(aside)
        except FileNotFoundError:
            return
        except PermissionError as error:
            raise ModelBusyError(
                f"The files in {folder} are in use by a program, or cannot be removed. Unload the "
                "model, or check the folder's permissions, and try again."
            ) from error
        shutil.rmtree(aside, ignore_errors=True)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()

    def _lock(self, key: str, precision: Precision | None) -> FileLock:
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return FileLock(self.work / f"{key}.{precision or 'source'}.lock")

    def _work_folders(self) -> list[Path]:
        return [path for path in self.work.glob("*") if path.is_dir()]

    def _unwritable(self, error: OSError) -> ConversionError:
        return ConversionError(
            f"The folder {self.models} is not writable ({error.strerror or error}). Change its "
            "permissions, or set PADDOCK_HOME to a folder you can write to."
        )
