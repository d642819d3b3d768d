"""Checks before loading whether the models of a comparison fit into memory together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from core.errors import PaddockError, UnknownDeviceError
from core.runtimes.pool import ModelPool, canonical, memory_for, memory_needed
from core.runtimes.spec import ModelSpec
from core.store import ModelStore
from core.store.estimate import result_bytes
from core.store.weights_source import find_origin
from core.units import bytes_text


def fit_together(pool: ModelPool, store: ModelStore, sides: Sequence[ModelSpec]) -> str | None:
    """Return an error message if the models do not fit into memory together, else None.

    Models that are already loaded need no more memory, a model on two sides counts once, and other
    idle models can be unloaded. The size of a model that is not converted yet is estimated; if it
    is unknown before the download it counts as 0, and the pool checks again when it loads the
    model.
    """
    wanted: dict[ModelSpec, None] = {}  # an ordered set
    for spec in sides:
        if spec.remote:  # needs no memory on this machine
            continue
        with suppress(UnknownDeviceError):  # reported by its answer
            wanted[canonical(spec)] = None
    limit = pool.settings.max_loaded_models
    if len(wanted) > limit:
        models = "model is" if limit == 1 else "models are"
        return (
            f"{len(wanted)} different models were chosen, but at most {limit} {models} kept in "
            "memory at the same time. Choose fewer, or increase PADDOCK_MAX_LOADED_MODELS."
        )
    needs = {spec: _memory(pool, store, spec) for spec in wanted if not pool.is_loaded(spec)}
    needed, free = sum(needs.values()), pool.loadable_bytes(wanted)
    if needed <= free:
        return None
    largest = max(needs, key=needs.__getitem__)
    return (
        f"Together these models need about {bytes_text(needed)} more memory, but only "
        f"{bytes_text(free)} are available. Choose a lower precision or a smaller model than "
        f"{store.title(largest.model)} · {largest.variant} ({bytes_text(needs[largest])}), or "
        "close other programs."
    )


def _memory(pool: ModelPool, store: ModelStore, spec: ModelSpec) -> int:
    """Return the bytes that loading the model will need; 0 if unknown."""
    try:
        source = store.resolve(spec.model)
        precision = spec.precision.on(spec.device)
        stored = store.find(source, precision)
        if stored is not None:
            return memory_needed(stored)
        origin = find_origin(source, precision, pool.settings)
    except PaddockError:  # unknown, damaged, …: reported by its answer
        return 0
    int4 = source.int4_settings(precision, origin.parameters)
    return memory_for(result_bytes(origin, precision, int4))
