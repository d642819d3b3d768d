"""Scripted models and a function that starts jobs on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from core.catalogue import Precision
from core.db import Origin
from core.errors import BadRequestError, PaddockError
from core.inference.job import Job, JobObserver
from core.inference.request import GenerationRequest, User
from core.runtimes.spec import ModelSpec, SamplingSettings
from tests.builders import tiny_tokenizer
from tests.fakes import FakeCores, FakeHandle, FakeModel, Script
from tests.waiting import PATIENCE_S

USER = User("ada", "lane of ada", "a session")
GREEDY = SamplingSettings(greedy=True, max_new_tokens=50)


def spec(name: str, precision: Precision = Precision.INT8, device: str = "CPU") -> ModelSpec:
    return ModelSpec(name, precision, device)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


class Held:
    """A script that yields a token per ``let``, and all others after ``open``."""

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids = tuple(ids)
        self._let = threading.Semaphore(0)
        self._free = threading.Event()
        self.begun = threading.Event()

    def __call__(self, request: object) -> Iterable[int]:
        self.begun.set()
        for token_id in self._ids:
            if not self._free.is_set():
                assert self._let.acquire(timeout=PATIENCE_S), "the test did not release a token"
            yield token_id

    def let(self, count: int) -> None:
        for _ in range(count):
            self._let.release()

    def open(self) -> None:
        self._free.set()
        self._let.release()


@dataclass
class Repeats:
    """Answers started for their timings only."""

    started: list[str] = field(default_factory=list)
    requests: list[GenerationRequest] = field(default_factory=list)
    failure: Exception | None = None


class Stable:
    """Scripted models by name, and what :class:`core.compare.match.Match` uses of an engine."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.handles: dict[str, FakeHandle] = {}
        self.started: list[str] = []
        """Names in the order of their starts."""
        self.failures: dict[str, Exception] = {}
        self.observers: dict[str, JobObserver] = {}
        self.repeats = Repeats()
        self.most_characters = 1000

    def add(self, name: str, script: Script | Held | str) -> FakeModel:
        """Add a model with this script, or that answers with this text."""
        if isinstance(script, str):
            ids = self.tokenizer(script, add_special_tokens=False)["input_ids"]
            said = [*ids, 0]
            script = lambda request: said  # noqa: E731
        self.handles[name] = FakeHandle(FakeModel(self.tokenizer, script))
        return self.handles[name].model

    def hold(self, name: str, count: int = 20) -> Held:
        """Add a model whose tokens are released by the test."""
        held = Held([40] * count)
        self.add(name, held)
        return held

    def check_size(self, request: GenerationRequest) -> None:
        """See :meth:`core.inference.engine.Engine.check_size`."""
        if request.characters > self.most_characters:
            raise BadRequestError("The request is too long.")

    def handle(self, spec: ModelSpec) -> str:
        """Return the name instead of a handle: there may be no such model."""
        return spec.model

    @contextmanager
    def lease(self, spec: ModelSpec, *_: object) -> Iterator[None]:
        """Do nothing: the models are loaded."""
        yield None

    def answer(
        self,
        name: str,
        request: GenerationRequest,
        *,
        origin: Origin,
        user: User,
        recorded: bool = True,
    ) -> Job:
        """See :meth:`core.inference.engine.Engine.answer`."""
        assert (origin, user) == (Origin.COMPARE, USER)
        failure = self.failures.get(name) if recorded else self.repeats.failure
        (self.started if recorded else self.repeats.started).append(name)
        if not recorded:
            self.repeats.requests.append(request)
        if failure is not None:
            raise failure
        handle = self.handles[name]
        observers = [self.observers[name]] if name in self.observers else []
        return Job(
            handle, request, handle.scheduler, timeout_s=PATIENCE_S, observers=observers
        ).start()


@pytest.fixture(autouse=True)
def _near_cores(cores: FakeCores) -> None:
    """Measurements are not marked because of this machine's host."""


@pytest.fixture
def stable(tokenizer: Any) -> Stable:
    return Stable(tokenizer)


class OutOfOrder(PaddockError):
    """An error raised by a test."""


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        from tests.builders import tiny_checkpoint

        return tiny_checkpoint("gpt_neox", tmp_path / "tiny")

    return make
