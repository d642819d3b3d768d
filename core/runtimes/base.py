"""Protocols of runtimes and loaded models; each runtime has its own module in this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from core.hardware.devices import ProcessMemory
from core.runtimes.spec import ModelSpec, TextRequest, TokenRequest

if TYPE_CHECKING:
    import numpy as np

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


class LoadedModel(Protocol):
    """A model in memory that runs up to :attr:`at_once` generations, each in its own thread."""

    tokenizer: Any
    """A ``transformers`` tokenizer, or a :class:`core.runtimes.tokenizer.PlainTokenizer`."""
    end_ids: frozenset[int]
    """End-of-text ids, from the model's generation configuration."""
    positions: int | None
    """Context length in tokens, prompt and answer together; None if it is unlimited."""
    conditions: Conditions
    at_once: int
    """Number of concurrent generations: 1, or more if the runtime batches them."""
    takes_options: bool
    """Whether it supports :class:`core.runtimes.spec.GenAIOptions`."""

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """Generate until a stop id, the maximum length, or ``on_token`` ends it.

        Raises:
            InterruptedGeneration: :meth:`interrupt` ended it before its first token.
            BadRequestError: the requested structure cannot be used.
            GenerationError: the runtime failed.
        """
        ...

    def interrupt(self, request: TokenRequest) -> None:
        """Cancel the prefill of this request object; the model stays usable.

        Can be called from any thread; does nothing if the request is not in prefill.
        """
        ...

    def close(self) -> None:
        """Free the memory. The model cannot be used afterwards."""
        ...


@runtime_checkable
class SubprocessModel(Protocol):
    """What a model that runs in its own process has in addition."""

    @property
    def alive(self) -> bool:
        """Whether the process is running; after its end every answer fails."""
        ...

    def growth(self) -> ProcessMemory:
        """Return the memory growth of the process since before the model was loaded.

        Raises:
            GenerationError: the process has ended.
        """
        ...


OnText = Callable[[str, str], bool]
"""Called with each piece of the answer and of the thoughts as soon as it arrives, one of them or
both empty; returning False ends the generation."""


@dataclass(frozen=True)
class TextEnd:
    """How an answer of a text model ended."""

    length: bool
    """Whether it reached the maximum number of new tokens; otherwise the model ended it."""
    prompt_tokens: int | None
    """As counted by the server; None if it reports no count."""
    new_tokens: int | None
    """As counted by the server; None if it reports no count."""
    conditions: Conditions
    """Conditions of this answer."""
    cached_tokens: int | None = None
    """Prompt tokens from the server's prefix cache; None if it reports no count."""


class TextModel(Protocol):
    """A model on a remote server, which formats the prompt, tokenizes and decodes."""

    conditions: Conditions
    at_once: int
    """Maximum number of concurrent requests."""

    def answer(self, request: TextRequest, on_text: OnText) -> TextEnd:
        """Generate one answer; returns when the model or the maximum length ended it.

        Raises:
            InterruptedGeneration: :meth:`interrupt` or ``on_text`` ended it.
            PaddockError: the server cannot be reached, rejected the request, or failed.
        """
        ...

    def interrupt(self, request: TextRequest) -> None:
        """Cancel this request object in any phase; can be called from any thread."""
        ...


class ScoringModel(LoadedModel, Protocol):
    """A model in memory that also returns the logits of a given text."""

    def scores(self, token_ids: Sequence[int]) -> np.ndarray:
        """Return the logits after each of these tokens, from one forward pass (teacher forcing).

        Returns:
            float32 of shape (tokens, vocabulary); row i predicts token i + 1.

        Raises:
            GenerationError: the runtime failed.
        """
        ...


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
