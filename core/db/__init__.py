"""The run database: answers, votes, measurements and accounts.

The row of an answer is written when it starts and completed when it ends, so that a crash leaves
a trace. Database failures are raised as :class:`core.errors.RecordsError`; a running answer logs
them and continues.
"""

from core.db.account_values import (
    GUEST,
    Account,
    AccountSummary,
    ApiKey,
    Deleted,
    Invitation,
    Role,
    Session,
)
from core.db.accounts import AccountStore
from core.db.api_keys import KeyStore
from core.db.database import Database
from core.db.measurement_values import Measurement, MeasurementState, SweepRecord, SweepState
from core.db.measurements import MeasurementStore
from core.db.processes import Instance, current_instance
from core.db.run_columns import FigureRow, RunRow
from core.db.run_values import (
    DataVersion,
    Origin,
    RunRecord,
    RunResult,
    RunStart,
    RunState,
    RunsVersion,
)
from core.db.runs import RunStore
from core.db.vote_values import (
    CompareMode,
    PairVotes,
    Subject,
    Verdict,
    Vote,
    VoteRecord,
)
from core.db.votes import VoteStore

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
