"""Interfaces between the API and what identifies callers and generates answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection

from core.inference.job import Job
from core.inference.request import GenerationRequest, User
from core.runtimes.spec import SamplingSettings
from core.settings import Settings


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


class ModelService(Protocol):
    """Lists models and starts answers; called in threads."""

    settings: Settings
    """With the limits of a request."""

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

    def start(self, name: str, request: GenerationRequest, user: User) -> Job:
        """Start an answer and return immediately.

        Raises:
            PaddockError: it cannot be started.
        """
        ...


Authenticate = Callable[[HTTPConnection], User]
"""Returns for whom a program sends a request, or raises an ApiError if it is not allowed; called in
threads."""
