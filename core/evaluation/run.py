"""Runs a test set through its candidates, one candidate after the other, in a thread.

The first answers of a candidate are generated one at a time, for timings that nothing disturbs; the
others are batched. Under exact hints (:meth:`core.runtimes.spec.ExecutionHints.exact`) that does
not change them. Each result is written as soon as it is known, so that a killed process loses only
the answers that were being generated.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from pydantic import ValidationError

from core.db import EvaluationRow, EvaluationState, EvaluationStore, Holder, Origin, RunResult
from core.errors import (
    AccessDeniedError,
    BadRequestError,
    ModelBusyError,
    PaddockError,
    RecordsError,
)
from core.evaluation.cases import Case
from core.evaluation.checks import Outcome, Subject, Verdict, outcome_of, verdict_of
from core.evaluation.plan import Candidate, Plan, Result
from core.inference.answer import Answer, StopReason
from core.inference.engine import Engine
from core.inference.job import Job
from core.inference.likelihood import mean_log_probability
from core.inference.recorder import run_result
from core.inference.request import User
from core.runtimes.pool import ModelHandle

logger = logging.getLogger(__name__)

ALONE = 3
"""Answers of each candidate that are generated one at a time."""
_LOOK_EVERY_S = 0.2
_RECORDED = Result.model_fields.keys() & {field.name for field in fields(RunResult)}
"""Fields of a result that are columns of the run table."""
_LAST_ATTEMPTS = 6
"""Attempts at the end to write what a locked database did not accept; each waits for seconds."""


@dataclass(frozen=True)
class RunProgress:
    """Progress of a run."""

    done: int
    total: int
    message: str
    """A sentence about what happens now."""
    seconds_left: float | None
    """Estimate from the answers of this process; None while unknown."""
    problem: str | None
    """Why results could not be written yet, as a sentence; they are kept in memory."""


class TestRun:
    """One run, in its own thread; thread-safe."""

    __test__ = False  # not a class of tests

    def __init__(
        self,
        run_id: str,
        plan: Plan,
        results: Sequence[Result],
        engine: Engine,
        user: User,
        turn: threading.Lock,
    ) -> None:
        """
        Args:
            results: those of an earlier process; answers that failed are generated again.
            user: whose limits apply.
            turn: held while it runs, so that one run does not unload the models of another.
        """
        self.id, self.plan = run_id, plan
        self._engine, self._user, self._turn = engine, user, turn
        self._results = {(each.candidate, each.case): each for each in results if not each.error}
        self._unsaved: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._message = "Starting."
        self._job: Job | None = None
        self._begun, self._begun_with = 0.0, 0
        self._stop, self._ended = threading.Event(), threading.Event()
        self._stopped_as = EvaluationState.STOPPED
        self.state = EvaluationState.RUNNING

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=f"test run {self.id[:8]}", daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.is_set()

    def stop(self, state: EvaluationState = EvaluationState.STOPPED) -> None:
        """Stop within a token, keeping all results; it can be resumed."""
        self._stopped_as = state
        self._stop.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return False on timeout."""
        return self._ended.wait(timeout_s)

    def results(self) -> tuple[Result, ...]:
        """Return the results so far, by candidate and case."""
        with self._lock:
            return tuple(self._results[key] for key in sorted(self._results))

    def progress(self) -> RunProgress:
        """Return the current progress."""
        with self._lock:
            done = len(self._results)
        fresh, left = done - self._begun_with, None
        if self.running and self._begun and fresh > 0:
            elapsed = time.monotonic() - self._begun
            left = elapsed / fresh * (self.plan.total - done)
        message, job = self._message, self._job
        if job is not None and not job.done and job.snapshot().fraction is not None:
            message = job.snapshot().message  # a conversion or download
        if self.running and self._stop.is_set():
            message = "Stopping."
        return RunProgress(done, self.plan.total, message, left, self._problem)

    # The following methods run in the thread.

    def _run(self) -> None:
        state = EvaluationState.INTERRUPTED
        try:
            self._message = "Waiting for another test run to end."
            while not self._turn.acquire(timeout=_LOOK_EVERY_S):
                if self._stop.is_set():
                    state = self._stopped_as
                    return
            try:
                self._answer_all()
            finally:
                self._turn.release()
            complete = len(self._results) == self.plan.total
            state = EvaluationState.DONE if complete else self._stopped_as
        except Exception as error:  # every run must end with a state
            logger.exception("Test run %s failed unexpectedly", self.id)
            self._problem = (
                f"The run failed unexpectedly ({type(error).__name__}: {error}). Its results are "
                "kept; resume it."
            )
        finally:
            self._finish(state)

    def _finish(self, state: EvaluationState) -> None:
        for _ in range(_LAST_ATTEMPTS):
            try:
                self._save()
                self._engine.evaluations.end(self.id, state)
                break
            except RecordsError as error:
                self._problem = str(error)
        self.state = state
        self._message = {
            EvaluationState.DONE: "All cases are answered.",
            EvaluationState.STOPPED: "Stopped. Its results are kept.",
        }.get(state, "Interrupted. Its results are kept.")
        self._ended.set()

    def _answer_all(self) -> None:
        candidates = self.plan.candidates
        for index, candidate in enumerate(candidates):
            cases = range(len(self.plan.cases))
            missing = [number for number in cases if (index, number) not in self._results]
            if not missing or self._stop.is_set():
                continue
            self._message = f"Candidate {index + 1} of {len(candidates)}: {candidate.label}."
            try:
                handle = self._engine.handle(candidate.exact_spec)
            except PaddockError as error:
                self._fail(index, missing, error)
                continue
            try:
                self._answer_candidate(index, candidate, handle, missing)
            finally:
                later = candidates[index + 1 : index + 2]
                if not later or later[0].exact_spec != candidate.exact_spec:
                    handle.release()

    def _answer_candidate(
        self, index: int, candidate: Candidate, handle: ModelHandle, missing: list[int]
    ) -> None:
        waiting, running = deque(missing), dict[int, Job]()
        at_once = self._engine.settings.max_at_once
        if self._user.lane is not None:
            at_once = min(at_once, self._engine.settings.answers_at_once)
        changed = threading.Event()
        while waiting or running:
            finished = len(missing) - len(waiting) - len(running)
            most = 1 if finished < ALONE else at_once
            while waiting and len(running) < most and not self._stop.is_set():
                number = waiting.popleft()
                try:
                    job = self._start(handle, candidate, self.plan.cases[number])
                except PaddockError as error:
                    self._fail(index, [number], error)
                    continue
                self._job = running[number] = job
                job.watch(changed.set)
            if self._stop.is_set():
                waiting.clear()
                for job in running.values():
                    job.cancel()
            changed.wait(_LOOK_EVERY_S)
            changed.clear()
            for number, job in list(running.items()):
                if not job.done:
                    continue
                del running[number]
                answer = job.answer
                assert answer is not None, "the job has ended"
                if answer.error is not None and answer.conditions is None:
                    # The model cannot be loaded: no other case would be answered.
                    self._fail(index, [number, *waiting], answer.error)
                    waiting.clear()
                elif answer.stop_reason is StopReason.CANCELLED:
                    self._stop.set()  # by us, or because the account was deleted
                else:
                    self._put(self._result(index, number, candidate, handle, answer))

    def _start(self, handle: ModelHandle, candidate: Candidate, case: Case) -> Job:
        try:
            return self._engine.answer(
                handle,
                candidate.request(case),
                origin=Origin.EVALUATION,
                user=self._user,
                recorded=False,
            )
        except AccessDeniedError:
            self._stop.set()
            raise

    def _result(
        self, index: int, number: int, candidate: Candidate, handle: ModelHandle, answer: Answer
    ) -> Result:
        case = self.plan.cases[number]
        outcomes: tuple[Outcome, ...] = ()
        verdict: Verdict | None = Verdict.ERROR
        if answer.error is None:
            request = candidate.request(case)
            subject = Subject(
                answer.text,
                answer.stop_reason,
                case.instruction,
                case.context,
                case.expected,
                lambda: mean_log_probability(
                    handle, request, case.expected, self._engine.scheduler
                ),
            )
            checks = self.plan.checks_of(case)
            outcomes = tuple(outcome_of(check, subject) for check in checks)
            verdict = verdict_of(outcomes)
        recorded, conditions = run_result(answer), answer.conditions
        return Result(
            candidate=index,
            case=number,
            verdict=verdict,
            outcomes=outcomes,
            answer=answer.text,
            private_bytes=recorded.memory_private_bytes,
            file_backed_bytes=recorded.memory_file_backed_bytes,
            **{name: getattr(recorded, name) for name in _RECORDED},
            conditions={
                "execution_precision": recorded.execution_precision,
                "kv_cache_precision": recorded.kv_precision,
                "devices_used": list(recorded.devices_used),
                "runtime": (conditions and conditions.runtime) or candidate.spec.runtime.value,
                "weights": answer.weights,
                "prompt_format": answer.prompt_format,
                "seed": answer.seed,
            },
        )

    def _fail(self, index: int, numbers: Sequence[int], error: Exception) -> None:
        self._put(
            *(
                Result(candidate=index, case=number, verdict=Verdict.ERROR, error=str(error))
                for number in numbers
            )
        )

    def _put(self, *results: Result) -> None:
        with self._lock:
            if not self._begun:  # without the first model's conversion and loading
                self._begun = time.monotonic()
                self._begun_with = len(self._results) + len(results)
            for result in results:
                self._results[result.candidate, result.case] = result
                self._unsaved.add((result.candidate, result.case))
        try:
            self._save()
        except RecordsError as error:
            logger.warning("Results of test run %s are not written yet: %s", self.id, error)
            self._problem = str(error)

    def _save(self) -> None:
        with self._lock:
            found = {key: self._results[key].model_dump(mode="json") for key in self._unsaved}
        if found:
            if not self._engine.evaluations.save_results(self.id, found):
                self._stop.set()  # it was deleted
            self._unsaved -= found.keys()
        self._problem = None


class Evaluations:
    """Runs of this process; they take turns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._runs: dict[str, TestRun] = {}

    def start(self, plan: Plan, holder: Holder, user: User, test_set: str | None = None) -> TestRun:
        """Start a run.

        Args:
            test_set: id of the stored set.

        Raises:
            RecordsError: the database is not writable; nothing was started.
        """
        run_id = uuid.uuid4().hex
        store = self._engine.evaluations
        store.begin(run_id, holder, test_set, plan.name, plan.model_dump(mode="json"))
        return self._add(run_id, plan, (), user)

    def resume(self, run_id: str, holder: Holder, user: User) -> TestRun:
        """Answer what is missing of a run, and again what failed.

        Raises:
            BadRequestError: there is no such run, or an earlier version wrote it.
            ModelBusyError: it is running.
            RecordsError: the database is not writable.
        """
        known = self.find(run_id)
        if known is not None and known.running:
            raise ModelBusyError("This test run is running. Wait until it ends, or stop it.")
        store = self._engine.evaluations
        plan = plan_of(store.resume(run_id, holder))
        return self._add(run_id, plan, results_of(store, run_id), user)

    def find(self, run_id: str) -> TestRun | None:
        """Return a run of this process by its id."""
        return self._runs.get(run_id)

    def close(self) -> None:
        """Interrupt all runs; they can be resumed."""
        for run in list(self._runs.values()):
            run.stop(EvaluationState.INTERRUPTED)

    def _add(self, run_id: str, plan: Plan, results: Sequence[Result], user: User) -> TestRun:
        # A queue of its own: the user's answers on other pages do not wait for the run.
        lane = None if user.lane is None else f"{user.lane} test sets"
        own = replace(user, lane=lane, browser=None)
        run = TestRun(run_id, plan, results, self._engine, own, self._turn)
        with self._lock:
            self._runs = {key: each for key, each in self._runs.items() if each.running}
            self._runs[run_id] = run
        run.start()
        return run


def plan_of(row: EvaluationRow) -> Plan:
    """Return the plan of a stored run.

    Raises:
        BadRequestError: another version of Paddock wrote it.
    """
    try:
        return Plan.model_validate(row.plan)
    except ValidationError as error:
        raise BadRequestError(
            "This test run was written by another version of Paddock. Start it again."
        ) from error


def results_of(store: EvaluationStore, run_id: str) -> tuple[Result, ...]:
    """Return the stored results of a run, without those of another version of Paddock."""
    found = []
    for row in store.results(run_id):
        try:
            found.append(Result.model_validate(row))
        except ValidationError:
            logger.warning("A result of test run %s cannot be read", run_id)
    return tuple(found)
