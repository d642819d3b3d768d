"""Converts in a child process, so that the app stays responsive and the memory comes back.

The child is :mod:`core.store.worker`; its module text tells how the two talk.
"""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from typing import IO, Any

import core.errors
from core.catalogue import Int4Settings, Precision
from core.errors import ConversionError, PaddockError
from core.settings import CHECKOUT, Settings
from core.store.progress import Progress, ProgressCallback, Stage, ignore_progress
from core.store.sources import Source, resolve
from core.store.store import ModelStore, StoredModel

log = logging.getLogger(__name__)

_POLL_S = 0.1
"""How often a waiting parent looks whether it was cancelled."""

_LAST_BREATH_S = 5.0
"""How long a child may take to end after its last word."""

_END = None


class ConversionCancelled(ConversionError):
    """The person stopped the conversion; nothing of it was kept."""


def convert_in_process(
    model: Source | str,
    precision: Precision,
    *,
    settings: Settings,
    int4: Int4Settings | None = None,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> StoredModel:
    """Do what :meth:`ModelStore.ensure` does, in a child process where there is work to do.

    A model that is stored already is verified and returned without a child. Blocks; call it from
    a worker thread.

    Args:
        model: a source, or what :func:`resolve` takes.
        precision: of the weights.
        settings: the home folder in them is the child's too.
        int4: overrides the catalogue's INT4 settings.
        progress: told of each step, from the calling thread.
        cancel: when set, the child is killed and what it left removed.

    Raises:
        ConversionCancelled: ``cancel`` was set.
        PaddockError: what :meth:`ModelStore.ensure` raises; ConversionError where the child died.
    """
    source = resolve(model) if isinstance(model, str) else model
    store = ModelStore(settings)
    if store.get(source, precision) is not None:
        return store.ensure(source, precision, progress=progress)
    name = source.key if source.model else str(source.location)
    request = {
        "model": name,
        "precision": precision.value,
        "home": str(settings.home),
        "int4": asdict(int4) if int4 else None,
    }
    try:
        _run_child(request, progress or ignore_progress, cancel or threading.Event())
    finally:
        store.sweep(source.key, precision)
    stored = store.get(source, precision)
    if stored is None:
        raise ConversionError(f"{source.title} changed while it was converted; try again.")
    return stored


def _run_child(
    request: dict[str, Any], progress: ProgressCallback, cancel: threading.Event
) -> None:
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as log_file:
        child = subprocess.Popen(
            [sys.executable, "-m", "core.store.worker", json.dumps(request)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            encoding="utf-8",
        )
        try:
            finished = _follow(child, progress, cancel)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        if not finished:
            raise ConversionError(
                f"The conversion of {request['model']} ended unexpectedly "
                f"({_how_it_ended(child.returncode, log_file)}); nothing was kept, so try again."
            )


def _follow(
    child: subprocess.Popen[str], progress: ProgressCallback, cancel: threading.Event
) -> bool:
    """Hand on what the child says; True when it said that it is done, False when it fell silent.

    Raises:
        ConversionCancelled: ``cancel`` was set.
        PaddockError: the child's own error.
    """
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True).start()
    while True:
        if cancel.is_set():
            raise ConversionCancelled("The conversion was stopped; nothing of it was kept.")
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if line is _END:
            _let_it_end(child)
            return False
        event = _event(line)
        match event.get("event"):
            case "progress":
                progress(Progress(Stage(event["stage"]), event["message"], event["fraction"]))
            case "error":
                raise _error(event["type"], event["message"])
            case "done":
                return True


def _event(line: str) -> dict[str, Any]:
    """What the child said; nothing where it was killed in the middle of a line."""
    try:
        return json.loads(line)
    except ValueError:
        log.debug("half a line from the conversion's process: %r", line)
        return {}


def _let_it_end(child: subprocess.Popen[str]) -> None:
    """Wait for a child that closed its output, so that its own exit code is seen."""
    try:
        child.wait(_LAST_BREATH_S)
    except subprocess.TimeoutExpired:
        log.warning("the conversion's process neither speaks nor ends; it will be killed")


def _read_lines(pipe: IO[str] | None, lines: queue.SimpleQueue[str | None]) -> None:
    try:
        for line in pipe or ():
            lines.put(line)
    except (OSError, ValueError):  # the pipe was closed under us after a cancel
        log.debug("the conversion's output ended early")
    finally:
        lines.put(_END)


def _error(name: str, message: str) -> PaddockError:
    kind = getattr(core.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, PaddockError):
        return kind(message)
    return ConversionError(message)


def _how_it_ended(code: int, log_file: IO[str]) -> str:
    log_file.seek(0)
    lines = [line.strip() for line in log_file if line.strip()]
    if lines:
        log.warning("the conversion's process wrote:\n%s", "\n".join(lines[-40:]))
    if code < 0:
        return f"killed by signal {-code}, perhaps for want of memory"
    return f"{lines[-1][:200]}" if lines else f"exit code {code}"
