"""Interfaces between the API and what identifies callers and generates answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection

from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import SamplingSettings


@dataclass(frozen=True)
class Caller:
    """The user, or guest, for whom a program sends requests."""

    owner: str
    """Id of the owner of the answers."""
    lane: str
    """Key by which answers are queued fairly and limited."""
    manages: bool = False


@dataclass(frozen=True)
class ModelCard:
    """A model that can answer now."""

    id: str
    title: str
    created: int
    """Unix time in seconds."""
    owned_by: str
    positions: int | None = None
    """Context length in tokens (prompt and answer together)."""


@dataclass(frozen=True)
class Limits:
    """Limits of a request."""

    max_new_tokens: int | None = None
    """None: the context length of the model."""
    max_characters: int = 200_000


class ModelService(Protocol):
    """Lists models and starts answers; called in threads."""

    @property
    def limits(self) -> Limits:
        """Limits of a request."""
        ...

    def models(self) -> Sequence[ModelCard]:
        """Return the models that can answer now.

        Raises:
            PaddockError: they cannot be listed.
        """
        ...

    def find(self, name: str) -> ModelCard:
        """Return the model with this name, listed or not.

        Raises:
            UnknownModelError: there is none.
        """
        ...

    def sampling(self, name: str) -> SamplingSettings:
        """Return a model's default sampling settings; any settings for an unknown name."""
        ...

    def start(self, name: str, request: GenerationRequest, caller: Caller) -> Job:
        """Start an answer and return immediately.

        Raises:
            PaddockError: it cannot be started.
        """
        ...


Authenticate = Callable[[HTTPConnection], Caller]
"""Identifies the caller of a request, or raises an ApiError if it is not allowed; called in
threads."""
