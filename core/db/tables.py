"""The database tables of this version of Paddock.

A column of the same name belongs to each field of the dataclasses that are stored in a table; what
a field's type does not say is added here. New databases are created from these tables; those of
earlier versions are changed by ``migrations/versions``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)
from sqlalchemy.schema import SchemaItem

from core.db.account_values import Account, ApiKey, Holder, Invitation, Session
from core.db.columns import (
    CleanText,
    EnumText,
    Figure,
    JsonText,
    MillisecondsText,
    NamesText,
    UtcTime,
)
from core.db.measurement_values import Measurement, SweepRecord
from core.db.processes import Instance
from core.db.rows import columns_of
from core.db.run_values import (
    ConversationSummary,
    EvaluationRow,
    ExchangeRow,
    RunRecord,
    RunRow,
    TestSetSummary,
)
from core.db.vote_values import Vote

metadata = MetaData()

_TYPES = {str: CleanText, int: Integer, float: Figure, bool: Boolean, datetime: UtcTime}


def _columns(kind: type, prefix: str = "") -> Iterator[Column[Any]]:
    """Yield the columns of a dataclass: JSON for types that no column has, 64 bits for bytes."""
    for name, of, optional in columns_of(kind, prefix):
        if name == "id":
            yield _id()
            continue
        column_type: Any = _TYPES.get(of, JsonText) if isinstance(of, type) else JsonText
        if isinstance(of, type) and issubclass(of, StrEnum):
            column_type = EnumText(of)
        elif of is int and name.endswith("_bytes"):
            column_type = BigInteger
        yield Column(name, column_type, nullable=optional)


def _table(name: str, kind: type, *items: SchemaItem) -> Table:
    """Return a table with the columns of a dataclass; given ones of the same name replace them."""
    given = {item.name for item in items if isinstance(item, Column)}
    columns = (column for column in _columns(kind) if column.name not in given)
    return Table(name, metadata, *columns, *items)


def _id() -> Column[str]:
    return Column("id", String(32), primary_key=True)


def _parent(table: str, column: str, parent: str, **options: Any) -> Column[str]:
    """Return a column with the id of a row with which this table's rows are deleted."""
    key = ForeignKey(f"{parent}.id", name=f"fk_{table}_{column}", ondelete="CASCADE")
    return Column(column, String(32), key, nullable=False, **options)


runs = _table(
    "runs",
    RunRecord,
    Column("owner", CleanText),
    Column("seed", BigInteger),
    Column("devices_used", NamesText),
    Column("token_times_ms", MillisecondsText),
    Index("ix_runs_started_at", "started_at"),
    Index("ix_runs_model", "model", "started_at"),
    Index("ix_runs_precision", "precision", "started_at"),
    Index("ix_runs_device", "device", "started_at"),
    Index("ix_runs_session", "session", "started_at"),
    Index("ix_runs_owner", "owner", "started_at"),
    Index("ix_runs_state", "state"),
    Index("ix_runs_ended_at", "ended_at"),
)

CHART_COLUMNS = RunRow._fields
"""Columns of ``runs`` that charts use."""
_CHART_FILTERS = ("state", "started_at", "session", "owner")
_chart_index = Index(
    "ix_runs_chart",
    *(runs.c[name] for name in _CHART_FILTERS),
    *(runs.c[name] for name in CHART_COLUMNS if name not in _CHART_FILTERS),
).ddl_if(dialect="sqlite")
"""A covering index for charts, so that SQLite does not read the texts and token times of each run:
it reads a tenth of the bytes. PostgreSQL stores long values separately anyway, and its index
entries must be short."""

votes = _table(
    "votes",
    Vote,
    _id(),
    Column("comparison", String(64), nullable=False),
    Column("owner", CleanText),
    *(
        Column(f"{side}_{name}", CleanText, nullable=False)
        for side in ("left", "right")
        for name in ("precision", "device", "runtime")
    ),
    Column("left_run", String(32)),
    Column("right_run", String(32)),
    Index("ix_votes_comparison", "comparison", unique=True),
    Index("ix_votes_created_at", "created_at"),
    Index("ix_votes_session", "session", "created_at"),
    Index("ix_votes_owner", "owner", "created_at"),
)
"""``left_run`` and ``right_run`` are not foreign keys: a vote is kept if its run was not recorded
or is deleted. ``id`` stays the same when a vote is changed."""

sweeps = _table(
    "sweeps",
    SweepRecord,
    Column("saved_at", UtcTime, nullable=False),
    Index("ix_sweeps_created_at", "created_at"),
    Index("ix_sweeps_state", "state"),
)
"""Benchmark runs. ``saved_at`` is the time of the latest write."""

measurements = _table(
    "measurements",
    Measurement,
    Column("sweep", String(32), nullable=False),
    Column("position", Integer, nullable=False),
    Column("saved_at", UtcTime, nullable=False),
    Column("rounds", JsonText, nullable=False),
    Index("ix_measurements_sweep", "sweep", "position"),
    Index("ix_measurements_created_at", "created_at"),
    Index("ix_measurements_saved_at", "saved_at"),
    Index("ix_measurements_state", "state"),
)
"""``sweep`` is not a foreign key: an imported measurement belongs to another machine's benchmark
run. ``rounds`` is the last column, so that the others can be read without it."""

accounts = _table(
    "accounts",
    Account,
    Column("device_key", String(64), nullable=False),
    Index("ix_accounts_key", "key", unique=True),
    Index("ix_accounts_look", "look", unique=True),
    Index("ix_accounts_subject", "subject", unique=True),
)
"""``owner`` of ``runs`` and ``votes`` is an account id or ``guest``; it is not a foreign key,
because those tables are older."""

sessions = _table(
    "sessions",
    Session,
    Column("token_hash", String(64), nullable=False),
    _parent("sessions", "account", "accounts"),
    Index("ix_sessions_token_hash", "token_hash", unique=True),
    Index("ix_sessions_account", "account", "created_at"),
    Index("ix_sessions_expires_at", "expires_at"),
    Index("ix_sessions_seen_at", "seen_at"),
)

invitations = _table(
    "invitations",
    Invitation,
    Column("code_hash", String(64), nullable=False),
    _parent("invitations", "made_by", "accounts"),
    Index("ix_invitations_code_hash", "code_hash", unique=True),
    Index("ix_invitations_made_by", "made_by"),
    Index("ix_invitations_expires_at", "expires_at"),
)

api_keys = _table(
    "api_keys",
    ApiKey,
    Column("key_hash", String(64), nullable=False),
    _parent("api_keys", "account", "accounts"),
    Index("ix_api_keys_key_hash", "key_hash", unique=True),
    Index("ix_api_keys_account", "account", "created_at"),
)

preferences = Table(
    "preferences",
    metadata,
    _parent("preferences", "account", "accounts", primary_key=True),
    Column("choices", JsonText, nullable=False),
    Column("saved_at", UtcTime, nullable=False),
)
"""Page settings of a user: names and values as in links."""

conversations = _table(
    "conversations",
    ConversationSummary,
    *_columns(Holder),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_conversations_owner", "owner", "browser", "changed_at"),
)
"""``browser`` distinguishes guests, who share one owner: the SHA-256 of a cookie. It is empty for
accounts."""

exchanges = _table(
    "exchanges",
    ExchangeRow,
    _parent("exchanges", "conversation", "conversations"),
    Column("run", String(32)),
    Index("ix_exchanges_conversation", "conversation", "asked_at"),
)
"""Instructions and answers of conversations. ``answer`` is empty until the answer has ended, and
stays empty if the server was stopped before; ``text`` then has its beginning. ``run`` is not a
foreign key: an answer is kept if its run is deleted."""

test_sets = _table(
    "test_sets",
    TestSetSummary,
    *_columns(Holder),
    Column("content", JsonText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_test_sets_owner", "owner", "browser", "changed_at"),
)
"""``browser``: see ``conversations``. ``size`` is the number of cases in ``content``."""

evaluations = _table(
    "evaluations",
    EvaluationRow,
    *_columns(Holder),
    *_columns(Instance, "instance_"),
    Column("test_set", String(32)),
    Column("saved_at", UtcTime, nullable=False),
    Index("ix_evaluations_owner", "owner", "browser", "created_at"),
    Index("ix_evaluations_state", "state"),
)
"""Runs of test sets. ``plan`` has the cases, so that a run does not change with its set, which is
not a foreign key."""

evaluation_results = Table(
    "evaluation_results",
    metadata,
    _parent("evaluation_results", "run", "evaluations", primary_key=True),
    Column("candidate", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("result", JsonText, nullable=False),
)
"""``candidate`` and ``number`` are indices in the run's plan."""
