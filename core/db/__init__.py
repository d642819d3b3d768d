"""The run database: answers, votes, measurements and accounts.

The row of an answer is written when it starts and completed when it ends, so that a crash leaves
a trace. Database failures are raised as :class:`core.errors.RecordsError`; a running answer logs
them and continues.
"""

# ruff: noqa: F401  names for other packages

from core.db.account_values import (
    GUEST,
    Account,
    AccountSummary,
    ApiKey,
    Holder,
    Invitation,
    Role,
    Session,
)
from core.db.accounts import AccountStore
from core.db.conversations import ConversationStore
from core.db.database import Database
from core.db.evaluations import EvaluationStore
from core.db.processes import Instance, current_instance
from core.db.run_values import (
    ConversationSummary,
    EvaluationRow,
    EvaluationState,
    EvaluationSummary,
    ExchangeRow,
    Origin,
    RunRecord,
    RunResult,
    RunRow,
    RunStart,
    RunState,
    TestSetSummary,
)
from core.db.runs import RunStore
from core.db.vote_values import Mode, PairVotes, Subject, Verdict, Vote
from core.db.votes import VoteStore
