"""Continuous batching: a thread that steps OpenVINO GenAI's pipeline for several answers.

Each step processes a chunk of every prompt in prefill and generates one token of every other
answer, in one pass over the weights. New answers join between two steps. A long prompt is processed
in chunks, so that it does not stop the other answers.

With speculation there is a second pipeline, which guesses tokens by prompt lookup. GenAI fixes the
number of guesses when a request is added, so an answer stops guessing by being moved: it is
cancelled in one pipeline, and its prompt and tokens are added to the other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from core.runtimes.base import OnToken, PendingAnswer, StampedId
from core.runtimes.spec import SEED_RANGE, Speculation, SpeculationMode, Structure, TokenRequest
from core.runtimes.speculation import AutoSpeculation

if TYPE_CHECKING:
    from openvino_genai import ContinuousBatchingPipeline as Pipeline
    from openvino_genai.py_openvino_genai import GenerationHandle as Handle

logger = logging.getLogger(__name__)

MOST_RECOMPUTED = 128
"""Prompt tokens that may be computed again because they are in the other pipeline's prefix cache.
SmolLM2 reads this many in the time of about ten tokens of an answer."""


GATHER_S = 0.004
"""Wait this long before guessing: an answer that is moved at once has its prompt computed twice."""

BLOCK_TOKENS = 32
"""Tokens of a block of the KV cache on a CPU."""


class PrefixCache:
    """Counts the prompt tokens that GenAI takes from the prefix cache of one model. Thread-safe.

    GenAI does not report the hits of its cache, so this class keeps the token ids of what is in it.
    The cache has the size of the most tokens in use at a time, and overwrites the oldest first.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[int, ...]] = []  # the newest last
        self._capacity = 0
        self._lock = threading.Lock()

    def cached_tokens(self, prompt_ids: Sequence[int]) -> int:
        """Return how many tokens at the beginning of a prompt are in the cache.

        GenAI takes whole blocks, and the last block of a sequence that the prompt continues. At
        least the last token of a prompt is always computed.
        """
        with self._lock:
            return max((_cached(kept, prompt_ids) for kept in self._kept), default=0)

    def keep(self, token_ids: Sequence[int]) -> None:
        """Note that prompt and answer of a request were computed."""
        with self._lock:
            self._capacity = max(self._capacity, len(token_ids))
            self._kept.append(tuple(token_ids[:-1]))  # the last token was not read by the model
            while sum(map(len, self._kept)) > self._capacity:
                del self._kept[0]


def _cached(kept: Sequence[int], prompt_ids: Sequence[int]) -> int:
    pairs = zip(kept, prompt_ids[:-1], strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return common if common == len(kept) else common // BLOCK_TOKENS * BLOCK_TOKENS


class Lane:
    """A pipeline of the model and the answers that run in it."""

    def __init__(
        self,
        pipeline: Pipeline,
        admit: Callable[[TokenRequest], Handle],
        prefix_cache: PrefixCache | None = None,
    ) -> None:
        """
        Args:
            admit: adds a request to the pipeline; called between two steps.
            prefix_cache: counts what is in the pipeline's prefix cache; None if it has none.
        """
        self.pipeline = pipeline
        self.admit = admit
        self.running: dict[BatchedAnswer, Handle] = {}
        self._prefix_cache = prefix_cache

    def cached_tokens(self, request: TokenRequest) -> int | None:
        """Return how many prompt tokens are in the prefix cache; None without one."""
        cache = self._prefix_cache
        return None if cache is None else cache.cached_tokens(request.prompt_ids)

    def keep(self, answer: BatchedAnswer) -> None:
        """Note that the tokens of an answer are in the prefix cache, if it has any."""
        if self._prefix_cache is not None and answer.tokens and not answer.request.echo:
            self._prefix_cache.keep((*answer.request.prompt_ids, *answer.token_ids))

    def flush(self) -> None:
        """Step once more, so that the pipeline frees the memory of cancelled answers."""
        if not self.running and self.pipeline.has_non_finished_requests():
            self.pipeline.step()


class BatchedAnswer(PendingAnswer):
    """One answer in the batch."""

    def __init__(self, request: TokenRequest, on_token: OnToken) -> None:
        super().__init__(request, on_token)
        self.token_ids: list[int] = []
        self.drafts: int | None = None
        """Tokens that are guessed in each step; None in the pipeline without guesses."""
        self.cached_tokens: int | None = None
        """Prompt tokens taken from the prefix cache; None without one."""
        self.steps = 0
        """Steps with guesses."""
        self._interrupt_requested = threading.Event()

    def interrupt(self) -> None:
        """End it before the next step, unless its first token was generated."""
        self._interrupt_requested.set()

    @property
    def tokens(self) -> int:
        """Number of tokens generated so far."""
        return len(self.token_ids)

    @property
    def to_interrupt(self) -> bool:
        """Whether it should be ended before its first token."""
        return self._interrupt_requested.is_set() and not self.tokens

    @property
    def rest(self) -> TokenRequest:
        """Request that continues it after its tokens so far."""
        request, count = self.request, self.tokens
        sampling, options = request.sampling, request.options
        seed = sampling.seed if sampling.seed is None else (sampling.seed + count) % SEED_RANGE[1]
        return replace(
            request,
            prompt_ids=(*request.prompt_ids, *self.token_ids),
            sampling=replace(sampling, max_new_tokens=sampling.max_new_tokens - count, seed=seed),
            options=replace(options, min_tokens=max(0, options.min_tokens - count)),
        )

    def take(self, output: Any) -> bool:
        """Pass the tokens of an output to ``on_token``; return False after the answer's last token.

        Args:
            output: of ``Handle.read``: the tokens of one step.
        """
        token_ids: list[int] = output.generated_ids
        logprobs = self.request.options.logprobs
        found = output.generated_log_probs if logprobs else [None] * len(token_ids)
        now, guessed = time.perf_counter(), self.drafts is not None and self.tokens > 0
        self.steps += guessed
        for at, (token_id, value) in enumerate(zip(token_ids, found, strict=True)):
            drafts = None if self.drafts is None else self.drafts * (guessed and not at)
            cached = None if self.token_ids else self.cached_tokens
            self.token_ids.append(token_id)
            more = self._on_token(StampedId(token_id, now, value, drafts, cached))
            if not more or token_id in self.request.stop_ids:
                return False
            echoed = len(self.request.prompt_ids) if self.request.echo else 0
            if self.tokens >= self.request.sampling.max_new_tokens + echoed:
                return False
        return True


class Stepper:
    """Steps the pipeline in its own thread while there are running answers."""

    def __init__(
        self,
        plain: Lane,
        is_running: Callable[[Handle], bool],
        failure: Callable[[Handle], Exception | None] = lambda _: None,
    ) -> None:
        """
        Args:
            plain: the pipeline without guesses.
            is_running: returns whether more tokens of an answer will follow.
            failure: returns why the pipeline ended an answer early; None if it did not.
        """
        self.auto = AutoSpeculation()
        self._plain: Lane = plain
        self._lookup: Lane | None = None
        self._is_running = is_running
        self._failure = failure
        self._new: deque[BatchedAnswer] = deque()
        self._compiled: set[Structure] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="step batch", daemon=True)
        self._thread.start()

    def add_lookup(self, lane: Lane | None) -> None:
        """Use a pipeline with prompt lookup for the answers that may guess; None: no longer."""
        with self._changed:
            self._lookup = lane

    def add(self, answer: BatchedAnswer) -> None:
        """Add an answer to the batch before the next step; returns immediately."""
        with self._changed:
            self._new.append(answer)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; call only when no answer is running."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        del self._plain, self._lookup

    # The following methods run in the thread.

    @property
    def _lanes(self) -> list[Lane]:
        return [self._plain, self._lookup] if self._lookup is not None else [self._plain]

    @property
    def _running(self) -> list[tuple[Lane, BatchedAnswer, Handle]]:
        return [(lane, *each) for lane in self._lanes for each in lane.running.items()]

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._step()
            except Exception as error:  # raised in every waiting caller
                logger.exception("A step of the batch failed")
                self._fail(error)

    def _wait_for_work(self) -> bool:
        """Return True when there is work, False when the stepper is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._new or self._running)
            return not self._closed

    def _step(self) -> None:
        self._admit_new()
        running = self._running
        for lane, answer, handle in running:
            if answer.to_interrupt:
                answer.interrupted = True
                self._end(lane, answer, handle)
        for lane in self._lanes:
            if lane.running:
                lane.pipeline.step()
        for lane, answer, handle in running:
            if not answer.interrupted:
                self._deliver(lane, answer, handle)
        for lane in self._lanes:
            lane.flush()

    def _admit_new(self) -> None:
        if not self._new:
            return
        while self._new and not self._must_wait(self._new[0]):
            answer = self._new.popleft()
            lane = self._choose(answer)
            answer.cached_tokens = lane.cached_tokens(answer.request)
            self._admit(lane, answer, answer.request)
        if len(running := self._running) > 1:
            for lane, answer, handle in running:
                if answer.request.speculation.mode is SpeculationMode.AUTO:
                    self._stop_guessing(lane, answer, handle)

    def _choose(self, answer: BatchedAnswer) -> Lane:
        """Return where an answer runs, and set its number of guesses."""
        request, lookup = answer.request, self._lookup
        match request.speculation.mode:
            case SpeculationMode.ON if lookup is not None:
                answer.drafts = request.speculation.tokens
            case SpeculationMode.AUTO if lookup and not self._running and not self._new:
                cached = self._plain.cached_tokens(request) or 0
                if cached - (lookup.cached_tokens(request) or 0) <= MOST_RECOMPUTED:
                    answer.drafts = self.auto.drafts_for(request) or None
                    if (answer.drafts or 0) > 1 and self._others_arrive():
                        answer.drafts = None
        if (lookup := self._lookup) is None:  # may have been removed while it waited
            answer.drafts = None
        return self._plain if lookup is None or answer.drafts is None else lookup

    def _others_arrive(self) -> bool:
        """Wait a moment for answers that were requested together with this one."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._new), GATHER_S)

    def _admit(self, lane: Lane, answer: BatchedAnswer, request: TokenRequest) -> None:
        if answer.drafts is not None:
            used = Speculation(SpeculationMode.ON, answer.drafts, request.speculation.ngram)
            request = replace(request, speculation=used)
        try:
            lane.running[answer] = lane.admit(request)
        except Exception as error:  # noqa: BLE001 - raised in this answer's caller
            answer.error = error
            answer.ended.set()

    def _stop_guessing(self, lane: Lane, answer: BatchedAnswer, handle: Handle) -> None:
        """Move an answer to the pipeline without guesses."""
        if lane is self._plain:
            return
        lane.keep(answer)
        del lane.running[answer]
        handle.cancel()
        answer.drafts = None
        self._admit(self._plain, answer, answer.rest)

    def _must_wait(self, answer: BatchedAnswer) -> bool:
        """Return whether an answer has to wait until the batch is empty.

        GenAI compiles a structure in the step of the first token. If that fails, it can neither
        drop this answer nor continue the others. The first answer with a structure therefore runs
        alone until its first token.
        """
        running = [each for _, each, _ in self._running]
        return bool(running) and any(map(self._has_new_structure, (answer, *running)))

    def _has_new_structure(self, answer: BatchedAnswer) -> bool:
        structure = answer.request.options.structure
        return structure is not None and structure not in self._compiled

    def _deliver(self, lane: Lane, answer: BatchedAnswer, handle: Handle) -> None:
        # Read the status before the last tokens: none can follow after that.
        running = self._is_running(handle)
        try:
            while handle.can_read():
                for output in handle.read().values():
                    if answer.request.options.structure is not None:
                        self._compiled.add(answer.request.options.structure)
                    if not answer.take(output):
                        self._end(lane, answer, handle)
                        return
        except Exception as error:  # noqa: BLE001 - raised again in the answer's caller
            answer.error = error
            running = False
        if not running:
            answer.error = answer.error or self._failure(handle)
            self._end(lane, answer, handle)
        elif answer.drafts is not None and not self._pays(answer):
            self._note(answer)
            self._stop_guessing(lane, answer, handle)

    def _pays(self, answer: BatchedAnswer) -> bool:
        if answer.request.speculation.mode is not SpeculationMode.AUTO or answer.drafts is None:
            return True
        length = len(answer.request.prompt_ids) + answer.tokens
        return self.auto.pays(answer.drafts, answer.steps, answer.tokens - 1, length)

    def _note(self, answer: BatchedAnswer) -> None:
        if answer.drafts is not None and answer.request.speculation.mode is SpeculationMode.AUTO:
            self.auto.note(answer.request, answer.drafts, answer.steps, answer.tokens - 1)

    def _end(self, lane: Lane, answer: BatchedAnswer, handle: Handle) -> None:
        if self._is_running(handle):
            handle.cancel()
        self._note(answer)
        lane.keep(answer)
        del lane.running[answer]
        answer.ended.set()

    def _fail(self, error: Exception) -> None:
        for lane, answer, handle in self._running:
            answer.error = error
            self._end(lane, answer, handle)
        for lane in self._lanes:
            with suppress(RuntimeError):
                lane.flush()
