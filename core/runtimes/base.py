"""Interfaces of runtimes and loaded models; each runtime has its own module in this package."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from core.hardware.devices import ProcessMemory
from core.runtimes.spec import ModelSpec, TokenRequest

OnToken = Callable[[int], bool]
"""Called with each new token id as soon as it is generated; returning False ends the generation."""


class StampedId(int):
    """A token id with the time when it was generated, possibly in another process."""

    stamp_s: float
    """``time.perf_counter()`` in seconds, which all processes of a machine share."""
    log_probability: float | None
    """Natural logarithm of the model's probability of this token, before temperature, penalties and
    structure; None unless it was requested."""
    step_drafts: int | None
    """Tokens that were guessed in the step that generated it, on the first token of the step; 0 on
    the others; None in a step without speculation. A step ends with a token of the model, the
    others are guessed tokens that it accepted. The tokens of a step have the same time."""
    cached_tokens: int | None
    """Prompt tokens taken from the prefix cache, on the first token; None without one."""

    def __new__(
        cls,
        token_id: int,
        stamp_s: float,
        log_probability: float | None = None,
        step_drafts: int | None = None,
        cached_tokens: int | None = None,
    ) -> StampedId:
        """Create the id with what is known of it."""
        stamped = super().__new__(cls, token_id)
        stamped.stamp_s, stamped.log_probability = stamp_s, log_probability
        stamped.step_drafts, stamped.cached_tokens = step_drafts, cached_tokens
        return stamped


@dataclass(frozen=True)
class Conditions:
    """Conditions under which a model runs, read from the compiled model, not from the request."""

    execution_precision: str | None
    kv_cache_precision: str | None
    devices_used: tuple[str, ...]
    """``EXECUTION_DEVICES`` of the compiled model."""
    threads: int | None
    hints: Mapping[str, Any] = field(default_factory=dict)
    """OpenVINO properties it was compiled with."""
    runtime: str | None = None
    """Name of the runtime that actually runs it, if that is not the requested one."""
    note: str | None = None
    """A sentence for users about how it runs, such as why another runtime was used."""
    host: str | None = None
    """Host and port of the server that runs it; None if it runs in this process or its child."""
    shared_host: str | None = None
    """Where it competes for compute: answers with the same value affect each other's timings.
    None: this machine."""

    @property
    def on_cpu_alone(self) -> bool:
        """Whether it runs on the CPU only. AUTO puts devices still compiling in brackets."""
        return {name.strip("()") for name in self.devices_used} == {"CPU"}


class PendingAnswer:
    """One answer that another thread generates; its caller waits for it."""

    def __init__(self, request: TokenRequest, on_token: OnToken) -> None:
        self.request = request
        self.ended = threading.Event()
        self.interrupted = False
        """Whether it was interrupted before its first token."""
        self.error: Exception | None = None
        """Exception raised by the runtime or by ``on_token``."""
        self._on_token = on_token


class LoadedModel(ABC):
    """A model in memory that runs up to :attr:`at_once` generations, each in its own thread."""

    tokenizer: Any
    """A ``transformers`` tokenizer, or a :class:`core.runtimes.tokenizer.PlainTokenizer`."""
    end_ids: frozenset[int]
    """End-of-text ids, from the model's generation configuration."""
    positions: int | None
    """Context length in tokens, prompt and answer together; None if it is unlimited."""
    conditions: Conditions
    at_once: int = 1
    """Number of concurrent generations: 1, or more if the runtime batches them."""
    takes_options: bool = False
    """Whether it supports :class:`core.runtimes.spec.GenAIOptions`."""
    alive: bool = True
    """False after its own process, if it has one, has ended; every answer then fails."""

    @abstractmethod
    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """Generate until a stop id, the maximum length, or ``on_token`` ends it.

        Raises:
            InterruptedGeneration: :meth:`interrupt` ended it before its first token.
            BadRequestError: the requested structure cannot be used.
            GenerationError: the runtime failed.
        """

    @abstractmethod
    def interrupt(self, request: TokenRequest) -> None:
        """Cancel the prefill of this request object; the model stays usable.

        Can be called from any thread; does nothing if the request is not in prefill.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the memory. The model cannot be used afterwards."""

    def growth(self) -> ProcessMemory:
        """Return the memory growth of its own process, if it has one, over load and warm-up.

        Raises:
            GenerationError: the process has ended.
        """
        return ProcessMemory(0, 0, 0)


class Runtime(Protocol):
    """A way to run models."""

    def prepare(self, folder: Path | None = None) -> None:
        """Import the libraries that :meth:`load` needs, which takes seconds.

        Args:
            folder: of the model to load, if it is known; some models need more libraries.
        """
        ...

    def load(self, folder: Path, spec: ModelSpec) -> LoadedModel:
        """Load and compile the converted model in ``folder``.

        Raises:
            CorruptModelError: its files cannot be read.
            GenerationError: the device cannot run it.
        """
        ...


class InterruptedGeneration(Exception):
    """A running generation was interrupted on request; never shown to users."""
