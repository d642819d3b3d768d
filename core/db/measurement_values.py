"""Values of the tables ``measurements`` and ``sweeps``.

A sweep is a benchmark run. A measurement is one of its configurations at one prompt length. The
repeats are divided among rounds, each in a new process; figures are computed over all rounds.

The types of a measurement's fields have the limits of the database and the charts. pydantic checks
them when a file is imported (:mod:`core.metrics.document`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, FailFast, Field, GetCoreSchemaHandler
from pydantic_core.core_schema import CoreSchema, custom_error_schema

from core.db.processes import Instance
from core.db.rows import Flat

MAX_TEXT = 1_000
"""Maximum characters of a name: title, device, host, or folder, the longest of these."""

MAX_ERROR = 20_000
"""Maximum characters of ``error``, which may quote a library's message."""

MAX_COUNT = 2**31 - 1
"""Largest value of an integer column in every database."""

MAX_BYTE_COUNT = 2**63 - 1
"""Largest value of a big integer column in every database, for sizes in bytes."""

MAX_NUMBER = 1e18
"""Far above any time in ms or bandwidth in bytes/s, and far below a floating-point overflow."""

YEARS = (2000, 2199)
"""First and last year accepted in dates."""

CONTROL_CHARACTERS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
"""Control characters except line ends and tabs, as in a regular expression's ``[]``."""


@dataclass(frozen=True)
class _Wanted:
    """Makes pydantic's error say which values the type accepts."""

    text: str

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return custom_error_schema(handler(kind), "wanted", custom_error_message=self.text)


def _utc(value: Any) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    if moment is None or moment.tzinfo is None or not YEARS[0] <= moment.year <= YEARS[1]:
        raise ValueError
    return moment.astimezone(UTC)


_Item = TypeVar("_Item")
_PRINTABLE = f"^[^{CONTROL_CHARACTERS}]*$"
_COUNT = "a whole number from {} to {:,}"

Text = Annotated[str, Field(max_length=MAX_TEXT, pattern=_PRINTABLE)]
LongText = Annotated[str, Field(max_length=MAX_ERROR, pattern=_PRINTABLE)]
Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$"), _Wanted("32 hexadecimal digits")]
Time = Annotated[
    datetime, BeforeValidator(_utc), _Wanted(f"a date and time with a time zone from {YEARS[0]} on")
]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT), _Wanted(_COUNT.format(0, MAX_COUNT))]
ByteCount = Annotated[
    int, Field(strict=True, ge=0, le=MAX_BYTE_COUNT), _Wanted(_COUNT.format(0, MAX_BYTE_COUNT))
]
GroupSize = Annotated[
    int, Field(strict=True, ge=-1, le=MAX_COUNT), _Wanted(_COUNT.format(-1, MAX_COUNT))
]
Number = Annotated[
    float, Field(strict=True, ge=0, le=MAX_NUMBER), _Wanted(f"a number from 0 to {MAX_NUMBER:g}")
]
PropertyValue = Annotated[
    Text
    | bool
    | Annotated[int, Field(strict=True, ge=-MAX_BYTE_COUNT, le=MAX_BYTE_COUNT)]
    | Annotated[float, Field(strict=True, gt=-MAX_BYTE_COUNT, lt=MAX_BYTE_COUNT)]
    | None,
    _Wanted("a string or a number"),
]
"""Value of an OpenVINO property."""
Many = Annotated[tuple[_Item, ...], FailFast()]
"""Items of which only the first invalid one is reported; a hostile file may have millions."""
Entries = Annotated[Mapping[Text, _Item], Field(max_length=100)]


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

    model: Text
    """Name given by the user: catalogue key, Hugging Face id, folder, or a stored model's key."""
    title: Text
    source: Text
    """Origin of the weights: Hugging Face id, local folder, embedded, random weights."""
    random_weights: Flag = False
    """Random weights in the model's shape: they have its speed and size."""
    precision: Text
    """Weight precision."""
    device: Text
    """Requested device."""
    runtime: Text
    hints: Entries[PropertyValue] = field(default_factory=dict)
    """OpenVINO properties that were set explicitly."""
    speculation: Text = "off"
    """:attr:`core.runtimes.spec.Speculation.text`."""
    prompt_tokens: Count
    new_tokens: Count
    """Forced: the end token does not end a measured answer."""
    repeats: Count
    """Requested timed answers over all rounds; short answers are repeated more often."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One timed answer, as defined in :mod:`core.inference.timing`."""

    ttft_ms: Number
    tpot_ms: Number | None
    """None with a single new token."""
    total_ms: Number
    token_times_ms: Many[Number]
    """Time of each new token since processing started."""
    core_distance_ns: Number | None = None
    """Core-to-core latency, see :mod:`core.benchmark.core_latency`: the higher of the values before
    and after the answer. None if it could not be measured, and in rows of earlier versions."""
    draft_tokens: Count | None = None
    """Tokens guessed by speculation; None if none were. The tokens of a step have the same time."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Results of one process for a configuration. Bytes are those of this process only."""

    load_s: Number
    """Time until ready, without imports, with compilation and the warm-up answer."""
    compile_s: Number
    """The part for reading the files and compiling."""
    memory_private_bytes: ByteCount
    """Anonymous memory after the first answer."""
    memory_file_backed_bytes: ByteCount
    memory_private_peak_bytes: ByteCount
    """Highest sample from the start of the process to its last answer."""
    memory_file_backed_peak_bytes: ByteCount
    cpu_cores: Number
    """CPU time of the process divided by wall time during the answers: number of busy cores."""
    other_cpu_cores: Number
    """The same for all other processes on the machine."""
    contended: Flag
    """Whether significant other work ran at the same time."""
    samples: Many[Sample]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Distribution of a figure over all timed answers, or over all their tokens."""

    median: Number
    p90: Number
    p99: Number
    low: Number
    high: Number


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality of a precision compared with the reference precision of the same model.

    Divergence is defined as in OpenVINO's who-what-benchmark: FDT is the mean position of the first
    token that differs in greedy answers, SDT the mean share of tokens that differ.
    """

    reference: Text
    """Weight precision of the reference, such as fp16; on a CPU it is executed in f32, with an f32
    KV cache."""
    perplexity: Number
    perplexity_ratio: Number
    """Perplexity divided by the reference's."""
    top1_agreement: Number
    """Share of positions with the same most likely token as the reference, 0 to 1."""
    first_divergent_token: Number
    """FDT in tokens; the answer's length if no token differs."""
    divergent_share: Number
    """SDT, 0 to 1."""
    task_accuracy: Number | None = None
    """Share of held-out tasks solved by a demo model, 0 to 1."""
    tokens: Count
    """Number of compared positions."""


@dataclass(frozen=True, kw_only=True)
class Int4Weights:
    """INT4 settings as read from the weights; in rows of earlier versions as passed to NNCF."""

    symmetric: Flag
    """Without zero points."""
    group_size: GroupSize
    """Weights that share one scale along the input channel, in most layers; −1 means one scale per
    channel."""
    ratio: Number
    """Share of the layers in INT4, 0 to 1; the rest are in INT8."""
    scale_estimation: Flag = False
    """Whether the scales were estimated on texts generated by the model."""
    awq: Flag = False
    """Whether AWQ was used."""
    other_groups: Text = ""
    """Group sizes of further layers, such as ``64, 32``."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures over all rounds of a measurement, as shown in charts."""

    load_s: Number
    compile_s: Number
    ttft_ms: Spread
    tpot_ms: Spread | None
    """Over the intervals between all tokens of all samples. The decode rate is computed from the
    median of the samples' TPOT instead."""
    decode_tokens_per_s: Number | None
    """Median over the samples of 1 / TPOT."""
    decode_low: Number | None
    decode_high: Number | None
    prefill_tokens_per_s: Number
    end_to_end_tokens_per_s: Number
    memory_private_bytes: ByteCount
    """After the first answer, median of the rounds."""
    memory_file_backed_bytes: ByteCount
    memory_private_peak_bytes: ByteCount
    """Highest of the rounds."""
    memory_file_backed_peak_bytes: ByteCount
    cpu_cores: Number
    other_cpu_cores: Number
    contended: Flag
    bytes_per_token: ByteCount | None
    """Bytes read for one token: weights of the matrix multiplications, and the KV cache at half the
    answer's length."""
    mbu: Number | None
    """Model bandwidth utilization, 0 to 1: bytes per token × decode tokens/s divided by the
    measured read bandwidth of the CPU; None on other devices."""
    answers: Count | None = None
    """Number of timed answers; None in rows of earlier versions."""
    answers_apart: Count = 0
    """Number of answers left out because the host had moved the cores apart."""
    acceptance_rate: Number | None = None
    """Share of the guessed tokens that the model accepted, 0 to 1; None without speculation."""
    tokens_per_step: Number | None = None
    """New tokens per step of the model; None without speculation."""
    nearest_ns: Number | None = None
    """Lowest core-to-core latency of the machine, with which the others were compared."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine of a measurement."""

    name: Text
    cpu: Text
    os: Text
    cores: Count
    """Logical processors available to the process."""
    memory_bytes: ByteCount
    bandwidth_bytes_per_s: Number | None
    """Measured memory read bandwidth of all cores together."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of ``measurements``."""

    id: Id
    """32 hexadecimal digits; the same on every machine that imports it."""
    sweep: Id
    """Id of its benchmark run; 32 hexadecimal digits."""
    state: MeasurementState
    configuration: Annotated[Configuration, Flat()]
    host: Annotated[Host, Flat("host_")]
    versions: Entries[Text]
    """Library name to version."""
    created_at: Time
    started_at: Time | None = None
    ended_at: Time | None = None
    error: LongText | None = None
    """Error message of a failure."""
    execution_precision: Text | None = None
    kv_precision: Text | None = None
    devices_used: Many[Text] = ()
    threads: Count | None = None
    disk_bytes: ByteCount | None = None
    """Size of the model's folder."""
    weight_bytes: ByteCount | None = None
    """Size of the matrix multiplications' constants, which are read for each token."""
    weights: Text | None = None
    """Display name of the weights if the precision is not specific enough: ``INT8 from Q4_1``.
    None otherwise, before the model was converted, and in rows of earlier versions."""
    int4: Int4Weights | None = None
    """How the weights were compressed; None in other precisions, before the model was converted,
    and in rows of earlier versions."""
    rounds: Many[Round] = ()
    figures: Figures | None = None
    """None until a round is complete."""
    quality: Quality | None = None
    imported_at: Time | None = None
    """When it was imported from a file; None if it was measured by this installation."""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """One row of ``sweeps``: a benchmark run, its plan and its process."""

    id: str
    """32 hexadecimal digits."""
    state: SweepState
    plan: Mapping[str, Any]
    """As written by the benchmark; sufficient to resume it."""
    instance: Annotated[Instance, Flat("instance_")]
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
