"""Settings of a comparison: the models, the request, and whether they run in turn or at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from core.db import Mode
from core.errors import BadRequestError, PaddockError, UnknownDeviceError
from core.hardware.devices import AUTO, auto_devices, require_device
from core.inference.request import GenerationRequest
from core.remotes import MARK
from core.runtimes.pool import ModelPool, canonical, memory_for, memory_needed
from core.runtimes.spec import ModelSpec, Speculation
from core.store import ModelStore
from core.store.estimate import result_bytes
from core.store.npu import find_weights
from core.store.weights_source import find_origin
from core.units import bytes_text

MIN_SIDES, MAX_SIDES = 2, 4
LETTERS = "ABCDEFGH"
"""Names of the sides of a comparison, and of the candidates of a test set, in order."""


@dataclass(frozen=True)
class Setup:
    """Two to four models and their request, which is validated on creation.

    Raises:
        BadRequestError: too few or too many sides, or an invalid request.
    """

    sides: tuple[ModelSpec, ...]
    request: GenerationRequest
    """The validated request, with one seed for all sides; random if the user gave none."""
    mode: Mode
    formats: tuple[str | None, ...] = ()
    """Prompt format of each side; None, or no tuple, means the request's."""
    speculation: tuple[Speculation, ...] = ()
    """Speculation of each side; no tuple means the request's."""

    def __post_init__(self) -> None:
        if not MIN_SIDES <= len(self.sides) <= MAX_SIDES:
            raise BadRequestError(
                f"{len(self.sides)} models were chosen. "
                f"Choose {MIN_SIDES} to {MAX_SIDES} to compare."
            )
        formats = self.formats or (None,) * len(self.sides)
        speculation = self.speculation or (self.request.speculation,) * len(self.sides)
        object.__setattr__(self, "formats", formats)
        object.__setattr__(self, "speculation", speculation)
        object.__setattr__(self, "request", self.request.validated())

    def request_of(self, side: int) -> GenerationRequest:
        """Return the request of one side, with its own prompt format."""
        return replace(
            self.request,
            prompt_format=self.formats[side] or self.request.prompt_format,
            speculation=self.speculation[side],
        )


def default_mode(sides: Sequence[ModelSpec]) -> Mode:
    """Return fair mode if two sides use the same device, with AUTO resolved, else race mode.

    An AUTO whose choice is unknown may use any device, so it counts as shared.
    """
    seen: set[str] = set()
    for devices in map(devices_of, sides):
        if not devices or seen & devices:
            return Mode.FAIR
        seen |= devices
    return Mode.RACE


def devices_of(spec: ModelSpec) -> frozenset[str]:
    """Return the names of the devices the model will use; empty if AUTO's choice is unknown.

    A remote server counts as a device. A device that this machine does not have is returned as
    it is: the answer will report the error.
    """
    if spec.remote:
        return frozenset({f"{MARK}{spec.device}"})
    try:
        device = require_device(spec.device)
    except UnknownDeviceError:
        return frozenset({spec.device.strip().upper()})
    return frozenset(auto_devices() if device == AUTO else (device,))


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
        stored = find_weights(store, source, precision)
        if stored is not None:
            return memory_needed(stored)
        origin = find_origin(source, precision, pool.settings)
    except PaddockError:  # unknown, damaged, …: reported by its answer
        return 0
    int4 = source.int4_settings(precision, origin.parameters)
    return memory_for(result_bytes(origin, precision, int4))
