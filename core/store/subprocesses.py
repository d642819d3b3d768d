"""Fetches and converts in a child process: the app stays responsive and the memory comes back.

The child is :mod:`core.store.worker`; its module text tells how the two talk.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psutil

import core.errors
from core.catalogue import Int4Settings, Int8Settings, Precision
from core.errors import (
    ConversionError,
    CorruptModelError,
    HubError,
    PaddockError,
    PersonMistake,
    StoppedError,
)
from core.settings import Settings
from core.store.genai_check import is_current, known_check
from core.store.manifest import GenAICheck, GenAIOutcome, write_manifest
from core.store.progress import (
    Progress,
    ProgressCallback,
    Stage,
    Transfer,
    ignore_progress,
)
from core.store.resolver import Source, SourceKind
from core.store.store import ModelStore
from core.store.stored import StoredModel
from core.units import bytes_text
from core.workers.process import ChildEnded, ChildProcess

if TYPE_CHECKING:
    from core.store.hub import Download, HubAccess

log = logging.getLogger(__name__)

CHECKING_WITH_GENAI = "Checking once whether OpenVINO GenAI computes this architecture correctly."

MEMORY_EVERY_S = 0.5
"""How often the child's memory is looked at."""

_POLL_S = 0.1
"""How often a waiting parent looks whether it was cancelled."""


class ChildWatch(Protocol):
    """Is told what the child does beside its work; called from threads of this process."""

    def memory(self, resident_bytes: int) -> None:
        """The child's resident set size now, twice a second."""

    def line(self, text: str) -> None:
        """A line that the child or a library in it wrote to standard error."""


class _NoWatch:
    def memory(self, resident_bytes: int) -> None:
        pass

    def line(self, text: str) -> None:
        pass


def convert_in_process(
    model: Source | str,
    precision: Precision,
    *,
    settings: Settings,
    models: Path | None = None,
    int4: Int4Settings | None = None,
    int8: Int8Settings | None = None,
    access: HubAccess | None = None,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
    watch: ChildWatch | None = None,
) -> StoredModel:
    """Do what :meth:`ModelStore.ensure` does, in a child process where there is work to do.

    A model that is stored already is verified and returned without a child. Blocks; call it from
    a worker thread.

    Args:
        model: a source, or what :meth:`ModelStore.resolve` takes.
        precision: of the weights.
        settings: those of the child too.
        models: where it is to lie; by default ``settings.models_dir``.
        int4: overrides the catalogue's INT4 settings.
        int8: overrides the default INT8 settings.
        access: how the hub is asked where the model is to be fetched; the token in it goes to the
            child in its environment and nowhere else.
        progress: told of each step, from the calling thread.
        cancel: when set, the child is killed and what it left removed.
        watch: told of the child's memory and log.

    Raises:
        StoppedError: ``cancel`` was set.
        PersonMistake: it is stored with other settings than ``int4`` or ``int8`` ask for.
        PaddockError: what :meth:`ModelStore.ensure` raises; ConversionError where the child died.
    """
    store = ModelStore(settings, models)
    source = store.resolve(model) if isinstance(model, str) else model
    there = store.get(source, precision)
    if there is not None:
        _check_settings(there, int4, int8)
        stored = store.ensure(source, precision, progress=progress)
        return with_genai_check(stored, settings, progress, cancel)
    settings.check_not_kiosk()
    request = {
        "kind": "convert",
        "precision": precision.value,
        "models": str(models) if models else None,
        "int4": asdict(int4) if int4 else None,
        "int8": asdict(int8) if int8 else None,
    }
    try:
        _run_child(source, request, settings, access, progress, cancel, watch)
    except StoppedError as error:
        raise StoppedError(what_a_stop_keeps(source, settings)) from error
    finally:
        store.sweep(source.key, precision)
    stored = store.get(source, precision)
    if stored is None:
        raise ConversionError(f"{source.title} changed while it was converted; try again.")
    return stored


def with_genai_check(
    stored: StoredModel,
    settings: Settings,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> StoredModel:
    """The stored model with a result of :mod:`core.store.genai_check` that holds today.

    Models are checked when they are converted: only one of an earlier Paddock, or of other
    versions of the libraries, is checked here, in a child process where its architecture is not
    known yet.

    Raises:
        StoppedError: ``cancel`` was set.
    """
    kept = settings.genai_checks_file
    try:
        if is_current(stored.manifest.genai, stored.folder):
            return stored
        check = known_check(stored.folder, kept)
    except CorruptModelError as error:  # loading it will tell the same
        log.warning("%s cannot be checked: %s", stored.key, error)
        return stored
    if check is None:
        if progress is not None:
            progress(Progress(Stage.CHECKING, CHECKING_WITH_GENAI, None))
        request = {"kind": "check", "folder": str(stored.folder), "settings": _plain(settings)}
        child = ChildProcess("core.store.worker", [json.dumps(request)], _environment(None))
        try:
            _follow(child, _NoWatch(), ignore_progress, cancel or threading.Event())
        finally:
            child.end()
        check = known_check(stored.folder, kept)
    if check is None:
        log.warning("%s could not be checked: %s", stored.key, child.how_it_ended())
        check = GenAICheck(key="", outcome=GenAIOutcome.UNCHECKED)
    manifest = stored.manifest.model_copy(update={"genai": check})
    try:
        write_manifest(stored.folder, manifest)
    except OSError as error:
        log.warning("the manifest in %s cannot be renewed: %s", stored.folder, error)
    return replace(stored, manifest=manifest)


def fetch_in_process(
    model: Source | str,
    *,
    settings: Settings,
    access: HubAccess | None = None,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
    watch: ChildWatch | None = None,
) -> Download:
    """Fetch a model of the hub into the home folder, in a child process, and convert nothing.

    What is there already is returned without a child. Blocks, as :func:`convert_in_process` does,
    and takes the same arguments.

    Raises:
        StoppedError: ``cancel`` was set; what came is kept for the next attempt.
        PersonMistake: the model is not one of the hub, so there is nothing to fetch.
        PaddockError: what :func:`core.store.hub.fetch` raises; HubError where the child died.
    """
    from core.store import hub

    source = ModelStore(settings).resolve(model) if isinstance(model, str) else model
    if source.kind is not SourceKind.HUB:
        raise PersonMistake(
            f"{source.title} is on this machine already, there is nothing to fetch; convert it to "
            "the precision you want."
        )
    folder = settings.downloads_dir / source.key
    done = hub.completed(folder)
    if done is None:
        settings.check_not_kiosk()
        try:
            _run_child(source, {"kind": "get"}, settings, access, progress, cancel, watch)
        except StoppedError as error:
            raise StoppedError(what_a_stop_keeps(source, settings)) from error
        done = hub.completed(folder)
    if done is None:
        raise HubError(f"{source.title} was removed while it was fetched; try again.")
    return done


def what_a_stop_keeps(source: Source, settings: Settings) -> str:
    """A sentence for whoever stopped a download or a conversion of ``source``."""
    from core.store import hub

    folder = settings.downloads_dir / source.key
    here = hub.fetched_bytes(folder) if source.kind is SourceKind.HUB else 0
    if not here:
        return f"Stopped; nothing of {source.title} was kept."
    if hub.completed(folder):
        return (
            f"Stopped; what was fetched of {source.title} ({bytes_text(here)}) is kept, nothing "
            "of the conversion."
        )
    return (
        f"Stopped; the {bytes_text(here)} of {source.title} that are here are kept, and the next "
        "attempt goes on from there."
    )


def _check_settings(
    stored: StoredModel, int4: Int4Settings | None, int8: Int8Settings | None
) -> None:
    """Refuse to hand out a model that was compressed otherwise than asked for.

    Raises:
        PersonMistake: with the settings it has.
    """
    now, eight = stored.int4, stored.manifest.int8
    has = ""
    if int4 is not None and now is not None and now != int4:
        has = now.text
    if int8 is not None and eight is not None and eight.symmetric != int8.symmetric:
        has = "symmetric" if eight.symmetric else "asymmetric"
    if has:
        raise PersonMistake(
            f"{stored.title} in {stored.label} is on disk with other settings "
            f"({has}); delete it first to compress it anew."
        )


def _run_child(
    source: Source,
    request: dict[str, Any],
    settings: Settings,
    access: HubAccess | None,
    progress: ProgressCallback | None,
    cancel: threading.Event | None,
    watch: ChildWatch | None,
) -> None:
    name = source.key if source.model else str(source.location)
    whole = request | {"model": name, "settings": _plain(settings)}
    watch = watch or _NoWatch()
    child = ChildProcess(
        "core.store.worker",
        [json.dumps(whole)],
        _environment(access),
        on_line=watch.line,
        secret=access.token if access else None,
    )
    try:
        finished = _follow(child, watch, progress or ignore_progress, cancel or threading.Event())
    finally:
        child.end()
    if not finished:
        if request["kind"] == "get":
            raise HubError(
                f"Fetching {source.title} ended unexpectedly ({child.how_it_ended()}); what "
                "came is kept, so try again and it goes on from there."
            )
        raise ConversionError(
            f"The conversion of {source.title} ended unexpectedly ({child.how_it_ended()}); "
            "nothing was kept, so try again."
        )


def _plain(settings: Settings) -> dict[str, Any]:
    """The settings as JSON, without what a list of processes must not show."""
    return settings.model_dump(mode="json", exclude={"database_url"})


def _environment(access: HubAccess | None) -> dict[str, str]:
    """The child's environment; the token stands here because anyone can read an argument."""
    environment = dict(os.environ)
    if access is None:
        return environment
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        environment.pop(name, None)
    if access.token:
        environment["HF_TOKEN"] = access.token
    if access.endpoint:
        environment["HF_ENDPOINT"] = access.endpoint
    if access.offline:
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _follow(
    child: ChildProcess, watch: ChildWatch, progress: ProgressCallback, cancel: threading.Event
) -> bool:
    """Hand on what the child says.

    Returns:
        True when it said that it is done, False when it fell silent.

    Raises:
        StoppedError: ``cancel`` was set.
        PaddockError: the child's own error.
    """
    sampled = 0.0
    while True:
        if cancel.is_set():
            raise StoppedError("Stopped; nothing that looks finished was kept.")
        now = time.monotonic()
        if now - sampled >= MEMORY_EVERY_S:
            sampled = now
            with suppress(psutil.Error):  # it has just ended
                watch.memory(psutil.Process(child.pid).memory_info().rss)
        try:
            event = child.next_event(_POLL_S) or {}
        except ChildEnded:
            return False
        match event.get("event"):
            case "progress":
                progress(_progress(event))
            case "error":
                raise _error(event["type"], child.without_secret(event["message"]))
            case "done":
                return True


def _progress(event: dict[str, Any]) -> Progress:
    transfer = event.get("transfer")
    return Progress(
        Stage(event["stage"]),
        event["message"],
        event["fraction"],
        Transfer(**transfer) if transfer else None,
    )


def _error(name: str, message: str) -> PaddockError:
    kind = getattr(core.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, PaddockError):
        return kind(message)
    return ConversionError(message)
