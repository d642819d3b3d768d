"""Estimates what a plan requires before it starts: time, disk space, download.

The time is a rule of thumb from the two limits of a transformer (prefill by arithmetic, decode by
memory bandwidth); a running benchmark corrects it by the duration of its steps. Disk space is the
store's estimate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from core.benchmark.artifacts import Artifact, is_prepared
from core.benchmark.plan import Plan, Target
from core.benchmark.random_models import checkpoint_bytes, checkpoint_folder, random_model
from core.benchmark.stopping import SHORTEST_S
from core.catalogue import Precision
from core.errors import PaddockError
from core.hardware.cgroups import usable_processors
from core.settings import Settings
from core.store import ModelStore
from core.store.checkpoint import Origin
from core.store.estimate import remaining_bytes, result_bytes, scratch_bytes
from core.store.files import free_bytes
from core.store.weights_source import find_origin
from core.units import bytes_text

BANDWIDTH = 25e9
"""Read bandwidth of a typical machine in bytes/s; 26 to 32 GB/s were measured on two cores."""

UTILISATION = 0.5
"""Typical share of the bandwidth that decoding reaches."""

FLOPS_PER_CORE = 100e9
"""Prefill rate of a typical core."""

SECONDS_PER_TOKEN = 1.5e-3
"""Overhead of Python for each token."""

START_SECONDS = 8.0
"""Starting a process and importing its libraries."""

LOAD_BYTES_PER_S = 0.5e9
"""Reading, compiling and repacking weights."""

CHECK_SECONDS = 0.2
"""Checking that a model is on disk and complete."""

BANDWIDTH_SECONDS = 4.0

CONVERT_SECONDS = 10.0
CONVERT_SECONDS_PER_BILLION = 17.0
"""As in :mod:`core.store.estimate` for the slowest precision."""

RANDOM_SECONDS_PER_BILLION = 12.0
"""Generating and writing random weights: 5.5 GB in half a minute on two cores."""

QUALITY_TOKENS = 6_000
"""Tokens read to measure the quality of one precision."""

QUALITY_NEW_TOKENS = 800
"""Tokens generated to measure the quality of one precision."""

_UNKNOWN_PARAMETERS = 1_000_000_000
"""Assumed parameters of a model whose files were not inspected yet."""

_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class BenchmarkEstimate:
    """Estimated requirements of a plan on this machine."""

    seconds: float
    disk_bytes: int
    """Additional disk space at its peak: conversions, random weights, downloads."""
    download_bytes: int
    """Part of it that is downloaded from the Hugging Face Hub; models of unknown size are not
    included."""
    rows: int
    """Number of measurements."""
    problem: str | None
    """Error text if there is not enough disk space; otherwise None."""


@dataclass(frozen=True)
class _Needs:
    """Size of an artifact, and what its conversion takes."""

    parameters: int
    disk_bytes: int
    scratch_bytes: int = 0
    download_bytes: int = 0


def required_artifacts(plan: Plan) -> tuple[Artifact, ...]:
    """Return all artifacts of a plan, each once, including the references of quality."""
    found = [Artifact.of(target) for target in plan.targets()]
    if plan.quality:
        precision = reference_precision(plan)
        found += [Artifact(model, False, precision) for model in plan.models]
    return tuple(dict.fromkeys(found))


def reference_precision(plan: Plan) -> Precision:
    """Return what other precisions are compared with: FP32 if it is measured, otherwise FP16."""
    return Precision.FP32 if Precision.FP32 in plan.precisions else Precision.FP16


def estimate(plan: Plan, settings: Settings) -> BenchmarkEstimate:
    """Estimate what a plan requires; an unavailable model counts as nothing.

    Raises:
        BadRequestError: the plan is invalid; see :meth:`Plan.validated`.
    """
    plan = plan.validated()
    needed = [item for item in required_artifacts(plan) if not is_prepared(item, settings)]
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
            f"This benchmark needs {bytes_text(disk)} of disk space, but {bytes_text(free)} are "
            "free. Free some space, choose fewer models or precisions, or set PADDOCK_HOME to a "
            "folder on a larger disk."
        )
    return BenchmarkEstimate(
        seconds=seconds,
        disk_bytes=disk,
        download_bytes=download,
        rows=len(plan.targets()) * len(plan.prompt_tokens),
        problem=problem,
    )


def has_quality(target: Target) -> bool:
    """Return whether quality can be compared; not for random weights, nor for PyTorch, which is not
    OpenVINO."""
    return not target.random_weights and not target.baseline


def prepare_seconds(artifact: Artifact, settings: Settings) -> float:
    """Estimate the time to prepare an artifact, or to check it if it is on disk."""
    if is_prepared(artifact, settings):
        return CHECK_SECONDS
    billions = _size(artifact, settings).parameters / 1e9
    seconds = 0.0
    if artifact.random_weights and not checkpoint_folder(settings, artifact.model).is_dir():
        seconds += RANDOM_SECONDS_PER_BILLION * billions
    if artifact.precision is not None:
        seconds += CONVERT_SECONDS + CONVERT_SECONDS_PER_BILLION * billions
    return seconds


def measure_seconds(target: Target, plan: Plan, number: int, settings: Settings) -> float:
    """Estimate the time of one process: start, load, warm-up, and the answers of the round."""
    size = _size(Artifact.of(target), settings)
    width = {Precision.FP32: 4, Precision.FP16: 2}.get(target.precision)
    weights = size.parameters * width if target.baseline and width else size.disk_bytes
    seconds = START_SECONDS + weights / LOAD_BYTES_PER_S
    answers = plan.answers_in_round(number)
    for prompt_tokens in plan.prompt_tokens:
        prefill = _prefill_seconds(size.parameters, prompt_tokens)
        timed = answers * (prefill + _decode_seconds(weights, plan.new_tokens))
        seconds += prefill + max(SHORTEST_S, timed)
    return seconds


def quality_seconds(target: Target, settings: Settings) -> float:
    """Estimate the time of one quality pass."""
    size = _size(Artifact.of(target), settings)
    loading = START_SECONDS + size.disk_bytes / LOAD_BYTES_PER_S
    reading = _prefill_seconds(size.parameters, QUALITY_TOKENS)
    return loading + reading + _decode_seconds(size.disk_bytes, QUALITY_NEW_TOKENS)


def _prefill_seconds(parameters: int, tokens: int) -> float:
    return 2 * parameters * tokens / (FLOPS_PER_CORE * usable_processors())


def _decode_seconds(weight_bytes: float, tokens: int) -> float:
    return tokens * (SECONDS_PER_TOKEN + weight_bytes / (UTILISATION * BANDWIDTH))


def _disk(needed: Iterable[Artifact], settings: Settings) -> tuple[int, int]:
    """Return the bytes that remain plus the largest temporary files, and the bytes of downloads."""
    stays, scratch = 0, [0]
    checkpoints: dict[str, int] = {}
    downloads: dict[str, int] = {}
    for artifact in needed:
        needs = _needs(artifact, settings)
        if needs is None:
            continue
        if artifact.precision is not None:
            stays += needs.disk_bytes
            scratch.append(needs.scratch_bytes)
        if not artifact.random_weights:
            downloads.setdefault(artifact.model, needs.download_bytes)
        elif not checkpoint_folder(settings, artifact.model).is_dir():
            checkpoints[artifact.model] = checkpoint_bytes(random_model(artifact.model))
    download = sum(downloads.values())
    return stays + sum(checkpoints.values()) + max(scratch) + download, download


def _size(artifact: Artifact, settings: Settings) -> _Needs:
    return _needs(artifact, settings) or _Needs(_UNKNOWN_PARAMETERS, 2 * _UNKNOWN_PARAMETERS)


def _needs(artifact: Artifact, settings: Settings) -> _Needs | None:
    """Return what an artifact needs; None if that is not known."""
    precision, download = artifact.precision or Precision.FP16, 0
    if artifact.random_weights:
        model = random_model(artifact.model)
        size = checkpoint_bytes(model)
        origin = Origin(model.parameters, size, dtype="bfloat16", shape=model.shape)
        int4 = model.int4(precision)
    else:
        try:
            source = ModelStore(settings).resolve(artifact.model)
            origin = find_origin(source, precision, settings)
            download = remaining_bytes(source, origin, settings)
        except PaddockError:
            return None
        int4 = source.int4_settings(precision, origin.parameters)
    return _Needs(
        origin.parameters,
        result_bytes(origin, precision, int4),
        scratch_bytes(origin, precision),
        download,
    )
