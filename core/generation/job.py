"""One answer in the making: a worker thread that anyone may watch, leave, find again or cancel."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from core.catalogue.prompts import PromptFormat, StopRule, choose_format
from core.errors import GenerationError, PaddockError, PromptTooLongError
from core.generation.activity import MONITOR
from core.generation.answer import Answer, StopReason
from core.generation.request import GenerationRequest
from core.generation.shares import Share
from core.generation.text import StopText, TextDecoder
from core.generation.timing import Timings, measure
from core.runtimes.base import InterruptedGeneration, LoadedModel
from core.runtimes.pool import Lease, ModelHandle
from core.runtimes.spec import TokenRequest

logger = logging.getLogger(__name__)

_INTERRUPT_EVERY_S = 0.02


class Phase(StrEnum):
    """How far an answer is."""

    PREPARING = "preparing"
    """The model is converted, loaded or warmed up."""
    QUEUED = "queued"
    PREFILL = "prefill"
    ANSWERING = "answering"
    DONE = "done"


@dataclass(frozen=True)
class Snapshot:
    """How an answer stands at one moment."""

    phase: Phase
    message: str
    """What is happening, as a sentence."""
    fraction: float | None
    """Share of the preparation that is done, 0 to 1; None where it cannot be known."""
    place: int
    """Answers ahead in the model's line."""
    new_tokens: int
    elapsed_s: float
    """Seconds since work started; 0 before."""
    tokens_per_s: float | None
    """Decode rate so far; None before the second token."""
    ttft_ms: float | None = None
    """Time to first token; None before it."""


class JobObserver:
    """Is told when work on an answer starts and when it has ended; does nothing by itself."""

    run_id: str | None = None
    """Id of the row in the run table, for observers that write one."""

    def started(self, job: Job) -> None:
        """The request was checked and its work begins, in line or at once."""

    def ended(self, job: Job, answer: Answer) -> None:
        """The answer has ended; called after :meth:`started`, in the worker thread."""


class Job:
    """Runs one request on one model in a thread of its own.

    Watching is polling: :meth:`snapshot` and :meth:`read` never block on the worker, and the
    worker never waits for a watcher.
    """

    def __init__(
        self,
        handle: ModelHandle,
        request: GenerationRequest,
        *,
        timeout_s: float,
        observer: JobObserver | None = None,
        share: Share | None = None,
    ) -> None:
        """
        Args:
            timeout_s: seconds of work after which the answer ends with ``timeout``.
            observer: told of start and end.
            share: its place among the answers of the person who asked; None without such limits.

        Raises:
            BadRequestError: the request cannot be used; nothing was started.
        """
        self.id = uuid.uuid4().hex
        self.spec = handle.spec
        self.request = request.validated()
        self.lease: Lease | None = None
        """The leased model while work is under way; kept for observers."""
        self.prompt_format: str | None = None
        self._handle = handle
        self._observer = observer or JobObserver()
        self._share = share
        self._timeout_s = timeout_s
        self._cancelled = threading.Event()
        self._done = threading.Event()
        self._phase = Phase.PREPARING
        self._message, self._fraction, self._place = "Getting ready.", None, 0
        self._chunks: list[str] = []
        self._ids: list[int] = []
        self._stamps: list[float] = []
        self._queued_at = self._started_at = 0.0
        self._answer: Answer | None = None
        self._thread = threading.Thread(target=self._run, name=f"answer {self.id}", daemon=True)

    def start(self) -> Job:
        """Begin; returns at once."""
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Stop: in line, in prefill or after the current token. The text so far is kept."""
        self._cancelled.set()

    @property
    def done(self) -> bool:
        """Whether the answer has ended."""
        return self._done.is_set()

    @property
    def cancelling(self) -> bool:
        """Whether somebody asked for the end and it has not come yet."""
        return self._cancelled.is_set() and not self.done

    @property
    def answer(self) -> Answer | None:
        """The ended answer; None while it is under way."""
        return self._answer

    @property
    def run_id(self) -> str | None:
        """Id of its row in the run table, where its observer writes one."""
        return self._observer.run_id

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False where the time ran out first."""
        return self._done.wait(timeout_s)

    def read(self, start: int) -> tuple[list[str], int]:
        """Pieces of text from the ``start``-th on, and where to go on reading.

        A piece is the text of one token, so that the number of pieces follows the tokens.
        """
        pieces = self._chunks[start:]
        return pieces, start + len(pieces)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._chunks)

    def snapshot(self) -> Snapshot:
        """How it stands now."""
        count = len(self._ids)
        rate, elapsed = None, 0.0
        if self._started_at:
            answer = self._answer
            if answer is not None and answer.timings is not None:
                elapsed = answer.timings.total_ms / 1000
            else:
                elapsed = time.perf_counter() - self._started_at
        if count > 1:
            span = self._stamps[count - 1] - self._stamps[0]
            rate = (count - 1) / span if span > 0 else None
        return Snapshot(
            phase=self._phase,
            message=self._message,
            fraction=self._fraction,
            place=self._place,
            new_tokens=count,
            elapsed_s=elapsed,
            tokens_per_s=rate,
            ttft_ms=1000 * (self._stamps[0] - self._started_at) if count else None,
        )

    # What follows runs in the worker thread.

    def _run(self) -> None:
        answer: Answer
        try:
            answer = self._answer_as_allowed()
        except PaddockError as error:
            answer = self._ended(StopReason.ERROR, error=error)
        except Exception as error:
            logger.exception("An answer failed unexpectedly")
            answer = self._ended(StopReason.ERROR, error=_unexpected(error))
        self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        self.lease = None  # a job that is kept for its text must not keep the model
        self._answer = answer
        self._phase = Phase.DONE
        self._message = answer.error_sentence or answer.stop_reason.sentence
        self._done.set()

    def _answer_as_allowed(self) -> Answer:
        """Wait until the person has room for one more answer, and give it."""
        if self._share is None:
            return self._prepare_and_answer()
        with self._share.turn(self._cancelled, self._on_own_place) as room:
            return self._prepare_and_answer() if room else self._ended(StopReason.CANCELLED)

    def _on_own_place(self, place: int) -> None:
        noun = "answer" if place == 1 else "answers"
        self._message = f"Waiting for {place} {noun} of yours to go first."

    def _prepare_and_answer(self) -> Answer:
        with self._handle.lease(self._on_progress, self._cancelled) as lease:
            if lease is None:
                return self._ended(StopReason.CANCELLED)
            self.lease = lease
            chosen = choose_format(
                lease.stored.key, self.request.prompt_format, lease.model.tokenizer
            )
            self.prompt_format = chosen.name
            ids = self._encode(chosen, lease)
            rule = chosen.stop_rule(lease.model.tokenizer, lease.model.end_ids)
            self._tell(lambda: self._observer.started(self))
            try:
                answer = self._answer_in_turn(lease, rule, ids)
            except PaddockError as error:  # the line is full
                answer = self._ended(StopReason.ERROR, error=error, prompt_tokens=len(ids))
            self._tell(lambda: self._observer.ended(self, answer))
            return answer

    def _tell(self, news: Callable[[], None]) -> None:
        try:
            news()
        except Exception:  # whatever an observer does, it must not cost the answer
            logger.exception("An observer failed; the answer goes on without it")

    def _on_progress(self, message: str, fraction: float | None) -> None:
        self._message, self._fraction = message, fraction

    def _encode(self, chosen: PromptFormat, lease: Lease) -> tuple[int, ...]:
        """Token ids of the prompt.

        Raises:
            PromptTooLongError: with the new tokens asked for it exceeds the model's positions.
        """
        tokenizer = lease.model.tokenizer
        prompt = chosen.build(tokenizer, self.request.instruction, self.request.context)
        encoded = tokenizer(
            prompt.text, add_special_tokens=prompt.add_special_tokens, verbose=False
        )
        ids = tuple(encoded["input_ids"])
        wanted, positions = self.request.sampling.max_new_tokens, lease.model.positions
        if positions is not None and len(ids) + wanted > positions:
            room = positions - len(ids)
            remedy = (
                f"ask for at most {room:,} new tokens or shorten the text"
                if room > 0
                else "shorten the text"
            )
            raise PromptTooLongError(
                f"The prompt has {len(ids):,} tokens and {wanted:,} new ones were asked for, "
                f"together {len(ids) + wanted:,}, but {self.spec.model} has positions for "
                f"{positions:,}; {remedy}."
            )
        return ids

    def _answer_in_turn(self, lease: Lease, rule: StopRule, ids: tuple[int, ...]) -> Answer:
        self._queued_at = time.perf_counter()
        self._phase = Phase.QUEUED
        lane = self._share.lane if self._share else ""
        with lease.turn(self._cancelled, self._on_place, lane=lane) as my_turn:
            if not my_turn:
                return self._ended(StopReason.CANCELLED, prompt_tokens=len(ids))
            with MONITOR.running() as activity:
                self._phase, self._message = Phase.PREFILL, "Reading the prompt."
                reason, error = self._generate(lease.model, rule, ids)
            ended = time.perf_counter()
        return self._ended(
            reason,
            error=error,
            timings=measure(self._queued_at, self._started_at, ended, len(ids), self._stamps),
            contended=activity.contended,
        )

    def _on_place(self, place: int) -> None:
        self._place = place
        if place:
            noun = "answer" if place == 1 else "answers"
            self._message = f"Waiting in line: {place} {noun} ahead."

    def _generate(
        self, model: LoadedModel, rule: StopRule, ids: tuple[int, ...]
    ) -> tuple[StopReason, PaddockError | None]:
        sink = _TokenSink(self, model, rule)
        request = TokenRequest(ids, self.request.sampling, rule.token_ids)
        watch = _Watch(model, request, self._cancelled, self._timeout_s)
        self._started_at = time.perf_counter()
        error: PaddockError | None = None
        try:
            with watch:
                model.generate(request, sink.on_token)
        except InterruptedGeneration:
            pass
        except PaddockError as failure:
            error = failure
        except Exception as failure:
            logger.exception("The runtime failed unexpectedly")
            error = _unexpected(failure)
        sink.close()
        return (StopReason.ERROR if error else self._reason(sink, watch)), error

    def _reason(self, sink: _TokenSink, watch: _Watch) -> StopReason:
        if sink.reason is not None:
            return sink.reason
        if len(self._ids) >= self.request.sampling.max_new_tokens:
            return StopReason.LENGTH
        return StopReason.TIMEOUT if watch.timed_out else StopReason.CANCELLED

    def _ended(
        self,
        reason: StopReason,
        *,
        error: PaddockError | None = None,
        timings: Timings | None = None,
        contended: bool = False,
        prompt_tokens: int = 0,
    ) -> Answer:
        lease = self.lease
        if timings is None and self._queued_at:
            now = time.perf_counter()
            timings = measure(self._queued_at, now, now, prompt_tokens, ())
        return Answer(
            text=self.text.rstrip(),
            token_ids=tuple(self._ids),
            token_times_ms=tuple(1000 * (stamp - self._started_at) for stamp in self._stamps),
            stop_reason=reason,
            seed=self.request.sampling.seed,
            prompt_format=self.prompt_format,
            timings=timings,
            conditions=lease.model.conditions if lease else None,
            facts=lease.facts if lease else None,
            contended=contended,
            error=error,
        )

    def _token(self, token_id: int, stamp: float, text: str) -> None:
        self._stamps.append(stamp)
        self._ids.append(token_id)
        self._chunks.append(text)
        self._phase, self._message = Phase.ANSWERING, "Answering."


def _unexpected(error: Exception) -> GenerationError:
    detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return GenerationError(f"Something failed while the model answered ({detail}); try again.")


class _TokenSink:
    """Receives the runtime's tokens: stamps, decodes, and notices where the answer ends."""

    def __init__(self, job: Job, model: LoadedModel, rule: StopRule) -> None:
        self._job = job
        self._decoder = TextDecoder(model.tokenizer)
        self._stop_text = StopText(rule)
        self._rule = rule
        self.reason: StopReason | None = None

    def on_token(self, token_id: int) -> bool:
        """See :data:`core.runtimes.base.OnToken`."""
        stamp = time.perf_counter()
        if token_id in self._rule.token_ids:
            marker = token_id in self._rule.marker_ids
            self.reason = StopReason.STOP_MARKER if marker else StopReason.END_OF_TEXT
            self._job._token(token_id, stamp, "")
            return False
        self._job._token(token_id, stamp, self._stop_text.feed(self._decoder.feed(token_id)))
        if self._stop_text.stopped:
            self.reason = StopReason.STOP_MARKER
            return False
        return not self._job.cancelling

    def close(self) -> None:
        """Let go of text that was held back as the possible beginning of a stop text."""
        rest = self._stop_text.feed(self._decoder.close()) + self._stop_text.close()
        if rest:
            self._job._chunks.append(rest)


class _Watch:
    """Interrupts a generation, prefill included, when it is cancelled or takes too long.

    It keeps asking until the generation has ended: an interruption that comes between two
    steps of the runtime is lost.
    """

    def __init__(
        self,
        model: LoadedModel,
        request: TokenRequest,
        cancelled: threading.Event,
        timeout_s: float,
    ) -> None:
        self.timed_out = False
        self._model = model
        self._request = request
        self._cancelled = cancelled
        self._deadline = time.monotonic() + timeout_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch answer", daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_INTERRUPT_EVERY_S):
            late = time.monotonic() > self._deadline
            if late and not self._cancelled.is_set():
                self.timed_out = True
                self._cancelled.set()
            if self._cancelled.is_set():
                with suppress(RuntimeError):  # nothing to interrupt between two steps
                    self._model.interrupt(self._request)
