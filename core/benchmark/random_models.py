"""Models with random weights on disk: made where they are wanted, found again, removed.

They lie apart from the person's models, below ``<home>/random-weights``::

    checkpoints/<key>/          PyTorch checkpoint, made by core.benchmark.random_checkpoint
    checkpoints/.work/…         one under way
    models/                     converted by the store, as in any home folder
    npu-weights/models/         in INT4 as an NPU takes it; see core.store.for_device
    kept.json                   keys that a person wants to keep; a later sweep leaves them alone
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from core.benchmark.lock import Turn
from core.benchmark.shapes import RandomModel
from core.errors import ConversionError, DiskFullError, StoppedError
from core.settings import CHECKOUT, Settings
from core.store import ModelStore
from core.store.checkpoint import TORCH_DTYPE_BYTES
from core.store.files import folder_bytes, free_bytes, has_no_space, remove_folder
from core.store.for_device import npu_store
from core.units import bytes_text

log = logging.getLogger(__name__)

BYTES_PER_PARAMETER = TORCH_DTYPE_BYTES["bfloat16"]

_SPARE_BYTES = 64 * 2**20
"""Disk that must stay free."""

_POLL_S = 0.2
"""How often it is looked whether the sweep was cancelled."""

_KEPT = "kept.json"

_TOLD_AT_THE_END = 2000
"""Characters of a failed child's log that are looked at."""


def random_settings(settings: Settings) -> Settings:
    """The settings of the home folder in which random weights lie."""
    return settings.model_copy(update={"home": settings.home / "random-weights"})


def checkpoint_folder(settings: Settings, key: str) -> Path:
    """Where the checkpoint of that key lies, once it is made."""
    return random_settings(settings).home / "checkpoints" / key


def checkpoint_bytes(model: RandomModel) -> int:
    """Size of its weights on disk."""
    return model.parameters * BYTES_PER_PARAMETER


def random_weights_bytes(settings: Settings) -> int:
    """What all random weights take on disk, converted ones and checkpoints; 0 where none are."""
    return folder_bytes(random_settings(settings).home)


def delete_random_weights(settings: Settings) -> int:
    """Remove all random weights, and return the bytes freed.

    Raises:
        ModelBusyError: a benchmark runs, or a program has a file open.
    """
    settings.check_not_kiosk()
    with Turn(settings).taken():
        return remove_random_weights(settings)


def remove_random_weights(settings: Settings) -> int:
    """The same for whoever has the benchmark's turn already.

    Raises:
        ModelBusyError: a file cannot be removed.
    """
    return remove_folder(random_settings(settings).home, "random weights")


def keep_random_weights(settings: Settings, keys: Iterable[str]) -> None:
    """Let the ends of later sweeps leave these alone; :func:`delete_random_weights` does not.

    Raises:
        OSError: it cannot be written down.
    """
    home = random_settings(settings).home
    home.mkdir(parents=True, exist_ok=True)
    names = sorted(_kept(settings).union(keys))
    beside = home / f"{_KEPT}.new"
    beside.write_text(json.dumps(names), encoding="utf-8")
    beside.replace(home / _KEPT)


def remove_unkept(settings: Settings) -> int:
    """Remove all random weights that nobody wants to keep, and return the bytes freed.

    Only for whoever has the benchmark's turn.

    Raises:
        ModelBusyError: a file cannot be removed.
    """
    kept = _kept(settings)
    if not kept:
        return remove_random_weights(settings)
    freed = 0
    apart = random_settings(settings)
    stores = (ModelStore(apart), npu_store(apart))
    stored = [(store, each) for store in stores for each in store.list()]
    for folder in checkpoint_folder(settings, "any").parent.iterdir():
        if folder.name in kept or not folder.is_dir():
            continue
        freed += sum(
            store.delete(each)
            for store, each in stored
            if Path(each.manifest.source.location) == folder
        )
        freed += folder_bytes(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return freed


def _kept(settings: Settings) -> frozenset[str]:
    """Keys that are to be kept; none where that was never written down, or cannot be read."""
    try:
        text = (random_settings(settings).home / _KEPT).read_text(encoding="utf-8")
        return frozenset(map(str, json.loads(text)))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, TypeError) as error:
        log.warning("which random weights are to be kept cannot be read: %s", error)
        return frozenset()


def ensure_checkpoint(
    model: RandomModel,
    settings: Settings,
    *,
    on_progress: Callable[[str, float | None], None],
    cancel: threading.Event,
) -> Path:
    """Have the checkpoint on disk; only for whoever has the benchmark's turn.

    Args:
        model: what to make.
        settings: tell the home folder.
        on_progress: told the step and the share of it that is done.
        cancel: when set, the work ends within a second and leaves nothing.

    Raises:
        StoppedError: ``cancel`` was set.
        DiskFullError: there is too little room.
        ConversionError: it could not be written.
    """
    folder = checkpoint_folder(settings, model.key)
    if folder.is_dir():
        return folder
    aside = folder.parent / ".work"
    shutil.rmtree(aside, ignore_errors=True)  # what a killed process left
    size = checkpoint_bytes(model)
    free = free_bytes(folder)
    if size + _SPARE_BYTES > free:
        raise DiskFullError(
            f"The random weights of {model.key} need {bytes_text(size)} on disk and "
            f"{bytes_text(free)} are free; make room, or set PADDOCK_HOME to a larger disk."
        )
    work = aside / uuid.uuid4().hex[:8]
    try:
        work.mkdir(parents=True)
        _write(model, work, size, on_progress, cancel)
        work.rename(folder)
    except OSError as error:
        raise _failure(model, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _write(
    model: RandomModel,
    work: Path,
    size: int,
    on_progress: Callable[[str, float | None], None],
    cancel: threading.Event,
) -> None:
    """Let a child process write the checkpoint into ``work``, and watch its size grow."""
    message = f"Writing random weights of {model.key} ({bytes_text(size)})."
    on_progress(message, 0.0)
    with tempfile.TemporaryFile() as told:
        child = subprocess.Popen(
            [sys.executable, "-m", "core.benchmark.random_checkpoint", str(work), model.key],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=told,
        )
        try:
            while not _ended(child):
                if cancel.is_set():
                    raise StoppedError("Stopped; the random weights under way were not kept.")
                on_progress(message, min(1.0, folder_bytes(work) / size))
        finally:
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        if child.returncode != 0:
            told.seek(0)
            text = told.read().decode("utf-8", errors="replace").strip()
            raise _failure(model, OSError(_how_it_ended(child.returncode, text)))


def _ended(child: subprocess.Popen[bytes]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        child.wait(_POLL_S)
        return True
    return False


def _how_it_ended(code: int, text: str) -> str:
    if text:
        log.warning("the process that writes random weights wrote:\n%s", text[-_TOLD_AT_THE_END:])
    if code < 0:
        return f"killed by signal {-code}, perhaps for want of memory"
    return text.splitlines()[-1][:200] if text else f"exit code {code}"


def _failure(model: RandomModel, error: OSError) -> DiskFullError | ConversionError:
    if has_no_space(error):
        return DiskFullError(
            f"The disk became full while the random weights of {model.key} were written; nothing "
            "was kept, so make room and try again."
        )
    return ConversionError(
        f"The random weights of {model.key} could not be written ({error}); check the home folder "
        "and try again."
    )
