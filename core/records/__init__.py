"""What is remembered: every answer, whatever became of it, every vote and measurement, and who
may sign in.

The row of an answer is written when it starts and completed when it ends, so that a crash leaves
a trace. Every failure of the database is a :class:`core.errors.RecordsError`: an answer in flight
logs it and goes on.
"""

from core.records.account_values import (
    GUEST,
    Account,
    AccountSummary,
    ApiKey,
    Deleted,
    Invitation,
    Role,
    Session,
)
from core.records.accounts import AccountStore
from core.records.api_keys import KeyStore
from core.records.database import Database
from core.records.fast_runs import FigureRow, RunRow
from core.records.instance import Instance, current_instance
from core.records.measurement_values import Measurement, MeasurementState, SweepRecord, SweepState
from core.records.measurements import MeasurementStore
from core.records.runs import RunStore
from core.records.values import (
    DataVersion,
    Origin,
    RunRecord,
    RunResult,
    RunStart,
    RunState,
    RunsVersion,
)
from core.records.vote_values import (
    CompareMode,
    PairVotes,
    Subject,
    Verdict,
    Vote,
    VoteRecord,
)
from core.records.votes import VoteStore

__all__ = [
    "GUEST",
    "Account",
    "AccountStore",
    "AccountSummary",
    "ApiKey",
    "CompareMode",
    "DataVersion",
    "Database",
    "Deleted",
    "FigureRow",
    "Instance",
    "Invitation",
    "KeyStore",
    "Measurement",
    "MeasurementState",
    "MeasurementStore",
    "Origin",
    "PairVotes",
    "Role",
    "RunRecord",
    "RunResult",
    "RunRow",
    "RunStart",
    "RunState",
    "RunStore",
    "RunsVersion",
    "Session",
    "Subject",
    "SweepRecord",
    "SweepState",
    "Verdict",
    "Vote",
    "VoteRecord",
    "VoteStore",
    "current_instance",
]
