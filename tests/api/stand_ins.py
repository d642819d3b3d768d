"""A model service without a model, and the API in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from core.api.app import Api
from core.api.service import ModelCard
from core.errors import PaddockError, UnknownModelError
from core.inference.answer import Answer, StopReason
from core.inference.job import Phase
from core.inference.request import GenerationRequest, User
from core.inference.timing import Timings
from core.inference.work import LogProbability
from core.runtimes.spec import SamplingSettings
from core.settings import Settings

MODEL = "fake"
PIECES = ("One", " two", "", " three.")


class StandInAnswer:
    """A :class:`core.inference.job.Job` whose pieces are released by the test."""

    def __init__(
        self,
        pieces: Sequence[str] = PIECES,
        reason: StopReason = StopReason.END_OF_TEXT,
        error: PaddockError | None = None,
    ) -> None:
        self.id = "0" * 32
        self.phase = Phase.PREPARING
        self.answer: Answer | None = None
        self.cancelled = threading.Event()
        self.thoughts: list[str] = []
        self.logprobs = False
        self.taken = 0
        """Number of token ids that were read, after their texts."""
        self._left = list(pieces)
        self._out: list[str] = []
        self._reason, self._error = reason, error
        self._watchers: list[Callable[[], None]] = []

    @property
    def done(self) -> bool:
        return self.answer is not None

    def watch(self, changed: Callable[[], None]) -> None:
        self._watchers.append(changed)
        if self.done:
            changed()

    def read(self, start: int) -> tuple[list[str], int]:
        return self._out[start:], len(self._out)

    def read_thoughts(self, start: int) -> tuple[list[str], int]:
        found = self.thoughts if self._out else []
        return found[start:], len(found)

    def read_token_ids(self, start: int) -> tuple[list[int], int]:
        found = list(range(len(self._out)))
        self.taken = len(found)
        return found[start:], len(found)

    def read_log_probabilities(self, start: int) -> tuple[list[LogProbability], int]:
        found = [LogProbability(text, -0.5) for text in self._out] if self.logprobs else []
        return found[start:], len(found)

    def cancel(self) -> None:
        self.cancelled.set()

    def release(self, count: int) -> None:
        """Release this many pieces."""
        self.phase = Phase.ANSWERING
        self._out += self._left[:count]
        del self._left[:count]
        self._tell()

    def finish(self) -> None:
        """Release the remaining pieces and end the answer."""
        self._out += self._left
        self.answer = Answer(
            text="".join(self._out),
            token_ids=tuple(range(len(self._out))),
            token_times_ms=(),
            stop_reason=StopReason.ERROR if self._error else self._reason,
            seed=None,
            timings=Timings(0.0, 1.0, 1.0, 4.0, prompt_tokens=7, new_tokens=len(self._out)),
            error=self._error,
        )
        self.phase = Phase.DONE
        self._tell()

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()


class StandIn:
    """A :class:`core.api.service.ModelService` with one model and a fixed answer."""

    def __init__(self, make: Callable[[], StandInAnswer] = StandInAnswer, *, at_once: bool = True):
        self.asked: list[tuple[GenerationRequest, User]] = []
        self.answers: list[StandInAnswer] = []
        self.refusal: Exception | None = None
        """Raised when an answer is started."""
        self.counted: list[tuple[str, str, int]] = []
        self.make, self._at_once = make, at_once
        self.settings = Settings()

    def models(self) -> list[ModelCard]:
        return [self.find(MODEL)]

    def find(self, name: str) -> ModelCard:
        if name != MODEL:
            raise UnknownModelError(f"There is no model {name!r} here.")
        return ModelCard(MODEL, "A stand-in", 0, "nobody", 100)

    def sampling(self, name: str) -> SamplingSettings:
        return SamplingSettings(temperature=0.3) if name == MODEL else SamplingSettings()

    def start(self, name: str, request: GenerationRequest, user: User) -> StandInAnswer:
        self.find(name)
        request.validated()
        if self.refusal is not None:
            raise self.refusal
        self.asked.append((request, user))
        self.answers.append(self.make())
        self.answers[-1].logprobs = request.options.logprobs
        if self._at_once:
            self.answers[-1].finish()
        return self.answers[-1]

    def app(self, admit: Callable[[Any], User] | None = None) -> Starlette:
        """An application with the API; by default every caller is allowed."""
        api = Api(
            lambda: self,
            admit or (lambda connection: User("someone", "lane")),
            count=lambda *what: self.counted.append(what),
        )
        return Starlette(routes=[Route("/v1/{rest:path}", api)])

    def client(self, **options: Any) -> TestClient:
        """A client of :meth:`app`, which raises exceptions of the application."""
        return TestClient(self.app(), **options)


def chat(**fields: Any) -> dict[str, Any]:
    """A valid body of ``/v1/chat/completions``."""
    return {"model": MODEL, "messages": [{"role": "user", "content": "Say something."}]} | fields
