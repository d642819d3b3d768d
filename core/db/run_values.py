"""What a run is: the values that go into the ``runs`` table and come out of it.

A field's name is its column's name. What was asked for is known when the run starts
(:class:`RunStart`); what it turned out to be, when it ends (:class:`RunResult`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from core.db.account_values import GUEST
from core.db.processes import Instance


class Origin(StrEnum):
    """The page or command that asked for the answer."""

    INSTRUCT = "instruct"
    COMPARE = "compare"
    CLI = "cli"
    API = "api"
    BENCHMARK = "benchmark"


class RunState(StrEnum):
    """How far a run got."""

    RUNNING = "running"
    DONE = "done"
    """It ended, well or not: ``stop_reason`` and ``error`` say how."""
    INTERRUPTED = "interrupted"
    """Its process ended before it did."""


class DataVersion(NamedTuple):
    """What a table holds, as far as a cache must know: unequal once it was written to."""

    count: int
    newest: datetime | None
    """The latest change; None where there is nothing."""


class RunsVersion(NamedTuple):
    """The same of the runs, where a deletion and a run that begins or ends must not make up for
    each other."""

    count: int
    done: int
    """Of them, those that have ended."""
    last_start: datetime | None
    last_end: datetime | None


def utc_now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """What is known when an answer starts: who asked what of which model, and where.

    Texts may hold anything; characters that a database cannot keep (lone surrogates, NUL) are
    stored as U+FFFD. Integers are at most 64 bits wide.
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
    model: str
    """Its key for programs; in rows of earlier versions that, its folder, or its name in the
    store."""
    title: str
    source: str
    """Where the weights came from: hub id, local folder, embedded."""
    random_weights: bool = False
    precision: str
    """Weight precision."""
    weights: str | None = None
    """What the weights are, where their precision does not say it all: ``INT8 from Q4_1``."""
    device: str
    """Device asked for."""
    runtime: str
    hints: Mapping[str, Any] = field(default_factory=dict)
    """OpenVINO properties set on purpose."""
    versions: Mapping[str, str]
    """Library name to version."""
    host_name: str
    host_cpu: str
    host_os: str
    owner: str = GUEST
    """Id of the account that asked, or :data:`core.db.account_values.GUEST`."""
    session: str | None = None
    """Opaque id of the browser session."""
    started_at: datetime = field(default_factory=utc_now)
    """UTC; a time with another zone is converted, one without is refused."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What came out of an answer, as ``DESIGN.md`` defines the figures; None where unknown.

    A figure that is not a finite number is stored as None.
    """

    text: str
    stop_reason: str
    """End of text, stop marker, length, cancelled, timeout or error."""
    error: str | None = None
    """The sentence that the person was shown."""
    execution_precision: str | None = None
    kv_precision: str | None = None
    devices_used: tuple[str, ...] = ()
    """``EXECUTION_DEVICES`` of the compiled model."""
    threads: int | None = None
    contended: bool | None = None
    """Whether anything else was generating at the time."""
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
    """What the two figures cover, such as the growth over load and warm-up."""
    token_times_ms: tuple[float, ...] | None = None
    """Time of each new token since the start of work; stored to the microsecond."""
    ended_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True)
class RunRecord:
    """One row of ``runs``."""

    id: str
    """32 hexadecimal digits."""
    state: RunState
    instance: Instance
    start: RunStart
    result: RunResult | None
    """None while the run is running, and for ever where it was interrupted."""

    def flat(self) -> dict[str, Any]:
        """All columns by name, for tables and exports; a run without a result has None there."""
        row: dict[str, Any] = {"id": self.id, "state": self.state}
        row.update({f"instance_{f.name}": getattr(self.instance, f.name) for f in fields(Instance)})
        row.update({name: getattr(self.start, name) for name in START_COLUMNS})
        row.update({name: getattr(self.result, name, None) for name in RESULT_COLUMNS})
        return row


START_COLUMNS = tuple(f.name for f in fields(RunStart))
RESULT_COLUMNS = tuple(f.name for f in fields(RunResult))
