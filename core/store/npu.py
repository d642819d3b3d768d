"""Weights that an NPU runs: it requires a recipe of INT4 of its own.

An INT4 model that has the settings of this recipe, because the user has chosen them or the model
was published so, is used in its place.
"""

from __future__ import annotations

import threading

from core.catalogue import INT4_RECIPES, Precision
from core.errors import NotAModelError
from core.settings import Settings
from core.store.hub import HubAccess
from core.store.progress import ProgressCallback, ignore_progress
from core.store.resolver import Source
from core.store.store import ModelStore
from core.store.stored import StoredModel
from core.store.subprocesses import convert_in_process


def find_weights(store: ModelStore, source: Source, precision: Precision) -> StoredModel | None:
    """Return the stored model, or None if it must be downloaded or converted first.

    Args:
        precision: see :meth:`core.catalogue.Precision.on`.

    Raises:
        CorruptModelError: the stored model is damaged.
    """
    if precision is Precision.INT4_NPU:
        for recipe in INT4_RECIPES:
            stored = store.get(source, recipe)
            if stored is not None and stored.serves(precision):
                return stored
    return store.get(source, precision)


def ensure_weights(
    source: Source,
    precision: Precision,
    *,
    settings: Settings,
    access: HubAccess | None = None,
    progress: ProgressCallback = ignore_progress,
    cancel: threading.Event | None = None,
) -> StoredModel:
    """Return the stored model, after converting it in a child process if needed.

    Raises:
        NotAModelError: the source is an INT4 model that does not run on an NPU.
        PaddockError: see :func:`core.store.subprocesses.convert_in_process`.
    """
    store, wanted = ModelStore(settings), precision
    if precision is Precision.INT4_NPU:
        found = find_weights(store, source, precision)
        if found is not None:
            return store.verify(found, full=False)
        stored = store.get(source, Precision.INT4)
        if stored is not None and stored.kept_unchanged:
            return _checked(stored, precision)
        own = store.default_precision(source.name, ask_hub=True, access=access)
        if own is Precision.INT4:  # it can only be kept as it is
            wanted = own
    stored = convert_in_process(
        source, wanted, settings=settings, access=access, progress=progress, cancel=cancel
    )
    return stored if stored.precision is precision else _checked(stored, precision)


def _checked(stored: StoredModel, precision: Precision) -> StoredModel:
    if not stored.serves(precision):
        how = stored.int4.text if stored.int4 is not None else "settings unknown"
        raise NotAModelError(
            f"The INT4 weights of {stored.title} do not run on an NPU ({how}). Use its original "
            "checkpoint, or a version for NPUs."
        )
    return stored
