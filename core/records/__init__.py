"""What is remembered: one row for every answer, whatever became of it.

Rows are written when an answer starts and completed when it ends, so that a crash leaves a
trace. Every failure of the database is a :class:`core.errors.RecordsError`: an answer in flight
logs it and goes on.
"""

from core.records.database import Database
from core.records.instance import Instance, current_instance
from core.records.runs import RunStore
from core.records.values import Origin, RunRecord, RunResult, RunStart, RunState

__all__ = [
    "Database",
    "Instance",
    "Origin",
    "RunRecord",
    "RunResult",
    "RunStart",
    "RunState",
    "RunStore",
    "current_instance",
]
