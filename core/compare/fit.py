"""Whether the models of a comparison fit the memory together, before any of them is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from core.catalogue import default_int4, device_int4
from core.errors import PaddockError, UnknownDeviceError
from core.runtimes.pool import ModelPool, canonical, memory_for, memory_needed
from core.runtimes.spec import ModelSpec
from core.store import ModelStore
from core.store.estimate import result_bytes
from core.store.for_device import find_for_device
from core.store.weights_source import find_origin
from core.units import bytes_text


def fit_together(pool: ModelPool, store: ModelStore, sides: Sequence[ModelSpec]) -> str | None:
    """One sentence where the models do not fit the memory together; None where they do.

    What is loaded already costs nothing more, one model on two sides counts once, and idle models
    beside these are let go. Of a model that is not converted yet the size is estimated; one whose
    size nobody knows before it is fetched counts as nothing, and the pool looks again when it loads
    the model.
    """
    wanted: dict[ModelSpec, None] = {}  # in order, and each once
    for spec in sides:
        if spec.remote:  # it takes no memory here
            continue
        with suppress(UnknownDeviceError):  # its answer says so
            wanted[canonical(spec)] = None
    limit = pool.settings.max_loaded_models
    if len(wanted) > limit:
        models = "model is" if limit == 1 else "models are"
        return (
            f"{len(wanted)} different models were chosen and at most {limit} {models} kept in "
            "memory at once; choose fewer, or set PADDOCK_MAX_LOADED_MODELS higher."
        )
    needs = {spec: _memory(pool, store, spec) for spec in wanted if not pool.is_loaded(spec)}
    needed, free = sum(needs.values()), pool.loadable_bytes(wanted)
    if needed <= free:
        return None
    largest = max(needs, key=needs.__getitem__)
    return (
        f"These models need about {bytes_text(needed)} more memory together and "
        f"{bytes_text(free)} are free for them; choose a lower precision or a smaller model than "
        f"{store.title(largest.model)} · {largest.variant} ({bytes_text(needs[largest])}), or "
        "close other programs."
    )


def _memory(pool: ModelPool, store: ModelStore, spec: ModelSpec) -> int:
    """Bytes that loading the model will take; 0 where that cannot be known."""
    try:
        source = store.resolve(spec.model)
        wanted = device_int4(spec.precision, spec.device)
        stored = find_for_device(store, source, spec.precision, wanted)
        if stored is not None:
            return memory_needed(stored)
        origin = find_origin(source, spec.precision, pool.settings)
    except PaddockError:  # unknown, damaged, not looked up …: its answer says so
        return 0
    int4 = wanted or (source.model.int4 if source.model is not None else default_int4())
    return memory_for(result_bytes(origin, spec.precision, int4))
