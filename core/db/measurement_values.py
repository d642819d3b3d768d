"""What a benchmark's measurement is: the values that go into ``measurements`` and come out of it.

A measurement is one configuration of a sweep at one prompt length. Its repeats are spread over
rounds, each in a fresh process; the figures are taken over all of them.
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
    """How far a sweep got."""

    RUNNING = "running"
    DONE = "done"
    """Every configuration was tried; some rows may have failed."""
    CANCELLED = "cancelled"
    """A person stopped it."""
    INTERRUPTED = "interrupted"
    """Its process ended before it did."""


class MeasurementState(StrEnum):
    """How far a measurement got."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """``error`` says why; the rest of the sweep went on."""
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The process of the sweep ended before it did."""

    @property
    def missing(self) -> bool:
        """Whether a resumed sweep measures it (again)."""
        return self is not MeasurementState.DONE


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is measured; all that must be equal for two figures to be compared."""

    model: str
    """What the person called it: catalogue key, hub id, folder, or a stored model's key."""
    title: str
    source: str
    """Where the weights came from: hub id, local folder, embedded, random weights."""
    random_weights: bool = False
    """The architecture's speed and size without its knowledge."""
    precision: str
    """Weight precision."""
    device: str
    """Device asked for."""
    runtime: str
    hints: Mapping[str, Any] = field(default_factory=dict)
    """OpenVINO properties set on purpose."""
    prompt_tokens: int
    new_tokens: int
    """Forced: the end token does not end a measured answer."""
    repeats: int
    """Timed answers asked for, over all rounds; of short ones more are taken."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One timed answer, in the definitions of :mod:`core.inference.timing`."""

    ttft_ms: float
    tpot_ms: float | None
    """None with a single new token."""
    total_ms: float
    token_times_ms: tuple[float, ...]
    """Time of each new token since the start of work."""
    core_distance_ns: float | None = None
    """A word's way from one processor core to another, see :mod:`core.benchmark.core_latency`: the
    longer of before and after the answer. None where it could not be told or was not yet."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one fresh process measured of a configuration. Bytes are of that process alone."""

    load_s: float
    """To ready: imports not counted, compilation and the warm-up answer included."""
    compile_s: float
    """Of that, reading the files and compiling."""
    memory_private_bytes: int
    """Anonymous memory after the first generate."""
    memory_file_backed_bytes: int
    memory_private_peak_bytes: int
    """Highest that was sampled, from the process's start to its last answer."""
    memory_file_backed_peak_bytes: int
    cpu_cores: float
    """Processor time of the process over wall time, while it answered: cores kept busy."""
    other_cpu_cores: float
    """The same of everything else on the machine."""
    contended: bool
    """Whether anything else of note ran meanwhile."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over all timed answers, or over all their tokens."""

    median: float
    p90: float
    p99: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a precision costs in quality, against the reference precision of the same model.

    Divergence as in OpenVINO's who-what-benchmark: FDT is the mean position of the first token
    that differs in greedy answers, SDT the mean share of tokens that differ.
    """

    reference: str
    """Precision of the weights that are compared with, such as fp16; on a CPU they are executed in
    f32, with an f32 KV cache."""
    perplexity: float
    perplexity_ratio: float
    """Perplexity over the reference's."""
    top1_agreement: float
    """Share of positions, 0 to 1, where the likeliest token is the reference's."""
    first_divergent_token: float
    """FDT in tokens; the answer's length where none differs."""
    divergent_share: float
    """SDT, 0 to 1."""
    task_accuracy: float | None = None
    """Of an embedded model on held-out instructions, 0 to 1."""
    tokens: int
    """Positions that were compared."""


@dataclass(frozen=True, kw_only=True)
class Int4Weights:
    """How weights were compressed to INT4, as it was asked of NNCF; of a model that came
    compressed, as its weights show it."""

    symmetric: bool
    """Without zero points."""
    group_size: int
    """Weights that share one scale along the input channel; −1 means one scale per channel."""
    ratio: float
    """Share of the compressible layers in INT4, 0 to 1; the rest are in INT8."""
    scale_estimation: bool = False
    """Whether the scales were fitted on texts that the model wrote itself."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the rounds of a measurement amount to; what a chart shows."""

    load_s: float
    compile_s: float
    ttft_ms: Spread
    tpot_ms: Spread | None
    """Over the gaps between all tokens of all samples; the median of samples' TPOT decides the
    decode rate."""
    decode_tokens_per_s: float | None
    """Median over the samples of 1 / TPOT."""
    decode_low: float | None
    decode_high: float | None
    prefill_tokens_per_s: float
    end_to_end_tokens_per_s: float
    memory_private_bytes: int
    """After the first generate, median of the rounds."""
    memory_file_backed_bytes: int
    memory_private_peak_bytes: int
    """Highest of the rounds."""
    memory_file_backed_peak_bytes: int
    cpu_cores: float
    other_cpu_cores: float
    contended: bool
    bytes_per_token: int | None
    """Read for one token: weights of the matrix multiplications and the KV cache at half the
    answer's length."""
    mbu: float | None
    """Model bandwidth utilisation, 0 to 1: bytes per token × decode tokens/s over the measured read
    bandwidth; None on any device but the CPU, whose bandwidth that is."""
    answers: int | None = None
    """Timed answers that all this comes from; None where an earlier version did not count them."""
    answers_apart: int = 0
    """Further ones, left out because the host had moved the cores apart while they were given."""
    nearest_ns: float | None = None
    """The shortest distance of cores known of the machine, by which that was told."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine that measured."""

    name: str
    cpu: str
    os: str
    cores: int
    """Logical processors that may be used."""
    memory_bytes: int
    bandwidth_bytes_per_s: float | None
    """Measured read bandwidth, all cores together."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of ``measurements``."""

    id: str
    """32 hexadecimal digits; the same on every machine it is imported to."""
    sweep: str
    """Of the sweep it belongs to; 32 hexadecimal digits."""
    state: MeasurementState
    configuration: Configuration
    host: Host
    versions: Mapping[str, str]
    """Library name to version."""
    created_at: datetime = field(default_factory=utc_now)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    """The sentence about a failure."""
    execution_precision: str | None = None
    kv_precision: str | None = None
    devices_used: tuple[str, ...] = ()
    threads: int | None = None
    disk_bytes: int | None = None
    """Size of the model's folder."""
    weight_bytes: int | None = None
    """Constants of the matrix multiplications, as they are read for each token."""
    weights: str | None = None
    """What the weights are, where their precision does not say it all: ``INT8 from Q4_1``. None
    elsewhere, before the model was there, and in rows of earlier versions."""
    int4: Int4Weights | None = None
    """How the weights were compressed; None in another precision, before the model was there, and
    in rows of earlier versions."""
    rounds: tuple[Round, ...] = ()
    figures: Figures | None = None
    """None until a round is complete."""
    quality: Quality | None = None
    imported_at: datetime | None = None
    """When it came from another machine's file; None where this database's own Paddock measured."""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """One row of ``sweeps``: what was asked for, and which process measures it or did."""

    id: str
    """32 hexadecimal digits."""
    state: SweepState
    plan: Mapping[str, Any]
    """As the benchmark wrote it; enough to go on with what is missing."""
    instance: Instance
    """The latest process that worked on it."""
    created_at: datetime
    ended_at: datetime | None
    """None while it is running, and where its process ended before it could say."""


@dataclass(frozen=True)
class ImportOutcome:
    """What became of another machine's measurements."""

    added: int
    already_there: int
    """Left as they were: this database's own, or imported before."""
