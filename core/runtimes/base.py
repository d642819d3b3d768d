"""The protocol every runtime follows, one file a runtime beside this one."""

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
"""Receives each new token id the moment it exists; returning False ends the generation."""


class StampedId(int):
    """A token id that came from another process, and when it existed there."""

    stamp_s: float
    """Seconds of the performance counter, which is the same in all processes of a machine."""

    def __new__(cls, token_id: int, stamp_s: float) -> StampedId:
        """The id with its stamp."""
        made = super().__new__(cls, token_id)
        made.stamp_s = stamp_s
        return made


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a loaded model runs: read back from it, not from what was asked."""

    execution_precision: str | None
    kv_cache_precision: str | None
    devices_used: tuple[str, ...]
    """``EXECUTION_DEVICES`` of the compiled model."""
    threads: int | None
    hints: Mapping[str, Any] = field(default_factory=dict)
    """OpenVINO properties it was compiled with."""
    runtime: str | None = None
    """The runtime that really runs it, by name, where that is not the one that was asked for."""
    note: str | None = None
    """A sentence for the person about how it is run; why another runtime took it over, say."""
    host: str | None = None
    """Host and port of the server that runs it; None where it runs on this machine, in this
    process."""
    beside: str | None = None
    """What else runs where it runs: answers with an equal one disturb each other's timings. None
    is this machine."""

    @property
    def on_cpu_alone(self) -> bool:
        """Whether no other device takes part; in brackets are those that AUTO still prepares."""
        return {name.strip("()") for name in self.devices_used} == {"CPU"}


class LoadedModel(Protocol):
    """A model in memory; :attr:`at_once` generations at a time, each in a thread of its own."""

    tokenizer: Any
    """A ``transformers`` tokenizer, or what :mod:`core.runtimes.tokenizer` makes of its files."""
    end_ids: frozenset[int]
    """Ids that end a text, from the model's generation configuration."""
    positions: int | None
    """Longest sequence in tokens, prompt and answer together; None where there is no bound."""
    conditions: Conditions
    at_once: int
    """How many generations it takes at a time: 1, or more where it batches them natively."""

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        """Answer one request; returns when a stop id, the length or ``on_token`` ends it.

        Raises:
            InterruptedGeneration: :meth:`interrupt` ended it before its first token.
            GenerationError: the runtime failed.
        """
        ...

    def interrupt(self, request: TokenRequest) -> None:
        """End the prefill of this very request, by identity; the model stays usable.

        Callable from any thread; does nothing where the request is not, or no longer, in prefill.
        """
        ...

    def close(self) -> None:
        """Give the memory back. The model cannot be used afterwards."""
        ...


@runtime_checkable
class ApartModel(Protocol):
    """What a model that runs in a process of its own tells besides."""

    @property
    def alive(self) -> bool:
        """Whether the process is there; without it every answer fails."""
        ...

    def growth(self) -> ProcessMemory:
        """By how much the process has grown since before the model was loaded.

        Raises:
            GenerationError: the process is gone.
        """
        ...


OnText = Callable[[str], bool]
"""Receives each piece of text the moment it comes, empty where a token has no text; returning False
ends the generation."""


@dataclass(frozen=True)
class TextEnd:
    """How an answer in text ended."""

    length: bool
    """Whether it reached the number of new tokens asked for; else the model ended it."""
    prompt_tokens: int | None
    """As whoever counted them says; None where nobody did. So are the new ones."""
    new_tokens: int | None
    conditions: Conditions
    """Those of this answer."""


class TextModel(Protocol):
    """A model elsewhere, behind a server that formats, tokenizes and decodes by itself."""

    conditions: Conditions
    at_once: int
    """How many answers it is asked for at a time."""

    def answer(self, request: TextRequest, on_text: OnText) -> TextEnd:
        """Answer one request; returns when the model or the length ended it.

        Raises:
            InterruptedGeneration: :meth:`interrupt` or ``on_text`` ended it.
            PaddockError: the server cannot be reached, refused, or failed.
        """
        ...

    def interrupt(self, request: TextRequest) -> None:
        """End this very request, by identity, wherever it is; callable from any thread."""
        ...


class ScoringModel(LoadedModel, Protocol):
    """A model in memory that also tells how likely it finds a given text."""

    def scores(self, token_ids: Sequence[int]) -> np.ndarray:
        """Logits of the token after each of these, read at once (teacher forcing).

        Returns:
            float32 of shape (tokens, vocabulary); row i is about token i + 1.

        Raises:
            GenerationError: the runtime failed.
        """
        ...


class Runtime(Protocol):
    """A way to run models."""

    def prepare(self, folder: Path | None = None) -> None:
        """Import what :meth:`load` needs, seconds of work that belong to no single model.

        Args:
            folder: of the model that is to be loaded, where that is known already; one model may
                need more than another.
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
    """A running generation was interrupted on request; nobody sees this."""
