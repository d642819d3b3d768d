"""The database tables of this version of Paddock.

``migrations/versions`` creates them; a test compares the two.
"""

from __future__ import annotations

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

from core.db.account_values import Role
from core.db.columns import (
    CleanText,
    EnumText,
    Figure,
    JsonText,
    MillisecondsText,
    NamesText,
    UtcTime,
)
from core.db.measurement_values import MeasurementState, SweepState
from core.db.run_values import EvaluationState, Origin, RunRow, RunState
from core.db.vote_values import CompareMode, Verdict

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("state", EnumText(RunState), nullable=False),
    Column("instance_host", CleanText, nullable=False),
    Column("instance_pid", Integer, nullable=False),
    Column("instance_started", Figure, nullable=False),
    Column("owner", CleanText),
    Column("session", CleanText),
    Column("origin", EnumText(Origin), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("instruction", CleanText, nullable=False),
    Column("context", CleanText, nullable=False),
    Column("prompt_format", CleanText, nullable=False),
    Column("temperature", Figure, nullable=False),
    Column("top_p", Figure, nullable=False),
    Column("top_k", Integer, nullable=False),
    Column("repetition_penalty", Figure, nullable=False),
    Column("max_new_tokens", Integer, nullable=False),
    Column("greedy", Boolean, nullable=False),
    Column("seed", BigInteger),
    Column("model", CleanText, nullable=False),
    Column("title", CleanText, nullable=False),
    Column("source", CleanText, nullable=False),
    Column("random_weights", Boolean, nullable=False),
    Column("precision", CleanText, nullable=False),
    Column("execution_precision", CleanText),
    Column("kv_precision", CleanText),
    Column("device", CleanText, nullable=False),
    Column("devices_used", NamesText),
    Column("runtime", CleanText, nullable=False),
    Column("threads", Integer),
    Column("hints", JsonText, nullable=False),
    Column("versions", JsonText, nullable=False),
    Column("host_name", CleanText, nullable=False),
    Column("host_cpu", CleanText, nullable=False),
    Column("host_os", CleanText, nullable=False),
    Column("contended", Boolean),
    Column("text", CleanText),
    Column("prompt_tokens", Integer),
    Column("new_tokens", Integer),
    Column("queue_ms", Figure),
    Column("ttft_ms", Figure),
    Column("tpot_ms", Figure),
    Column("decode_tokens_per_s", Figure),
    Column("end_to_end_tokens_per_s", Figure),
    Column("prefill_tokens_per_s", Figure),
    Column("total_ms", Figure),
    Column("load_s", Figure),
    Column("memory_private_bytes", BigInteger),
    Column("memory_file_backed_bytes", BigInteger),
    Column("memory_scope", CleanText),
    Column("stop_reason", CleanText),
    Column("error", CleanText),
    Column("token_times_ms", MillisecondsText),
    Column("weights", CleanText),
    Column("cached_tokens", Integer),
    Column("options", JsonText, nullable=False, server_default="{}"),
    Column("speculation", CleanText, nullable=False, server_default="off"),
    Column("draft_tokens", Integer),
    Column("accepted_tokens", Integer),
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

votes = Table(
    "votes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("comparison", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("owner", CleanText),
    Column("session", CleanText),
    Column("left_model", CleanText, nullable=False),
    Column("left_title", CleanText, nullable=False),
    Column("left_precision", CleanText, nullable=False),
    Column("left_device", CleanText, nullable=False),
    Column("left_runtime", CleanText, nullable=False),
    Column("left_run", String(32)),
    Column("right_model", CleanText, nullable=False),
    Column("right_title", CleanText, nullable=False),
    Column("right_precision", CleanText, nullable=False),
    Column("right_device", CleanText, nullable=False),
    Column("right_runtime", CleanText, nullable=False),
    Column("right_run", String(32)),
    Column("verdict", EnumText(Verdict), nullable=False),
    Column("comment", CleanText),
    Column("blind", Boolean, nullable=False),
    Column("mode", EnumText(CompareMode), nullable=False),
    Column("left_weights", CleanText),
    Column("right_weights", CleanText),
    Index("ix_votes_comparison", "comparison", unique=True),
    Index("ix_votes_created_at", "created_at"),
    Index("ix_votes_session", "session", "created_at"),
    Index("ix_votes_owner", "owner", "created_at"),
)
"""``left_run`` and ``right_run`` are not foreign keys: a vote is kept if its run was not recorded
or is deleted."""

sweeps = Table(
    "sweeps",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("state", EnumText(SweepState), nullable=False),
    Column("plan", JsonText, nullable=False),
    Column("instance_host", CleanText, nullable=False),
    Column("instance_pid", Integer, nullable=False),
    Column("instance_started", Figure, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("saved_at", UtcTime, nullable=False),
    Index("ix_sweeps_created_at", "created_at"),
    Index("ix_sweeps_state", "state"),
)
"""Benchmark runs. ``saved_at`` is the time of the latest write."""

measurements = Table(
    "measurements",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("sweep", String(32), nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", EnumText(MeasurementState), nullable=False),
    Column("model", CleanText, nullable=False),
    Column("title", CleanText, nullable=False),
    Column("source", CleanText, nullable=False),
    Column("random_weights", Boolean, nullable=False),
    Column("precision", CleanText, nullable=False),
    Column("device", CleanText, nullable=False),
    Column("runtime", CleanText, nullable=False),
    Column("hints", JsonText, nullable=False),
    Column("speculation", CleanText, nullable=False, server_default="off"),
    Column("prompt_tokens", Integer, nullable=False),
    Column("new_tokens", Integer, nullable=False),
    Column("repeats", Integer, nullable=False),
    Column("host_name", CleanText, nullable=False),
    Column("host_cpu", CleanText, nullable=False),
    Column("host_os", CleanText, nullable=False),
    Column("host_cores", Integer, nullable=False),
    Column("host_memory_bytes", BigInteger, nullable=False),
    Column("host_bandwidth_bytes_per_s", Figure),
    Column("versions", JsonText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("imported_at", UtcTime),
    Column("saved_at", UtcTime, nullable=False),
    Column("error", CleanText),
    Column("execution_precision", CleanText),
    Column("kv_precision", CleanText),
    Column("devices_used", JsonText, nullable=False),
    Column("threads", Integer),
    Column("disk_bytes", BigInteger),
    Column("weight_bytes", BigInteger),
    Column("weights", CleanText),
    Column("int4", JsonText),
    Column("decode_tokens_per_s", Figure),
    Column("contended", Boolean),
    Column("figures", JsonText),
    Column("quality", JsonText),
    Column("rounds", JsonText, nullable=False),
    Index("ix_measurements_sweep", "sweep", "position"),
    Index("ix_measurements_created_at", "created_at"),
    Index("ix_measurements_saved_at", "saved_at"),
    Index("ix_measurements_state", "state"),
)
"""``sweep`` is not a foreign key: an imported measurement belongs to another machine's benchmark
run. ``decode_tokens_per_s`` and ``contended`` are copies from ``figures``, for SQL. ``rounds`` is
the last column, so that the others can be read without it."""

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", CleanText, nullable=False),
    Column("key", CleanText, nullable=False),
    Column("look", CleanText, nullable=False),
    Column("password_hash", CleanText, nullable=False),
    Column("device_key", String(64), nullable=False),
    Column("role", EnumText(Role), nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("password_changed_at", UtcTime, nullable=False),
    Column("signed_in_at", UtcTime),
    Column("subject", CleanText),
    Index("ix_accounts_key", "key", unique=True),
    Index("ix_accounts_look", "look", unique=True),
    Index("ix_accounts_subject", "subject", unique=True),
)
"""``name`` is as the user writes it, ``key`` is the normalised name, and ``look`` is the name with
similar-looking characters unified; key and look are unique. ``subject`` identifies the user at an
OIDC provider, if any. ``owner`` of ``runs`` and ``votes`` is an account id or ``guest``; it is not
a foreign key, because those tables are older."""

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("token_hash", String(64), nullable=False),
    Column(
        "account",
        String(32),
        ForeignKey("accounts.id", name="fk_sessions_account", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("created_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("agent", CleanText, nullable=False),
    Index("ix_sessions_token_hash", "token_hash", unique=True),
    Index("ix_sessions_account", "account", "created_at"),
    Index("ix_sessions_expires_at", "expires_at"),
    Index("ix_sessions_seen_at", "seen_at"),
)
"""``id`` identifies a session in lists and cannot be used to sign in. Of the token, only the
SHA-256 is stored."""

invitations = Table(
    "invitations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("code_hash", String(64), nullable=False),
    Column(
        "made_by",
        String(32),
        ForeignKey("accounts.id", name="fk_invitations_made_by", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("uses", Integer, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Index("ix_invitations_code_hash", "code_hash", unique=True),
    Index("ix_invitations_made_by", "made_by"),
    Index("ix_invitations_expires_at", "expires_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key_hash", String(64), nullable=False),
    Column(
        "account",
        String(32),
        ForeignKey("accounts.id", name="fk_api_keys_account", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("name", CleanText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
    Column("expires_at", UtcTime),
    Index("ix_api_keys_key_hash", "key_hash", unique=True),
    Index("ix_api_keys_account", "account", "created_at"),
)
"""Of the key, only the SHA-256 is stored."""

preferences = Table(
    "preferences",
    metadata,
    Column(
        "account",
        String(32),
        ForeignKey("accounts.id", name="fk_preferences_account", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("choices", JsonText, nullable=False),
    Column("saved_at", UtcTime, nullable=False),
)
"""Page settings of a user: names and values as in links."""

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", CleanText, nullable=False),
    Column("browser", CleanText, nullable=False),
    Column("title", CleanText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    Index("ix_conversations_owner", "owner", "browser", "changed_at"),
)
"""``browser`` distinguishes guests, who share one owner: the SHA-256 of a cookie. It is empty for
accounts."""

exchanges = Table(
    "exchanges",
    metadata,
    Column("id", String(32), primary_key=True),
    Column(
        "conversation",
        String(32),
        ForeignKey("conversations.id", name="fk_exchanges_conversation", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("asked_at", UtcTime, nullable=False),
    Column("run", String(32)),
    Column("instruction", CleanText, nullable=False),
    Column("context", CleanText, nullable=False),
    Column("text", CleanText),
    Column("request", JsonText, nullable=False),
    Column("answer", JsonText),
    Index("ix_exchanges_conversation", "conversation", "asked_at"),
)
"""Instructions and answers of conversations. ``answer`` is empty until the answer has ended, and
stays empty if the server was stopped before; ``text`` then has its beginning. ``run`` is not a
foreign key: an answer is kept if its run is deleted."""

test_sets = Table(
    "test_sets",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", CleanText, nullable=False),
    Column("browser", CleanText, nullable=False),
    Column("name", CleanText, nullable=False),
    Column("size", Integer, nullable=False),
    Column("content", JsonText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    Index("ix_test_sets_owner", "owner", "browser", "changed_at"),
)
"""``browser``: see ``conversations``. ``size`` is the number of cases in ``content``."""

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", CleanText, nullable=False),
    Column("browser", CleanText, nullable=False),
    Column("test_set", String(32)),
    Column("name", CleanText, nullable=False),
    Column("state", EnumText(EvaluationState), nullable=False),
    Column("instance_host", CleanText, nullable=False),
    Column("instance_pid", Integer, nullable=False),
    Column("instance_started", Figure, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("saved_at", UtcTime, nullable=False),
    Column("plan", JsonText, nullable=False),
    Index("ix_evaluations_owner", "owner", "browser", "created_at"),
    Index("ix_evaluations_state", "state"),
)
"""Runs of test sets. ``plan`` has the cases, so that a run does not change with its set, which is
not a foreign key."""

evaluation_results = Table(
    "evaluation_results",
    metadata,
    Column(
        "run",
        String(32),
        ForeignKey("evaluations.id", name="fk_evaluation_results_run", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("candidate", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("result", JsonText, nullable=False),
)
"""``candidate`` and ``number`` are indices in the run's plan."""
