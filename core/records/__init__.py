"""What is remembered: a row for every answer, whatever became of it, and one for every vote.

The row of an answer is written when it starts and completed when it ends, so that a crash leaves
a trace. Every failure of the database is a :class:`core.errors.RecordsError`: an answer in flight
logs it and goes on.
"""

from core.records.database import Database
from core.records.instance import Instance, current_instance
from core.records.runs import RunStore
from core.records.values import Origin, RunRecord, RunResult, RunStart, RunState
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
    "CompareMode",
    "Database",
    "Instance",
    "Origin",
    "PairVotes",
    "RunRecord",
    "RunResult",
    "RunStart",
    "RunState",
    "RunStore",
    "Subject",
    "Verdict",
    "Vote",
    "VoteRecord",
    "VoteStore",
    "current_instance",
]
