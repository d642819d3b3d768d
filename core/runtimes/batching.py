"""Continuous batching: a thread that steps OpenVINO GenAI's pipeline for several answers.

Each step processes a chunk of every prompt in prefill and generates one token of every other
answer, in one pass over the weights. New answers join between two steps. A long prompt is processed
in chunks, so that it does not stop the other answers.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from core.runtimes.base import OnToken
from core.runtimes.spec import TokenRequest

logger = logging.getLogger(__name__)


class Handle(Protocol):
    """The part of ``openvino_genai.GenerationHandle`` used here."""

    def can_read(self) -> bool: ...

    def read(self) -> dict[int, Any]: ...

    def get_status(self) -> Any: ...

    def cancel(self) -> None: ...


class Pipeline(Protocol):
    """The part of ``openvino_genai.ContinuousBatchingPipeline`` used here."""

    def step(self) -> None: ...

    def has_non_finished_requests(self) -> bool: ...


class BatchedAnswer:
    """One answer in the batch; its caller waits for :attr:`ended`."""

    def __init__(self, request: TokenRequest, on_token: OnToken) -> None:
        self.request = request
        self.ended = threading.Event()
        self.error: Exception | None = None
        """Exception raised by the runtime or by ``on_token``."""
        self.interrupted = False
        """Whether :meth:`interrupt` ended it before its first token."""
        self.tokens = 0
        self._on_token = on_token
        self._interrupt_requested = threading.Event()

    def interrupt(self) -> None:
        """End it before the next step, unless its first token was generated."""
        self._interrupt_requested.set()

    @property
    def to_interrupt(self) -> bool:
        """Whether it should be ended before its first token."""
        return self._interrupt_requested.is_set() and not self.tokens

    def take(self, token_ids: list[int]) -> bool:
        """Pass tokens to ``on_token``; return False after the answer's last token."""
        for token_id in token_ids:
            self.tokens += 1
            more = self._on_token(token_id)
            if not more or token_id in self.request.stop_ids:
                return False
            if self.tokens >= self.request.sampling.max_new_tokens:
                return False
        return True


class Stepper:
    """Steps the pipeline in its own thread while there are running answers."""

    def __init__(
        self,
        pipeline: Pipeline,
        admit: Callable[[TokenRequest], Handle],
        is_running: Callable[[Handle], bool],
    ) -> None:
        """
        Args:
            admit: adds a request to the pipeline; called between two steps.
            is_running: returns whether more tokens of an answer will follow.
        """
        self._pipeline: Pipeline | None = pipeline
        self._admit = admit
        self._is_running = is_running
        self._new: deque[BatchedAnswer] = deque()
        self._running: dict[BatchedAnswer, Handle] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="step batch", daemon=True)
        self._thread.start()

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
        self._pipeline = None

    # The following methods run in the thread.

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
        assert self._pipeline is not None, "the thread ends before the pipeline is released"
        self._admit_new()
        for answer, handle in list(self._running.items()):
            if answer.to_interrupt:
                answer.interrupted = True
                self._end(answer, handle)
        if self._running:
            self._pipeline.step()
        for answer, handle in list(self._running.items()):
            self._deliver(answer, handle)
        if not self._running:
            self._flush()

    def _admit_new(self) -> None:
        while self._new:
            answer = self._new.popleft()
            try:
                self._running[answer] = self._admit(answer.request)
            except Exception as error:  # noqa: BLE001 - raised in this answer's caller
                answer.error = error
                answer.ended.set()

    def _deliver(self, answer: BatchedAnswer, handle: Handle) -> None:
        # Read the status before the last tokens: none can follow after that.
        running = self._is_running(handle)
        try:
            while handle.can_read():
                for output in handle.read().values():
                    if not answer.take(output.generated_ids):
                        self._end(answer, handle)
                        return
        except Exception as error:  # noqa: BLE001 - raised again in the answer's caller
            answer.error = error
            running = False
        if not running:
            self._end(answer, handle)

    def _end(self, answer: BatchedAnswer, handle: Handle) -> None:
        if self._is_running(handle):
            handle.cancel()
        del self._running[answer]
        answer.ended.set()

    def _flush(self) -> None:
        """Step once more, so that the pipeline frees the memory of cancelled answers."""
        assert self._pipeline is not None, "the thread ends before the pipeline is released"
        if self._pipeline.has_non_finished_requests():
            self._pipeline.step()

    def _fail(self, error: Exception) -> None:
        for answer, handle in list(self._running.items()):
            answer.error = error
            self._end(answer, handle)
