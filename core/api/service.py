"""Who asks and who answers, as far as the protocol needs to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection

from core.inference.answer import Answer
from core.inference.job import Phase
from core.inference.request import GenerationRequest
from core.runtimes.spec import MAX_NEW_TOKENS_RANGE, SamplingSettings


@dataclass(frozen=True)
class Caller:
    """The person on whose behalf a program asks."""

    owner: str
    """Whose the answers are."""
    lane: str
    """By whom answers take turns and are limited."""
    manages: bool = False


@dataclass(frozen=True)
class ModelCard:
    """A model that can answer now."""

    id: str
    title: str
    created: int
    """Seconds since 1970."""
    owned_by: str
    positions: int | None = None
    """Longest sequence in tokens, prompt and answer together."""


@dataclass(frozen=True)
class Limits:
    """The most that may be asked for."""

    max_new_tokens: int = MAX_NEW_TOKENS_RANGE[1]
    max_characters: int = 200_000


class Running(Protocol):
    """An answer under way; :class:`core.inference.job.Job` is one."""

    @property
    def id(self) -> str: ...

    @property
    def phase(self) -> Phase: ...

    @property
    def done(self) -> bool: ...

    @property
    def answer(self) -> Answer | None: ...

    def watch(self, changed: Callable[[], None]) -> None: ...

    def read(self, start: int) -> tuple[list[str], int]: ...

    def cancel(self) -> None: ...


class Answering(Protocol):
    """Lists models and starts answers; called in threads."""

    @property
    def limits(self) -> Limits:
        """The most that may be asked for."""
        ...

    def models(self) -> Sequence[ModelCard]:
        """Those that can answer now.

        Raises:
            PaddockError: they cannot be listed.
        """
        ...

    def find(self, name: str) -> ModelCard:
        """The model of a name, whether it is listed or not.

        Raises:
            UnknownModelError: there is none.
        """
        ...

    def sampling(self, name: str) -> SamplingSettings:
        """What the model of a name answers with where a request says nothing else; of a name that
        means none, anything."""
        ...

    def start(self, name: str, request: GenerationRequest, caller: Caller) -> Running:
        """Start an answer; returns at once.

        Raises:
            PaddockError: it cannot be; nothing was started.
        """
        ...


class Admission(Protocol):
    """Tells who asks; called in threads."""

    def __call__(self, connection: HTTPConnection) -> Caller:
        """
        Raises:
            ApiError: they may not.
        """
        ...
