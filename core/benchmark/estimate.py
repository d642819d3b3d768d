"""What a plan will take, said before it starts: time, disk, download.

The time is a rule of thumb from the two limits of a transformer (prefill by arithmetic, decode by
memory bandwidth); a running sweep corrects it by what its steps took. Disk is the store's estimate.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from core.benchmark.artifacts import Material, is_ready
from core.benchmark.plan import Plan, Target
from core.benchmark.random_models import checkpoint_bytes, checkpoint_folder
from core.benchmark.shapes import RandomModel, random_model
from core.benchmark.stopping import SHORTEST_S
from core.catalogue import Precision, default_int4
from core.errors import PaddockError
from core.settings import Settings
from core.store import Estimate, ModelStore
from core.store.estimate import estimate as conversion_estimate
from core.store.estimate import result_bytes, scratch_bytes
from core.store.files import free_bytes
from core.store.weights_source import Origin, find_origin
from core.units import bytes_text

BANDWIDTH = 25e9
"""Bytes/s that a usual machine reads; see FACTS: 26–32 GB/s on two cores."""

UTILISATION = 0.5
"""Usual share of it that decoding reaches."""

FLOPS_PER_CORE = 100e9
"""Arithmetic of a prefill, as a usual core does it."""

SECONDS_PER_TOKEN = 1.5e-3
"""Python's own work for each token."""

START_SECONDS = 8.0
"""A process with its libraries."""

LOAD_BYTES_PER_S = 0.5e9
"""Reading, compiling and repacking weights."""

LOOK_SECONDS = 0.2
"""To find that a model is there and whole."""

BANDWIDTH_SECONDS = 4.0

CONVERT_SECONDS = 10.0
CONVERT_SECONDS_PER_BILLION = 17.0
"""As :mod:`core.store.estimate` has it for the slowest precision."""

RANDOM_SECONDS_PER_BILLION = 12.0
"""Drawing and writing random weights: 5.5 GB in half a minute on two cores."""

QUALITY_TOKENS = 6_000
"""Tokens read for the quality of one precision."""

QUALITY_NEW_TOKENS = 800
"""Tokens written for it."""

_UNKNOWN_PARAMETERS = 1_000_000_000
"""Of a model that has not been looked at yet."""

_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class BenchmarkEstimate:
    """What a plan will take on this machine, roughly."""

    seconds: float
    disk_bytes: int
    """Further disk that it needs at its peak: conversions, random weights, downloads."""
    download_bytes: int
    """Of that, what is fetched from the hub; what nobody has looked up yet is not counted."""
    free_disk: int
    rows: int
    """Measurements."""
    problem: str | None
    """One sentence where the disk does not suffice; None otherwise."""


@dataclass(frozen=True)
class _Size:
    """How large a model is in one precision."""

    parameters: int
    weight_bytes: int


def materials(plan: Plan) -> tuple[Material, ...]:
    """All that must lie on disk for this plan, each once, the references of quality included."""
    found = [Material.of(target) for target in plan.targets()]
    if plan.quality:
        precision = reference_precision(plan)
        found += [Material(model, False, precision) for model in plan.models]
    return tuple(dict.fromkeys(found))


def reference_precision(plan: Plan) -> Precision:
    """What the other precisions are compared with: FP32 where it is measured, or else FP16."""
    return Precision.FP32 if Precision.FP32 in plan.precisions else Precision.FP16


def estimate(plan: Plan, settings: Settings) -> BenchmarkEstimate:
    """What this plan will take; a model that cannot be had is counted with nothing.

    Raises:
        BadRequestError: the plan cannot be measured; see :meth:`Plan.validated`.
    """
    plan = plan.validated()
    needed = [item for item in materials(plan) if not _is_ready(item, settings)]
    disk, download = _disk(needed, settings)
    free = free_bytes(settings.home)
    seconds = BANDWIDTH_SECONDS * plan.rounds
    seconds += sum(prepare_seconds(item, settings) for item in needed)
    exact: set[Target] = set()
    for target in plan.targets():
        seconds += sum(
            measure_seconds(target, plan, number, settings) for number in range(plan.rounds)
        )
        if plan.quality and has_quality(target):
            seconds += quality_seconds(target, settings)
            exact.add(replace(target, precision=reference_precision(plan), exact=True))
    seconds += sum(quality_seconds(target, settings) for target in exact)
    problem = None
    if disk and disk + _SPARE_BYTES > free:
        problem = (
            f"This benchmark needs {bytes_text(disk)} on disk and {bytes_text(free)} are free; "
            "make room, choose fewer models or precisions, or set PADDOCK_HOME to a larger disk."
        )
    return BenchmarkEstimate(
        seconds=seconds,
        disk_bytes=disk,
        download_bytes=download,
        free_disk=free,
        rows=len(plan.configurations()),
        problem=problem,
    )


def has_quality(target: Target) -> bool:
    """Whether its quality can be compared: random weights have none, PyTorch is not OpenVINO."""
    return not target.random_weights and not target.baseline


def prepare_seconds(material: Material, settings: Settings) -> float:
    """Rough time to have it on disk; that of a look where it is there."""
    if _is_ready(material, settings):
        return LOOK_SECONDS
    billions = _size(material, settings).parameters / 1e9
    seconds = 0.0
    if material.random_weights and not checkpoint_folder(settings, material.model).is_dir():
        seconds += RANDOM_SECONDS_PER_BILLION * billions
    if material.precision is not None:
        seconds += CONVERT_SECONDS + CONVERT_SECONDS_PER_BILLION * billions
    return seconds


def measure_seconds(target: Target, plan: Plan, number: int, settings: Settings) -> float:
    """Rough time of one process: start, load, warm up, and the answers of that round."""
    size = _size(Material.of(target), settings)
    width = {Precision.FP32: 4, Precision.FP16: 2}.get(target.precision)
    weights = size.parameters * width if target.baseline and width else size.weight_bytes
    seconds = START_SECONDS + weights / LOAD_BYTES_PER_S
    answers = plan.answers_in_round(number)
    for prompt_tokens in plan.prompt_tokens:
        prefill = _prefill_seconds(size.parameters, prompt_tokens)
        timed = answers * (prefill + _decode_seconds(weights, plan.new_tokens))
        seconds += prefill + max(SHORTEST_S, timed)
    return seconds


def quality_seconds(target: Target, settings: Settings) -> float:
    """Rough time of one quality pass."""
    size = _size(Material.of(target), settings)
    loading = START_SECONDS + size.weight_bytes / LOAD_BYTES_PER_S
    reading = _prefill_seconds(size.parameters, QUALITY_TOKENS)
    return loading + reading + _decode_seconds(size.weight_bytes, QUALITY_NEW_TOKENS)


def _prefill_seconds(parameters: int, tokens: int) -> float:
    return 2 * parameters * tokens / (FLOPS_PER_CORE * (os.cpu_count() or 1))


def _decode_seconds(weight_bytes: float, tokens: int) -> float:
    return tokens * (SECONDS_PER_TOKEN + weight_bytes / (UTILISATION * BANDWIDTH))


def _is_ready(material: Material, settings: Settings) -> bool:
    try:
        return is_ready(material, settings)
    except PaddockError:
        return False


def _disk(needed: Iterable[Material], settings: Settings) -> tuple[int, int]:
    """Bytes that stay, with the largest scratch that passes, and bytes of downloads."""
    stays = download = 0
    scratch = [0]
    checkpoints: set[str] = set()
    downloads: set[str] = set()
    for material in needed:
        if material.random_weights:
            model = random_model(material.model)
            if not checkpoint_folder(settings, model.key).is_dir():
                checkpoints.add(model.key)
            if material.precision is not None:
                origin = _random_origin(model)
                stays += result_bytes(origin, material.precision, material.int4 or model.int4)
                scratch.append(scratch_bytes(origin, material.precision))
            continue
        told = _conversion(material, settings)
        if told is None:
            continue
        if material.precision is not None:
            stays += told.disk_bytes
            scratch.append(told.scratch_bytes)
        if material.model not in downloads:
            downloads.add(material.model)
            download += told.download_bytes
    stays += sum(checkpoint_bytes(random_model(key)) for key in checkpoints)
    return stays + max(scratch) + download, download


def _conversion(material: Material, settings: Settings) -> Estimate | None:
    """What fetching and converting takes; None where that cannot be told."""
    try:
        source = ModelStore(settings).resolve(material.model)
        precision = material.precision or Precision.FP16
        return conversion_estimate(source, precision, settings, int4=material.int4)
    except PaddockError:
        return None


def _size(material: Material, settings: Settings) -> _Size:
    precision = material.precision or Precision.FP16
    if material.random_weights:
        model = random_model(material.model)
        origin = _random_origin(model)
        int4 = material.int4 or model.int4
        return _Size(model.parameters, result_bytes(origin, precision, int4))
    try:
        source = ModelStore(settings).resolve(material.model)
        origin = find_origin(source, precision, settings)
    except PaddockError:
        return _Size(_UNKNOWN_PARAMETERS, 2 * _UNKNOWN_PARAMETERS)
    int4 = material.int4 or (source.model.int4 if source.model else default_int4())
    return _Size(origin.parameters, result_bytes(origin, precision, int4))


def _random_origin(model: RandomModel) -> Origin:
    return Origin(
        folder=None,
        is_ir=False,
        precision=None,
        parameters=model.parameters,
        weight_bytes=checkpoint_bytes(model),
        dtype="bfloat16",
        safetensors=True,
        shape=model.shape,
    )
