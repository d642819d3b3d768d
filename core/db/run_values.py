"""Values of the tables of answers, conversations and test sets, in fields named as their columns.

:class:`RunStart` is known when an answer starts, :class:`RunResult` when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from core.db.account_values import GUEST
from core.db.processes import Instance
from core.db.rows import Flat, to_row


class Origin(StrEnum):
    """The page or command that requested the answer."""

    INSTRUCT = "instruct"
    COMPARE = "compare"
    CLI = "cli"
    API = "api"
    BENCHMARK = "benchmark"
    EVALUATION = "evaluation"


class RunState(StrEnum):
    """State of a run."""

    RUNNING = "running"
    DONE = "done"
    """Finished or failed, see ``stop_reason`` and ``error``."""
    INTERRUPTED = "interrupted"
    """The process ended before the run."""


class EvaluationState(StrEnum):
    """State of a run of a test set."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """A user stopped it; it can be resumed."""
    INTERRUPTED = "interrupted"
    """The process ended before the run; it can be resumed."""


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """What is known when an answer starts: request, model, user and machine.

    Characters in texts that a database cannot store (lone surrogates, NUL) become U+FFFD. Integers
    have at most 64 bits.
    """

    origin: Origin
    instruction: str
    context: str = ""
    prompt_format: str
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    max_new_tokens: int
    greedy: bool
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further settings, by their names in the API: :attr:`core.runtimes.spec.GenAIOptions.used`."""
    speculation: str = "off"
    """:attr:`core.runtimes.spec.Speculation.text`."""
    model: str
    """Key of the model; in rows of earlier versions also its folder, or its name in the store."""
    title: str
    source: str
    """Origin of the weights: Hugging Face id, local folder, embedded."""
    random_weights: bool = False
    precision: str
    """Weight precision."""
    weights: str | None = None
    """What the weights are, where their precision does not say it all: ``INT8 from Q4_1``."""
    device: str
    """Requested device."""
    runtime: str
    hints: Mapping[str, Any] = field(default_factory=dict)
    """OpenVINO properties that were set explicitly."""
    versions: Mapping[str, str]
    """Library name to version."""
    host_name: str
    host_cpu: str
    host_os: str
    owner: str = GUEST
    """Id of the account, or :data:`core.db.account_values.GUEST`."""
    session: str | None = None
    """Opaque id of the browser session."""
    started_at: datetime = field(default_factory=utc_now)
    """UTC; times in other time zones are converted, times without one are rejected."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of an answer, with figures as defined in ``docs/measuring.md``; None where unknown.

    Figures that are not finite numbers are stored as None.
    """

    text: str
    stop_reason: str
    """End of text, stop marker, length, cancelled, timeout or error."""
    error: str | None = None
    """Error message shown to the user."""
    execution_precision: str | None = None
    kv_precision: str | None = None
    devices_used: tuple[str, ...] = ()
    """``EXECUTION_DEVICES`` of the compiled model."""
    threads: int | None = None
    contended: bool | None = None
    """Whether other work ran at the same time."""
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    queue_ms: float | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    decode_tokens_per_s: float | None = None
    end_to_end_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    total_ms: float | None = None
    load_s: float | None = None
    memory_private_bytes: int | None = None
    memory_file_backed_bytes: int | None = None
    memory_scope: str | None = None
    """What the two memory figures cover, such as the growth during load and warm-up."""
    cached_tokens: int | None = None
    """Prompt tokens taken from the prefix cache; None if the model was loaded without one."""
    draft_tokens: int | None = None
    """Tokens guessed by speculation; None if none were."""
    accepted_tokens: int | None = None
    """Guessed tokens that the model accepted; None if none were guessed."""
    token_times_ms: tuple[float, ...] | None = None
    """Time of each new token since processing started; stored in microsecond precision."""
    ended_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True)
class RunRecord:
    """One row of ``runs``."""

    id: str
    """32 hexadecimal digits."""
    state: RunState
    instance: Annotated[Instance, Flat("instance_")]
    start: Annotated[RunStart, Flat()]
    result: Annotated[RunResult | None, Flat()]
    """None while the run is running, or if it was interrupted."""

    def flat(self) -> dict[str, Any]:
        """Return all columns by name, for tables and exports; None for a missing result."""
        return to_row(self)


class RunRow(NamedTuple):
    """Figures and conditions of one finished answer; None where unknown.

    Units and meanings are those of :class:`RunStart` and :class:`RunResult`. The
    memory figures are the growth of a process, as in the application's records.
    """

    id: str
    started_at: datetime
    origin: Origin
    model: str
    title: str
    source: str
    random_weights: bool
    precision: str
    weights: str | None
    device: str
    devices_used: tuple[str, ...]
    runtime: str
    host_name: str
    host_cpu: str
    contended: bool | None
    prompt_tokens: int | None
    new_tokens: int | None
    ttft_ms: float | None
    decode_tokens_per_s: float | None
    prefill_tokens_per_s: float | None
    memory_private_bytes: int | None
    memory_file_backed_bytes: int | None
    load_s: float | None
    execution_precision: str | None
    kv_precision: str | None
    threads: int | None
    stop_reason: str | None
    cached_tokens: int | None = None
    draft_tokens: int | None = None

    @property
    def charted_ttft_ms(self) -> float | None:
        """None if the prefix cache was used: such a prompt was read only in part."""
        return None if self.cached_tokens else self.ttft_ms


@dataclass(frozen=True)
class ConversationSummary:
    """One line in the list of conversations."""

    id: str
    title: str
    changed_at: datetime


@dataclass(frozen=True)
class ExchangeRow:
    """An instruction with its answer, as stored."""

    id: str
    asked_at: datetime
    instruction: str
    context: str
    request: Mapping[str, Any]
    run: str | None = None
    """Id of the row in the run table."""
    text: str | None = None
    """The answer, or what was stored of it so far."""
    answer: Mapping[str, Any] | None = None
    """None until the answer has ended."""


@dataclass(frozen=True)
class TestSetSummary:
    """One line in the list of test sets."""

    id: str
    name: str
    size: int
    """Number of cases."""
    changed_at: datetime


@dataclass(frozen=True)
class EvaluationSummary:
    """One line in the list of runs."""

    id: str
    test_set: str | None
    """Id of the stored set; None if it was a file. The set may have been changed."""
    name: str
    state: EvaluationState
    pinned: bool
    """Whether it is the baseline of its test set."""
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class EvaluationRow(EvaluationSummary):
    """A run of a test set, without its results."""

    plan: Mapping[str, Any]
