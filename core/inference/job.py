"""A running answer: a worker thread that callers can watch, detach from, reattach to or cancel."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from core.errors import GenerationError, PaddockError
from core.inference.answer import Answer, StopReason, Thinking
from core.inference.contention import monitor_for
from core.inference.request import GenerationRequest
from core.inference.scheduler import Scheduler
from core.inference.timing import Timings, measure, time_per_token_s
from core.inference.work import LogProbability, Piece, Work, work_on
from core.runtimes.base import InterruptedGeneration
from core.runtimes.logits import LogitsModel
from core.runtimes.pool import Lease, ModelHandle, OnProgress
from core.runtimes.spec import ModelSpec

logger = logging.getLogger(__name__)

_INTERRUPT_EVERY_S = 0.02

LogitsLease = Callable[
    [ModelSpec, OnProgress, threading.Event], AbstractContextManager[LogitsModel | None]
]
"""See :meth:`core.inference.engine.Engine.logits`."""


class Phase(StrEnum):
    """Phase of an answer."""

    PREPARING = "preparing"
    """The model is converted, loaded or warmed up."""
    QUEUED = "queued"
    PREFILL = "prefill"
    ANSWERING = "answering"
    DONE = "done"


@dataclass(frozen=True)
class Snapshot:
    """State of an answer at one moment."""

    phase: Phase
    message: str
    """Status message, a sentence."""
    fraction: float | None
    """Fraction of the preparation that is done, 0 to 1; None if unknown."""
    place: int
    """Answers ahead in the model's queue."""
    new_tokens: int
    elapsed_s: float
    """Seconds since work started; 0 before."""
    tokens_per_s: float | None
    """Decode rate so far; None before the second token."""
    ttft_ms: float | None = None
    """Time to first token; None before it."""
    thinking: bool = False
    """Whether the newest token belongs to the thoughts."""
    thinking_tokens: int = 0
    thinking_s: float = 0.0
    """Seconds from the first token of the thoughts to the latest one."""


class JobObserver:
    """Callbacks for the start and end of an answer; this base class does nothing."""

    run_id: str | None = None
    """Id of the row in the run table, for observers that write one."""

    def started(self, job: Job) -> None:
        """Called after the request was validated, before it waits in the queue."""

    def ended(self, job: Job, answer: Answer) -> None:
        """Called after :meth:`started` when the answer has ended, in the worker thread."""


class Job:
    """Runs one request on one model in its own thread.

    :meth:`snapshot` and :meth:`read` never block, and the worker never waits for a watcher: poll
    them, or register a callback with :meth:`watch`.
    """

    def __init__(
        self,
        handle: ModelHandle,
        request: GenerationRequest,
        scheduler: Scheduler,
        *,
        timeout_s: float,
        observers: Sequence[JobObserver] = (),
        user: str | None = None,
        logits: LogitsLease | None = None,
    ) -> None:
        """
        Args:
            scheduler: the answer enters its user's queue now, and its model's queue later.
            timeout_s: seconds of work after which the answer ends with ``timeout``.
            observers: their methods are called at start and end.
            user: the user whose limits apply; None: not limited.
            logits: leases the model that returns the log probabilities of alternatives.

        Raises:
            BadRequestError: the request is invalid; nothing was started.
            TooManyAnswersError: the user has reached the limit; nothing was started.
        """
        self.id = uuid.uuid4().hex
        self.spec = handle.spec
        self.request = request.validated()
        self.lease: Lease | None = None
        """The leased model while the answer runs, for observers."""
        self.prompt_format: str | None = None
        self._handle = handle
        self._observers = observers
        self._scheduler, self._user = scheduler, user
        self._timeout_s = timeout_s
        self._cancelled = threading.Event()
        self._done = threading.Event()
        self._phase = Phase.PREPARING
        self._message, self._fraction, self._place = "Getting ready.", None, 0
        self._watchers: tuple[Callable[[], None], ...] = ()
        self._chunks: list[str] = []
        self._ids: list[int] = []
        self._stamps: list[float] = []
        self._thoughts: list[str] = []
        self._log_probabilities: list[LogProbability] = []
        self._logits = logits
        self._answer_places: list[int] = []
        """Indexes of the ids whose log probabilities were requested."""
        self._thought_stamps: list[float] = []
        self._undecided_stamps: list[float] = []
        self._thinking = False
        self._queued_at = self._started_at = 0.0
        self._work: Work | None = None
        self._answer: Answer | None = None
        self._thread = threading.Thread(target=self._run, name=f"answer {self.id}", daemon=True)
        self._ticket = None if user is None else scheduler.enter_user(user)

    def start(self) -> Job:
        """Start the thread; return immediately."""
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Stop in the queue, in prefill or after the current token; the text so far is kept."""
        self._cancelled.set()

    @property
    def done(self) -> bool:
        """Whether the answer has ended."""
        return self._done.is_set()

    @property
    def answer(self) -> Answer | None:
        """The answer; None until it has ended."""
        return self._answer

    @property
    def run_id(self) -> str | None:
        """Id of its row in the run table, if an observer writes one."""
        return next((each.run_id for each in self._observers if each.run_id), None)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return False on timeout."""
        return self._done.wait(timeout_s)

    def watch(self, changed: Callable[[], None]) -> None:
        """Register a callback for every change: a phase, a piece of text, the end.

        It is called in the worker's threads and must neither block nor raise. If the answer has
        already ended, it is called immediately.
        """
        self._watchers = (*self._watchers, changed)
        if self.done:
            changed()

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self._phase

    def read(self, start: int) -> tuple[list[str], int]:
        """Return the pieces of the answer from index ``start`` on, and the index to continue from.

        A piece is the text of one token, or one chunk of a remote server.
        """
        pieces = self._chunks[start:]
        return pieces, start + len(pieces)

    def read_thoughts(self, start: int) -> tuple[list[str], int]:
        """Like :meth:`read`, for the thoughts of a reasoning model."""
        pieces = self._thoughts[start:]
        return pieces, start + len(pieces)

    def read_token_ids(self, start: int) -> tuple[list[int], int]:
        """Like :meth:`read`, for all token ids, of thoughts and end tokens too."""
        found = self._ids[start:]
        return found, start + len(found)

    def read_log_probabilities(self, start: int) -> tuple[list[LogProbability], int]:
        """Like :meth:`read`, for the tokens of the answer; none unless they were requested."""
        found = self._log_probabilities[start:]
        return found, start + len(found)

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._chunks)

    @property
    def thoughts(self) -> str:
        """The thoughts so far."""
        return "".join(self._thoughts)

    def snapshot(self) -> Snapshot:
        """Return the current state."""
        count, stamps = len(self._stamps), self._stamps
        elapsed = 0.0
        if self._started_at:
            answer = self._answer
            if answer is not None and answer.timings is not None:
                elapsed = answer.timings.total_ms / 1000
            else:
                elapsed = time.perf_counter() - self._started_at
        per_token_s = time_per_token_s(
            self._started_at, stamps[:count], count, received=self.spec.remote
        )
        return Snapshot(
            phase=self._phase,
            message=self._message,
            fraction=self._fraction,
            place=self._place,
            new_tokens=count,
            elapsed_s=elapsed,
            tokens_per_s=1 / per_token_s if per_token_s else None,
            ttft_ms=1000 * (self._stamps[0] - self._started_at) if count else None,
            thinking=self._thinking,
            thinking_tokens=len(self._thought_stamps),
            thinking_s=self._thinking_s(),
        )

    def _thinking_s(self) -> float:
        stamps = self._thought_stamps
        return stamps[-1] - stamps[0] if stamps else 0.0

    # The following methods run in the worker thread.

    def _run(self) -> None:
        answer: Answer
        try:
            answer = self._answer_in_limits()
        except PaddockError as error:
            answer = self._ended(StopReason.ERROR, error=error)
        except Exception as error:
            logger.exception("An answer failed unexpectedly")
            answer = self._ended(StopReason.ERROR, error=_unexpected(error))
        self.lease = self._work = None  # a finished job must not keep the model in memory
        self._answer = answer
        self._phase = Phase.DONE
        self._message = answer.sentence
        self._done.set()
        self._changed()

    def _changed(self) -> None:
        for changed in self._watchers:
            changed()

    def _answer_in_limits(self) -> Answer:
        """Wait until the user's limits allow another answer, then generate it."""
        if self._ticket is None:
            return self._prepare_and_answer()
        with self._scheduler.turn(self._ticket, self._cancelled, self._on_user_place) as my_turn:
            return self._prepare_and_answer() if my_turn else self._ended(StopReason.CANCELLED)

    def _on_user_place(self, place: int) -> None:
        if place:
            noun = "answer" if place == 1 else "answers"
            self._message = f"Waiting for {place} of your other {noun}."

    def _prepare_and_answer(self) -> Answer:
        with self._handle.lease(self._on_progress, self._cancelled) as lease:
            if lease is None:
                return self._ended(StopReason.CANCELLED)
            self.lease = lease
            work = self._work = work_on(lease, self.request)
            self.prompt_format = work.prompt_format
            self._notify(lambda observer: observer.started(self))
            try:
                answer = self._answer_in_turn(lease, work)
            except PaddockError as error:  # the queue is full
                answer = self._ended(StopReason.ERROR, error=error)
            try:
                self._add_alternatives(work)
            except PaddockError as error:
                answer = replace(answer, stop_reason=StopReason.ERROR, error=error)
            self._notify(lambda observer: observer.ended(self, answer))
            return answer

    def _add_alternatives(self, work: Work) -> None:
        """Add the log probabilities of the tokens and their alternatives, if requested.

        Raises:
            PaddockError: they cannot be computed.
        """
        count = self.request.options.top_logprobs
        if not (self._answer_places and self._logits) or self._cancelled.is_set():
            return
        from core.inference.token_probabilities import probabilities  # imports numpy

        with self._logits(self.spec, self._on_progress, self._cancelled) as model:
            if model is None:
                return
            ids = (*work.prompt_ids, *self._ids)
            start = len(work.prompt_ids)
            found = probabilities(model, ids, start, count, self._cancelled)
        self._log_probabilities = [
            LogProbability(token.token.text, token.log_probability, token)
            for token in (found[at] for at in self._answer_places if at < len(found))
        ]

    def _notify(self, call: Callable[[JobObserver], None]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:  # an observer's error must not end the answer
                logger.exception("An observer failed; the answer continues without it")

    def _on_progress(self, message: str, fraction: float | None) -> None:
        self._message, self._fraction = message, fraction

    def _answer_in_turn(self, lease: Lease, work: Work) -> Answer:
        self._queued_at = time.perf_counter()
        self._phase = Phase.QUEUED
        ticket = self._scheduler.enter_model(lease.queue, lease.model.at_once, self._user or "")
        with self._scheduler.turn(ticket, self._cancelled, self._on_place) as my_turn:
            if not my_turn:
                return self._ended(StopReason.CANCELLED)
            with monitor_for(work.conditions.shared_host).running() as activity:
                self._phase, self._message = Phase.PREFILL, "Reading the prompt."
                self._changed()
                reason, error = self._generate(work)
            ended = time.perf_counter()
        return self._ended(reason, error=error, ended_at=ended, contended=activity.contended)

    def _on_place(self, place: int) -> None:
        self._place = place
        if place:
            noun = "answer" if place == 1 else "answers"
            self._message = f"Waiting in queue: {place} {noun} ahead."

    def _generate(self, work: Work) -> tuple[StopReason, PaddockError | None]:
        self._started_at = time.perf_counter()
        error: PaddockError | None = None
        reason: StopReason | None = None
        timed_out = threading.Event()
        try:
            with _watched(work.interrupt, self._cancelled, self._timeout_s, timed_out):
                reason = work.run(self._on_piece)
        except InterruptedGeneration:
            pass
        except PaddockError as failure:
            error = failure
        except Exception as failure:
            logger.exception("The runtime failed unexpectedly")
            error = _unexpected(failure)
        rest = work.close()
        self._chunks.append(rest.text)
        self._thoughts.append(rest.thoughts)
        if error is not None:
            return StopReason.ERROR, error
        if reason is None:
            reason = StopReason.TIMEOUT if timed_out.is_set() else StopReason.CANCELLED
        return reason, None

    def _on_piece(self, token_id: int | None, stamp: float, piece: Piece) -> bool:
        """See :data:`core.inference.work.OnPiece`."""
        self._stamps.append(stamp)
        if token_id is not None:
            self._ids.append(int(token_id))  # without its timestamp
        self._undecided_stamps.append(stamp)
        if piece.thinking:
            self._thought_stamps += self._undecided_stamps
        if piece.thinking or not piece.undecided:
            self._undecided_stamps = []
        if piece.log_probability is not None and self.request.options.top_logprobs:
            self._answer_places.append(len(self._ids) - 1)  # added after the end
        elif piece.log_probability is not None:
            self._log_probabilities.append(piece.log_probability)
        self._thinking = piece.thinking
        self._chunks.append(piece.text)
        self._thoughts.append(piece.thoughts)
        self._phase = Phase.ANSWERING
        self._message = "Thinking." if piece.thinking else "Generating."
        self._changed()
        return not self._cancelled.is_set()

    def _ended(
        self,
        reason: StopReason,
        *,
        error: PaddockError | None = None,
        ended_at: float | None = None,
        contended: bool = False,
    ) -> Answer:
        """
        Args:
            ended_at: when work ended; None if it never started.
        """
        lease, work = self.lease, self._work
        timings: Timings | None = None
        if work is not None and self._queued_at:
            ended = ended_at or time.perf_counter()
            started = ended if ended_at is None else self._started_at
            timings = measure(
                self._queued_at,
                started,
                ended,
                work.prompt_tokens,
                self._stamps,
                work.new_tokens,
                work.cached_tokens,
                work.draft_tokens,
                received=self.spec.remote,
            )
        thinking = None
        if thoughts := self.thoughts.strip():
            thinking = Thinking(thoughts, len(self._thought_stamps), self._thinking_s())
        return Answer(
            text=self.text.rstrip(),
            token_ids=tuple(self._ids),
            token_times_ms=tuple(1000 * (stamp - self._started_at) for stamp in self._stamps),
            stop_reason=reason,
            seed=self.request.sampling.seed,
            prompt_format=self.prompt_format,
            timings=timings,
            conditions=work.conditions if work else lease.model.conditions if lease else None,
            facts=lease.facts if lease else None,
            weights=lease.stored.special_label if lease and lease.stored else None,
            contended=contended,
            thinking=thinking,
            dropped=work.dropped if work else 0,
            error=error,
        )


def _unexpected(error: Exception) -> GenerationError:
    detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return GenerationError(f"Generation failed unexpectedly ({detail}). Try again.")


@contextmanager
def _watched(
    interrupt: Callable[[], None],
    cancelled: threading.Event,
    timeout_s: float,
    timed_out: threading.Event,
) -> Iterator[None]:
    """Interrupt the generation in this block, including prefill, on cancellation or timeout.

    The interrupt is repeated until the generation has ended, because one between two steps of the
    runtime has no effect.

    Args:
        timed_out: set on timeout.
    """
    ended = threading.Event()
    deadline = time.monotonic() + timeout_s

    def watch() -> None:
        while not ended.wait(_INTERRUPT_EVERY_S):
            if time.monotonic() > deadline and not cancelled.is_set():
                timed_out.set()
                cancelled.set()
            if cancelled.is_set():
                with suppress(RuntimeError):  # there is nothing to interrupt between two steps
                    interrupt()

    thread = threading.Thread(target=watch, name="watch answer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
