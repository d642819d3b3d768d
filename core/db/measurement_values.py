"""Values of the tables ``measurements`` and ``sweeps``.

A sweep is a benchmark run. A measurement is one of its configurations at one prompt length. The
repeats are divided among rounds, each in a new process; figures are computed over all rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from core.db.processes import Instance
from core.db.run_values import utc_now


class SweepState(StrEnum):
    """State of a benchmark run."""

    RUNNING = "running"
    DONE = "done"
    """All configurations were tried; some rows may have failed."""
    CANCELLED = "cancelled"
    """Stopped by a user."""
    INTERRUPTED = "interrupted"
    """The process ended before the run."""


class MeasurementState(StrEnum):
    """State of a measurement."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """``error`` has the reason; the rest of the run continued."""
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The process ended before the measurement."""

    @property
    def missing(self) -> bool:
        """Whether resuming the run measures it (again)."""
        return self is not MeasurementState.DONE


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is measured: everything that must be equal for figures to be comparable."""

    model: str
    """Name given by the user: catalogue key, Hugging Face id, folder, or a stored model's key."""
    title: str
    source: str
    """Origin of the weights: Hugging Face id, local folder, embedded, random weights."""
    random_weights: bool = False
    """Random weights in the model's shape: they have its speed and size."""
    precision: str
    """Weight precision."""
    device: str
    """Requested device."""
    runtime: str
    hints: Mapping[str, Any] = field(default_factory=dict)
    """OpenVINO properties that were set explicitly."""
    prompt_tokens: int
    new_tokens: int
    """Forced: the end token does not end a measured answer."""
    repeats: int
    """Requested timed answers over all rounds; short answers are repeated more often."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One timed answer, as defined in :mod:`core.inference.timing`."""

    ttft_ms: float
    tpot_ms: float | None
    """None with a single new token."""
    total_ms: float
    token_times_ms: tuple[float, ...]
    """Time of each new token since processing started."""
    core_distance_ns: float | None = None
    """Core-to-core latency, see :mod:`core.benchmark.core_latency`: the higher of the values before
    and after the answer. None if it could not be measured, and in rows of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Results of one process for a configuration. Bytes are those of this process only."""

    load_s: float
    """Time until ready, without imports, with compilation and the warm-up answer."""
    compile_s: float
    """The part for reading the files and compiling."""
    memory_private_bytes: int
    """Anonymous memory after the first answer."""
    memory_file_backed_bytes: int
    memory_private_peak_bytes: int
    """Highest sample from the start of the process to its last answer."""
    memory_file_backed_peak_bytes: int
    cpu_cores: float
    """CPU time of the process divided by wall time during the answers: number of busy cores."""
    other_cpu_cores: float
    """The same for all other processes on the machine."""
    contended: bool
    """Whether significant other work ran at the same time."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Distribution of a figure over all timed answers, or over all their tokens."""

    median: float
    p90: float
    p99: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality of a precision compared with the reference precision of the same model.

    Divergence is defined as in OpenVINO's who-what-benchmark: FDT is the mean position of the first
    token that differs in greedy answers, SDT the mean share of tokens that differ.
    """

    reference: str
    """Weight precision of the reference, such as fp16; on a CPU it is executed in f32, with an f32
    KV cache."""
    perplexity: float
    perplexity_ratio: float
    """Perplexity divided by the reference's."""
    top1_agreement: float
    """Share of positions with the same most likely token as the reference, 0 to 1."""
    first_divergent_token: float
    """FDT in tokens; the answer's length if no token differs."""
    divergent_share: float
    """SDT, 0 to 1."""
    task_accuracy: float | None = None
    """Share of held-out tasks solved by a demo model, 0 to 1."""
    tokens: int
    """Number of compared positions."""


@dataclass(frozen=True, kw_only=True)
class Int4Weights:
    """INT4 settings as passed to NNCF; for a model that was already compressed, as found in its
    weights."""

    symmetric: bool
    """Without zero points."""
    group_size: int
    """Weights that share one scale along the input channel; −1 means one scale per channel."""
    ratio: float
    """Share of the compressible layers in INT4, 0 to 1; the rest are in INT8."""
    scale_estimation: bool = False
    """Whether the scales were estimated on texts generated by the model."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures over all rounds of a measurement, as shown in charts."""

    load_s: float
    compile_s: float
    ttft_ms: Spread
    tpot_ms: Spread | None
    """Over the intervals between all tokens of all samples. The decode rate is computed from the
    median of the samples' TPOT instead."""
    decode_tokens_per_s: float | None
    """Median over the samples of 1 / TPOT."""
    decode_low: float | None
    decode_high: float | None
    prefill_tokens_per_s: float
    end_to_end_tokens_per_s: float
    memory_private_bytes: int
    """After the first answer, median of the rounds."""
    memory_file_backed_bytes: int
    memory_private_peak_bytes: int
    """Highest of the rounds."""
    memory_file_backed_peak_bytes: int
    cpu_cores: float
    other_cpu_cores: float
    contended: bool
    bytes_per_token: int | None
    """Bytes read for one token: weights of the matrix multiplications, and the KV cache at half the
    answer's length."""
    mbu: float | None
    """Model bandwidth utilization, 0 to 1: bytes per token × decode tokens/s divided by the
    measured read bandwidth of the CPU; None on other devices."""
    answers: int | None = None
    """Number of timed answers; None in rows of earlier versions."""
    answers_apart: int = 0
    """Number of answers left out because the host had moved the cores apart."""
    nearest_ns: float | None = None
    """Lowest core-to-core latency of the machine, with which the others were compared."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine of a measurement."""

    name: str
    cpu: str
    os: str
    cores: int
    """Logical processors available to the process."""
    memory_bytes: int
    bandwidth_bytes_per_s: float | None
    """Measured memory read bandwidth of all cores together."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of ``measurements``."""

    id: str
    """32 hexadecimal digits; the same on every machine that imports it."""
    sweep: str
    """Id of its benchmark run; 32 hexadecimal digits."""
    state: MeasurementState
    configuration: Configuration
    host: Host
    versions: Mapping[str, str]
    """Library name to version."""
    created_at: datetime = field(default_factory=utc_now)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    """Error message of a failure."""
    execution_precision: str | None = None
    kv_precision: str | None = None
    devices_used: tuple[str, ...] = ()
    threads: int | None = None
    disk_bytes: int | None = None
    """Size of the model's folder."""
    weight_bytes: int | None = None
    """Size of the matrix multiplications' constants, which are read for each token."""
    weights: str | None = None
    """Display name of the weights if the precision is not specific enough: ``INT8 from Q4_1``.
    None otherwise, before the model was converted, and in rows of earlier versions."""
    int4: Int4Weights | None = None
    """How the weights were compressed; None in other precisions, before the model was converted,
    and in rows of earlier versions."""
    rounds: tuple[Round, ...] = ()
    figures: Figures | None = None
    """None until a round is complete."""
    quality: Quality | None = None
    imported_at: datetime | None = None
    """When it was imported from a file; None if it was measured by this installation."""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """One row of ``sweeps``: a benchmark run, its plan and its process."""

    id: str
    """32 hexadecimal digits."""
    state: SweepState
    plan: Mapping[str, Any]
    """As written by the benchmark; sufficient to resume it."""
    instance: Instance
    """The latest process that ran it."""
    created_at: datetime
    ended_at: datetime | None
    """None while it is running or if its process was interrupted."""


@dataclass(frozen=True)
class ImportOutcome:
    """Result of an import."""

    added: int
    already_there: int
    """Left unchanged: measured by this installation, or imported earlier."""
