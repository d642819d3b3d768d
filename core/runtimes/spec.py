"""What to load, and how to sample from it: the frozen values that pages and commands build."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from core.catalogue import DEFAULT_PRECISION, Precision
from core.errors import BadRequestError
from core.remotes.address import split_name

UNKNOWN_PRECISION = "unknown"

MAX_NEW_TOKENS_RANGE = (1, 1000)
TEMPERATURE_RANGE = (0.1, 5.0)
TOP_P_RANGE = (0.05, 1.0)
TOP_K_RANGE = (0, 50)
REPETITION_PENALTY_RANGE = (1.0, 2.0)
SEED_RANGE = (0, 2**32 - 1)


class RuntimeName(StrEnum):
    """How a model is run."""

    GENAI = "genai"
    """OpenVINO GenAI: several answers of one model at once, batched natively."""
    OPTIMUM = "optimum"
    """Optimum Intel: ``transformers``' own ``generate`` on OpenVINO, one answer at a time."""
    PYTORCH = "pytorch"
    """The baseline of the benchmark: runs a checkpoint as it is, without OpenVINO."""
    REMOTE = "remote"
    """A server elsewhere that speaks OpenAI's protocol."""

    @property
    def short_name(self) -> str:
        """Its name for people, in a word."""
        return _SHORT_NAMES[self]


_SHORT_NAMES = {
    RuntimeName.GENAI: "GenAI",
    RuntimeName.OPTIMUM: "Optimum",
    RuntimeName.PYTORCH: "PyTorch",
    RuntimeName.REMOTE: "remote",
}

LOCAL_RUNTIMES = (RuntimeName.GENAI, RuntimeName.OPTIMUM, RuntimeName.PYTORCH)
"""What can be measured on this machine."""


ANSWERING_RUNTIMES = (RuntimeName.GENAI, RuntimeName.OPTIMUM)
"""What pages and commands offer: the runtimes of converted models."""

DEFAULT_RUNTIME = RuntimeName.GENAI
"""By measurement, see the README: it takes less time for each token, most of all where models are
small, and it answers several people together."""


@dataclass(frozen=True)
class ExecutionHints:
    """OpenVINO properties that change speed and rounding; None leaves the plugin's default."""

    inference_precision: str | None = None
    """``INFERENCE_PRECISION_HINT``: f32, bf16 or f16. Not the precision of the weights."""
    kv_cache_precision: str | None = None
    """``KV_CACHE_PRECISION``: u8, f16, bf16 or f32."""
    threads: int | None = None
    """``INFERENCE_NUM_THREADS``."""
    dynamic_quantization_group: int | None = None
    """``DYNAMIC_QUANTIZATION_GROUP_SIZE``: activations that share a scale when they are multiplied
    as 8-bit integers with compressed weights; 0 keeps them in floating point."""

    @classmethod
    def default_for(cls, precision: Precision, device: str = "CPU") -> ExecutionHints:
        """Sound hints without tuning.

        On a CPU, compressed weights decode faster when executed in f32: 410 M GPT-NeoX on two
        AMX cores, INT8 34 → 41 and INT4 43 → 56 tokens/s. FP32 is the reference and stays
        exact. Other devices, on which nothing was measured, keep their own defaults; AUTO
        hands the hints to a CPU alone.
        """
        if device not in ("CPU", "AUTO"):
            return cls()
        match precision:
            case Precision.INT8 | Precision.INT4:
                return cls(inference_precision="f32")
            case Precision.STORED:
                # The weights are exact, so are the activations: quantised to eight bits they turn
                # near ties (SmolLM2's "The capital of France is Paris" among them), and beside
                # zero points in FP16 they save no time.
                return cls(inference_precision="f32", dynamic_quantization_group=0)
            case Precision.FP32:
                return cls(inference_precision="f32", kv_cache_precision="f32")
            case _:
                return cls()


@dataclass(frozen=True)
class ModelSpec:
    """One model, ready to be loaded: equal specs share one loaded model."""

    model: str
    """Its key (:func:`core.store.resolver.name_of`), or what else is resolved to it."""
    precision: Precision = DEFAULT_PRECISION
    device: str = "AUTO"
    runtime: RuntimeName = DEFAULT_RUNTIME
    hints: ExecutionHints | None = None
    """None takes :meth:`ExecutionHints.default_for` the precision and device."""

    @property
    def effective_hints(self) -> ExecutionHints:
        """The hints the model is compiled with."""
        return self.hints or ExecutionHints.default_for(self.precision, self.device)

    @classmethod
    def of_remote(cls, model: str) -> ModelSpec:
        """A model of a server elsewhere, which knows its precision and device by itself.

        Args:
            model: ``remote:NAME/MODEL``.

        Raises:
            PersonMistake: it is not of that form.
        """
        return cls(model, device=split_name(model).remote, runtime=RuntimeName.REMOTE)

    @property
    def remote(self) -> bool:
        """Whether a server elsewhere runs it; ``device`` is the server's name then."""
        return self.runtime is RuntimeName.REMOTE

    @property
    def precision_name(self) -> str:
        """The weights' precision as it is recorded; a server elsewhere does not tell its own."""
        return UNKNOWN_PRECISION if self.remote else self.precision.value

    @property
    def words(self) -> tuple[str, ...]:
        """How and where it runs, for people: precision, device and runtime, or the server."""
        if self.remote:
            return (f"on {self.device}", self.runtime.short_name)
        return (self.precision.label, self.device, self.runtime.short_name)

    @property
    def variant(self) -> str:
        """What tells it from the same model beside it: its precision, or its server."""
        return self.words[0]

    @property
    def label(self) -> str:
        """Model, precision and device as one readable line."""
        if self.remote:
            return f"{split_name(self.model).model} · {self.variant}"
        return f"{self.model} · {self.precision.label} · {self.device}"


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is drawn. Ranges and defaults are those of the product's form."""

    max_new_tokens: int = 256
    temperature: float = 0.8
    top_p: float = 0.92
    top_k: int = 0
    """0 switches it off."""
    repetition_penalty: float = 1.0
    """1.0 switches it off."""
    greedy: bool = False
    """Always the likeliest token; temperature, top-p, top-k and seed then have no effect."""
    seed: int | None = None
    """None draws a fresh seed for each answer."""

    def validated(self) -> SamplingSettings:
        """These settings, checked.

        Raises:
            BadRequestError: one is outside its range; the text names it and the range.
        """
        _check_whole("max_new_tokens", self.max_new_tokens, MAX_NEW_TOKENS_RANGE)
        if not self.greedy:
            _check("temperature", self.temperature, TEMPERATURE_RANGE)
            _check("top_p", self.top_p, TOP_P_RANGE)
            _check_whole("top_k", self.top_k, TOP_K_RANGE)
        _check("repetition_penalty", self.repetition_penalty, REPETITION_PENALTY_RANGE)
        if self.seed is not None:
            _check_whole("seed", self.seed, SEED_RANGE)
        return self


@dataclass(frozen=True)
class TokenRequest:
    """What a runtime is asked to do."""

    prompt_ids: tuple[int, ...]
    sampling: SamplingSettings
    """With a seed, unless greedy."""
    stop_ids: frozenset[int] = field(default_factory=frozenset)
    """Generation ends after one of these has been produced."""


@dataclass(frozen=True)
class TextRequest:
    """What a server elsewhere is asked to do."""

    turns: tuple[tuple[str, str], ...]
    """Role and text of each; the server puts its model's own format around them."""
    sampling: SamplingSettings
    """With a seed, unless greedy."""
    stop: tuple[str, ...] = ()
    """Texts before which the answer ends."""


def _check(name: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:  # also catches NaN
        raise BadRequestError(
            f"The {_words(name)} is {value}; choose a value from {low} to {high}."
        )


def _check_whole(name: str, value: int, bounds: tuple[int, int]) -> None:
    _check(name, value, bounds)
    if value != int(value):
        raise BadRequestError(
            f"The {_words(name)} is {value}; choose a whole number from {bounds[0]} to {bounds[1]}."
        )


def _words(name: str) -> str:
    return name.replace("_", " ").replace("top p", "top-p").replace("top k", "top-k")
