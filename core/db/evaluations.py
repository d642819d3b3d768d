"""Store of test sets, their runs and the results."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, delete, func, select, update

from core.db.account_values import Holder
from core.db.accounts import check_owner
from core.db.conversations import held, held_row, summaries
from core.db.database import Store
from core.db.processes import (
    current_instance,
    instance_of,
    is_alive,
    mark_interrupted,
    this_process,
)
from core.db.rows import from_row, to_row
from core.db.run_values import (
    EvaluationRow,
    EvaluationState,
    EvaluationSummary,
    TestSetSummary,
    utc_now,
)
from core.db.tables import evaluation_results, evaluations, test_sets
from core.errors import BadRequestError, ModelBusyError

LISTED = 50
"""Most test sets in a list."""
LISTED_RUNS = 20
"""Most runs in a list."""


class EvaluationStore(Store):
    """Reads and writes ``test_sets``, ``evaluations`` and ``evaluation_results``.

    What belongs to another holder is treated like what does not exist.
    """

    # Test sets

    def sets(self, holder: Holder) -> list[TestSetSummary]:
        """Return the latest test sets, newest first."""
        statement = summaries(TestSetSummary, test_sets, holder)
        latest = statement.order_by(test_sets.c.changed_at.desc()).limit(LISTED)
        return self.database.all(TestSetSummary, latest)

    def get_set(self, set_id: str, holder: Holder) -> Mapping[str, Any] | None:
        """Return the content of a test set; None if there is none."""
        statement = select(test_sets.c.content).where(held_row(test_sets, set_id, holder))
        return self.database.value(statement)

    def save_set(
        self, set_id: str | None, holder: Holder, name: str, content: Mapping[str, Any], size: int
    ) -> str:
        """Insert a test set, or replace one, and return its id; a deleted one gets a new id."""
        now = utc_now()
        values = {"name": name, "content": content, "size": size, "changed_at": now}
        with self.database.writing() as connection:
            check_owner(connection, holder.owner)
            changed = update(test_sets).where(held_row(test_sets, set_id or "", holder))
            if not connection.execute(changed.values(values)).rowcount:
                set_id = uuid.uuid4().hex
                new = to_row(holder) | {"id": set_id, "created_at": now}
                connection.execute(test_sets.insert().values(values | new))
        assert set_id is not None, "one was found or inserted"
        return set_id

    def delete_set(self, set_id: str, holder: Holder) -> None:
        """Delete a test set with its runs."""
        runs = and_(held(evaluations, holder), evaluations.c.test_set == set_id)
        with self.database.writing() as connection:
            connection.execute(evaluations.delete().where(runs))
            connection.execute(test_sets.delete().where(held_row(test_sets, set_id, holder)))

    # Runs

    def begin(
        self, run_id: str, holder: Holder, test_set: str | None, name: str, plan: Mapping[str, Any]
    ) -> None:
        """Insert a run of this process.

        Args:
            plan: sufficient to resume the run later, whatever becomes of the set.
        """
        now = utc_now()
        values = {
            "id": run_id,
            **to_row(holder),
            "test_set": test_set,
            "name": name,
            "state": EvaluationState.RUNNING,
            "plan": plan,
            "pinned": False,
            "created_at": now,
            "saved_at": now,
            **this_process(),
        }
        with self.database.writing() as connection:
            check_owner(connection, holder.owner)
            connection.execute(evaluations.insert().values(values))

    def resume(self, run_id: str, holder: Holder) -> EvaluationRow:
        """Mark an ended run as running in this process.

        A run of this process whose end could not be written counts as ended.

        Raises:
            BadRequestError: there is no such run.
            ModelBusyError: it is running in another process.
        """
        running = {"state": EvaluationState.RUNNING, "ended_at": None, "saved_at": utc_now()}
        with self.database.writing() as connection:
            this = held_row(evaluations, run_id, holder)
            row = connection.execute(select(evaluations).where(this)).mappings().first()
            if row is None:
                raise BadRequestError("There is no test run with this id. Start a new one.")
            elsewhere = instance_of(row) != current_instance() and is_alive(row, row["saved_at"])
            if row["state"] is EvaluationState.RUNNING and elsewhere:
                raise ModelBusyError(
                    f"This test run is running in process {row['instance_pid']}. Wait until it "
                    "ends, or stop it there."
                )
            connection.execute(update(evaluations).where(this).values(running | this_process()))
        return from_row(EvaluationRow, row)

    def end(self, run_id: str, state: EvaluationState) -> None:
        """Write the end of a run."""
        now = utc_now()
        this = update(evaluations).where(evaluations.c.id == run_id)
        self.database.change(this.values(state=state, ended_at=now, saved_at=now))

    def save_results(
        self, run_id: str, results: Mapping[tuple[int, int], Mapping[str, Any]]
    ) -> bool:
        """Insert or replace results, by the indices of candidate and case, in one transaction.

        Returns:
            False: the run was deleted, and nothing was written.
        """
        this = update(evaluations).where(evaluations.c.id == run_id)
        with self.database.writing() as connection:
            if not connection.execute(this.values(saved_at=utc_now())).rowcount:
                return False
            for (candidate, number), result in results.items():
                key = {"run": run_id, "candidate": candidate, "number": number}
                connection.execute(delete(evaluation_results).filter_by(**key))
                connection.execute(evaluation_results.insert().values(key | {"result": result}))
        return True

    def run(self, run_id: str, holder: Holder) -> EvaluationRow | None:
        """Return a run, or None."""
        this = held_row(evaluations, run_id, holder)
        return self.database.first(EvaluationRow, select(evaluations).where(this))

    def runs(self, holder: Holder, test_set: str | None = None) -> list[EvaluationSummary]:
        """Return the latest runs and all baselines, of one test set or all, newest first."""
        statement = summaries(EvaluationSummary, evaluations, holder)
        if test_set is not None:
            statement = statement.where(evaluations.c.test_set == test_set)
        order = evaluations.c.pinned.desc(), evaluations.c.created_at.desc()
        latest = statement.order_by(*order).limit(LISTED_RUNS)
        found = self.database.all(EvaluationSummary, latest)
        return sorted(found, key=lambda each: each.created_at, reverse=True)

    def results(self, run_id: str) -> list[Mapping[str, Any]]:
        """Return the results of a run, by candidate and case."""
        statement = (
            select(evaluation_results.c.result)
            .where(evaluation_results.c.run == run_id)
            .order_by(evaluation_results.c.candidate, evaluation_results.c.number)
        )
        return [row["result"] for row in self.database.rows(statement)]

    def pin(self, run_id: str, holder: Holder, *, pinned: bool) -> None:
        """Make a run the baseline of its test set instead of any other, or undo that."""
        this = held_row(evaluations, run_id, holder)
        of_set = select(evaluations.c.test_set).where(this).scalar_subquery()
        with self.database.writing() as connection:
            if pinned:
                others = and_(held(evaluations, holder), evaluations.c.test_set == of_set)
                connection.execute(update(evaluations).where(others).values(pinned=False))
            connection.execute(update(evaluations).where(this).values(pinned=pinned))

    def delete_run(self, run_id: str, holder: Holder) -> None:
        """Delete a run with its results."""
        self.database.change(evaluations.delete().where(held_row(evaluations, run_id, holder)))

    def count(self, holder: Holder) -> tuple[int, int]:
        """Return the numbers of test sets and runs of a holder."""
        sets, runs = (
            self.database.value(select(func.count()).select_from(table).where(held(table, holder)))
            for table in (test_sets, evaluations)
        )
        return sets, runs

    def delete_all(self, holder: Holder) -> None:
        """Delete all test sets and runs of a holder."""
        with self.database.writing() as connection:
            for table in (test_sets, evaluations):
                connection.execute(table.delete().where(held(table, holder)))

    def mark_interrupted(self) -> int:
        """Mark running runs whose process has ended, and return their number."""
        return mark_interrupted(self.database, evaluations, "saved_at")
