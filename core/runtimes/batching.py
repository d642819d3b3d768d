"""Several answers of one model at once: a thread that steps OpenVINO GenAI's batch, and who waits.

Each step reads a piece of every prompt that is not read yet and makes one token of every other
answer, in one pass over the weights. New answers join between two steps; a long prompt is read in
pieces, so that it does not stop the others.
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
    """What is used of ``openvino_genai.GenerationHandle``."""

    def can_read(self) -> bool: ...

    def read(self) -> dict[int, Any]: ...

    def get_status(self) -> Any: ...

    def cancel(self) -> None: ...


class Pipeline(Protocol):
    """What is used of ``openvino_genai.ContinuousBatchingPipeline``."""

    def step(self) -> None: ...

    def has_non_finished_requests(self) -> bool: ...


class BatchedAnswer:
    """One answer in the batch; whoever asked for it waits for :attr:`ended`."""

    def __init__(self, request: TokenRequest, on_token: OnToken) -> None:
        self.request = request
        self.ended = threading.Event()
        self.error: Exception | None = None
        """What the runtime, or whoever received the tokens, raised."""
        self.interrupted = False
        """Whether it was ended before its first token, because that was asked for."""
        self.tokens = 0
        self._on_token = on_token
        self._unwanted = threading.Event()

    def interrupt(self) -> None:
        """End it before the next step, if its first token has not come."""
        self._unwanted.set()

    @property
    def unwanted(self) -> bool:
        """Whether it is to be ended before its first token."""
        return self._unwanted.is_set() and not self.tokens

    def take(self, token_ids: list[int]) -> bool:
        """Hand tokens on; False where one of them is the answer's last."""
        for token_id in token_ids:
            self.tokens += 1
            more = self._on_token(token_id)
            if not more or token_id in self.request.stop_ids:
                return False
            if self.tokens >= self.request.sampling.max_new_tokens:
                return False
        return True


class Stepper:
    """Steps the pipeline as long as there is an answer under way, in a thread of its own."""

    def __init__(
        self,
        pipeline: Pipeline,
        admit: Callable[[TokenRequest], Handle],
        is_running: Callable[[Handle], bool],
    ) -> None:
        """
        Args:
            admit: puts a request into the pipeline; called between two steps.
            is_running: whether more tokens of an answer will come.
        """
        self._pipeline: Pipeline | None = pipeline
        self._admit = admit
        self._is_running = is_running
        self._arriving: deque[BatchedAnswer] = deque()
        self._under_way: dict[BatchedAnswer, Handle] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="step batch", daemon=True)
        self._thread.start()

    def add(self, answer: BatchedAnswer) -> None:
        """Take an answer into the batch from the next step on; returns at once."""
        with self._changed:
            self._arriving.append(answer)
            self._changed.notify()

    def close(self) -> None:
        """End the thread; only where nothing is under way."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._pipeline = None

    # What follows runs in the thread.

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._round()
            except Exception as error:  # told to everyone who waits
                logger.exception("A step of the batch failed")
                self._fail(error)

    def _wait_for_work(self) -> bool:
        """True where there is something to do, False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._arriving or self._under_way)
            return not self._closed

    def _round(self) -> None:
        assert self._pipeline is not None, "the thread ends before the pipeline goes"
        self._take_in()
        for answer, handle in list(self._under_way.items()):
            if answer.unwanted:
                answer.interrupted = True
                self._end(answer, handle)
        if self._under_way:
            self._pipeline.step()
        for answer, handle in list(self._under_way.items()):
            self._hand_on(answer, handle)
        if not self._under_way:
            self._flush()

    def _take_in(self) -> None:
        while self._arriving:
            answer = self._arriving.popleft()
            try:
                self._under_way[answer] = self._admit(answer.request)
            except Exception as error:  # noqa: BLE001 - told to whoever asked for this answer
                answer.error = error
                answer.ended.set()

    def _hand_on(self, answer: BatchedAnswer, handle: Handle) -> None:
        # Asked before the last tokens are read: none can come after that.
        running = self._is_running(handle)
        try:
            while handle.can_read():
                for output in handle.read().values():
                    if not answer.take(output.generated_ids):
                        self._end(answer, handle)
                        return
        except Exception as error:  # noqa: BLE001 - raised again where the answer was asked for
            answer.error = error
            running = False
        if not running:
            self._end(answer, handle)

    def _end(self, answer: BatchedAnswer, handle: Handle) -> None:
        if self._is_running(handle):
            handle.cancel()
        del self._under_way[answer]
        answer.ended.set()

    def _flush(self) -> None:
        """Let the pipeline notice what was cancelled, so that its memory is free for the next."""
        assert self._pipeline is not None, "the thread ends before the pipeline goes"
        if self._pipeline.has_non_finished_requests():
            self._pipeline.step()

    def _fail(self, error: Exception) -> None:
        for answer, handle in list(self._under_way.items()):
            answer.error = error
            self._end(answer, handle)
