"""Model specs, sampling settings and requests: immutable values that callers build."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal

from core.catalogue import DEFAULT_PRECISION, Precision
from core.errors import BadRequestError
from core.remotes.address import split_name

UNKNOWN_PRECISION = "unknown"

MAX_NEW_TOKENS_RANGE = (1, 1_000_000)
"""The context length of the model is the effective limit; no model has a longer one."""
TEMPERATURE_RANGE = (0.1, 5.0)
TOP_P_RANGE = (0.05, 1.0)
TOP_K_RANGE = (0, 1_000_000)
"""Up to the vocabulary; no model has a larger one."""
REPETITION_PENALTY_RANGE = (0.1, 10.0)
SEED_RANGE = (0, 2**32 - 1)
GUESSED_TOKENS_RANGE = (1, 32)
NGRAM_RANGE = (1, 16)


class RuntimeName(StrEnum):
    """Name of a runtime."""

    GENAI = "genai"
    """OpenVINO GenAI: continuous batching of several answers."""
    OPTIMUM = "optimum"
    """Optimum Intel: ``transformers``' ``generate`` on OpenVINO, one answer at a time."""
    PYTORCH = "pytorch"
    """Baseline of the benchmark: runs a checkpoint unconverted, without OpenVINO."""
    REMOTE = "remote"
    """A remote server with an OpenAI-compatible API."""
    LOGITS = "logits"
    """Returns probabilities and generates nothing; never chosen by users."""

    @property
    def short_name(self) -> str:
        """Display name of one word."""
        return _SHORT_NAMES[self]


_SHORT_NAMES = {
    RuntimeName.GENAI: "GenAI",
    RuntimeName.OPTIMUM: "Optimum",
    RuntimeName.PYTORCH: "PyTorch",
    RuntimeName.REMOTE: "remote",
    RuntimeName.LOGITS: "probabilities",
}

LOCAL_RUNTIMES = (RuntimeName.GENAI, RuntimeName.OPTIMUM, RuntimeName.PYTORCH)
"""Runtimes that the benchmark measures on this machine."""

ANSWERING_RUNTIMES = (RuntimeName.GENAI, RuntimeName.OPTIMUM)
"""Runtimes of converted models, offered by pages, API and command line."""

DEFAULT_RUNTIME = RuntimeName.GENAI
"""Chosen by measurement, see the README: it needs less time per token, most of all with small
models, and batches the answers of several users."""


@dataclass(frozen=True)
class ExecutionHints:
    """OpenVINO properties that affect speed and rounding; None: the plugin's default."""

    inference_precision: str | None = None
    """``INFERENCE_PRECISION_HINT``: f32, bf16 or f16; not the precision of the weights."""
    kv_cache_precision: str | None = None
    """``KV_CACHE_PRECISION``: u8, f16, bf16 or f32."""
    threads: int | None = None
    """``INFERENCE_NUM_THREADS``."""
    dynamic_quantization_group: int | None = None
    """``DYNAMIC_QUANTIZATION_GROUP_SIZE``: number of activations that share a scale when they are
    quantized to 8 bits for compressed weights; 0 keeps them in floating point."""

    @property
    def properties(self) -> dict[str, str | int]:
        """The hints that are set, by the names of OpenVINO's properties."""
        named = {
            "INFERENCE_PRECISION_HINT": self.inference_precision,
            "KV_CACHE_PRECISION": self.kv_cache_precision,
            "INFERENCE_NUM_THREADS": self.threads,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.dynamic_quantization_group,
        }
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def exact(cls) -> ExecutionHints:
        """Return hints under which batched answers on a CPU equal single ones.

        Tried with SmolLM2: 11 of 11 greedy answers, while under the default hints low-order bits
        changed some of them. They cost 5 to 9 % of the decode rate and half of the prefill rate.
        """
        return cls("f32", "f32", dynamic_quantization_group=0)

    @classmethod
    def default_for(cls, precision: Precision, device: str = "CPU") -> ExecutionHints:
        """Return the default hints, used without tuning.

        On a CPU, compressed weights decode faster when executed in f32: 410 M GPT-NeoX on two
        AMX cores, INT8 34 → 41 and INT4 43 → 56 tokens/s. FP32 is the reference and stays
        exact. Other devices were not measured and keep their plugin's defaults; AUTO applies the
        hints on a CPU only.
        """
        if device not in ("CPU", "AUTO"):
            return cls()
        match precision.base:
            case Precision.INT8 | Precision.INT4:
                return cls(inference_precision="f32")
            case Precision.STORED:
                # The weights are exact, so the activations are too: quantizing them to 8 bits
                # changes near ties (SmolLM2's "The capital of France is Paris" among them), and
                # with zero points in FP16 it saves no time.
                return cls(inference_precision="f32", dynamic_quantization_group=0)
            case Precision.FP32:
                return cls(inference_precision="f32", kv_cache_precision="f32")
            case _:
                return cls()


_NAME = re.compile(
    r"(?P<model>.+?)"
    rf"(?::(?P<precision>{'|'.join(Precision)}))?"
    r"(?:@(?P<device>[a-z0-9.:,_-]{1,100}))?"
    rf"(?:\+(?P<runtime>{'|'.join(ANSWERING_RUNTIMES)}))?",
    re.IGNORECASE | re.DOTALL,
)
MAX_NAME_LENGTH = 1000
"""Characters of a name that are parsed."""


@dataclass(frozen=True)
class ModelSpec:
    """A model with precision, device and runtime; equal specs share one loaded model."""

    model: str
    """Key of the model (:func:`core.store.resolver.name_of`), or a name that resolves to it."""
    precision: Precision = DEFAULT_PRECISION
    device: str = "AUTO"
    runtime: RuntimeName = DEFAULT_RUNTIME
    hints: ExecutionHints | None = None
    """None: :meth:`ExecutionHints.default_for` the precision and device."""
    prefix_cache: bool = False
    """Whether GenAI keeps the KV cache of earlier prompts for prompts that begin in the same way.
    For conversations; comparisons and benchmarks measure without it."""

    @property
    def effective_hints(self) -> ExecutionHints:
        """Hints that the model is compiled with."""
        return self.hints or ExecutionHints.default_for(self.precision, self.device)

    @classmethod
    def of_remote(cls, model: str) -> ModelSpec:
        """Return the spec of a remote model; its server determines precision and device.

        Args:
            model: ``remote:NAME/MODEL``.

        Raises:
            UserError: ``model`` does not have that form.
        """
        return cls(model, device=split_name(model).remote, runtime=RuntimeName.REMOTE)

    @classmethod
    def parse(cls, name: str) -> ModelSpec:
        """Return the spec of a name like ``model:INT4@GPU+optimum``, whose suffixes are optional.

        Whether the model exists is not checked.
        """
        found = _NAME.fullmatch(name[:MAX_NAME_LENGTH])
        if found is None:
            return cls(name)
        return cls(
            found["model"],
            Precision((found["precision"] or cls.precision).lower()),
            (found["device"] or cls.device).upper(),
            RuntimeName((found["runtime"] or cls.runtime).lower()),
        )

    @property
    def name(self) -> str:
        """The shortest name from which :meth:`parse` returns model, precision, device, runtime."""
        text = self.model
        if self.precision is not ModelSpec.precision:
            text += f":{self.precision.value.upper()}"
        if self.device != ModelSpec.device:
            text += f"@{self.device}"
        if self.runtime is not ModelSpec.runtime:
            text += f"+{self.runtime.value}"
        return text

    @property
    def remote(self) -> bool:
        """Whether a remote server runs it; ``device`` is then the server's name."""
        return self.runtime is RuntimeName.REMOTE

    @property
    def precision_name(self) -> str:
        """Precision as recorded in the database; unknown for remote models."""
        return UNKNOWN_PRECISION if self.remote else self.precision.value

    @property
    def words(self) -> tuple[str, ...]:
        """Display texts of precision, device and runtime, or of the server."""
        if self.remote:
            return (f"on {self.device}", self.runtime.short_name)
        return (self.precision.label, self.device, self.runtime.short_name)

    @property
    def variant(self) -> str:
        """Display text of the precision, or of the server."""
        return self.words[0]

    @property
    def label(self) -> str:
        """Display text of model, precision and device."""
        if self.remote:
            return f"{split_name(self.model).model} · {self.variant}"
        return f"{self.model} · {self.precision.label} · {self.device}"


@dataclass(frozen=True)
class SamplingSettings:
    """Sampling settings."""

    max_new_tokens: int = 256
    temperature: float = 0.8
    top_p: float = 0.92
    top_k: int = 0
    """0 disables it."""
    repetition_penalty: float = 1.0
    """1.0 disables it."""
    greedy: bool = False
    """Always take the most likely token; temperature, top-p, top-k and seed have no effect."""
    seed: int | None = None
    """None: a random seed for each answer."""

    def validated(self) -> SamplingSettings:
        """Return these settings after checking their ranges.

        Raises:
            BadRequestError: a setting is out of range; the message names it and the range.
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
class Structure:
    """What the whole answer must match."""

    kind: Literal["json_schema", "regex", "grammar"]
    text: str
    """A JSON schema as JSON, a regular expression, or a grammar in GenAI's EBNF."""
    field: str
    """Field of the request that contains it, for errors and records."""


@dataclass(frozen=True)
class GenAIOptions:
    """Settings of an answer that only OpenVINO GenAI supports, named as in the API."""

    min_p: float = 0.0
    """Leave out tokens less likely than this share of the likeliest token's probability; 0 disables
    it."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 0
    """No end-of-text token or stop id before this many new tokens."""
    ignore_eos: bool = False
    """Do not end at end-of-text tokens and the stop markers of the prompt format."""
    stop_token_ids: tuple[int, ...] = ()
    logprobs: bool = False
    """Return the log probabilities of the chosen tokens."""
    top_logprobs: int = 0
    """Return also those of this many likeliest tokens, from a forward pass over the answer."""
    structure: Structure | None = None

    @property
    def used(self) -> dict[str, Any]:
        """The settings that are not the default, as JSON values by the request's field."""
        found = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name != "structure" and getattr(self, each.name) != each.default
        }
        if self.structure is not None:
            found[self.structure.field] = {self.structure.kind: self.structure.text}
        return found


class SpeculationMode(StrEnum):
    """When GenAI guesses tokens."""

    OFF = "off"
    ON = "on"
    AUTO = "auto"
    """Where it is expected to help, see :mod:`core.runtimes.speculation`."""


@dataclass(frozen=True)
class Speculation:
    """Prompt lookup: tokens that followed the same words in the prompt are guessed, and the model
    checks all of them in one step.

    The text of an answer has the same distribution as without it; a greedy answer may differ from
    it where two tokens are almost equally likely.
    """

    mode: SpeculationMode = SpeculationMode.OFF
    tokens: int = 5
    """Tokens guessed in each step."""
    ngram: int = 3
    """Maximum number of preceding tokens that are looked up."""

    @property
    def text(self) -> str:
        """As stored and exported: "off", "auto", "on: 5 tokens, 3-grams"."""
        usual = (self.tokens, self.ngram) == (Speculation.tokens, Speculation.ngram)
        if self.mode is SpeculationMode.OFF or (self.mode is SpeculationMode.AUTO and usual):
            return self.mode.value
        return f"{self.mode}: {self.tokens} tokens, {self.ngram}-grams"

    def validated(self) -> Speculation:
        """Return this setting after checking its ranges.

        Raises:
            BadRequestError: a number is out of range; the message names it and the range.
        """
        _check_whole("number of guessed tokens", self.tokens, GUESSED_TOKENS_RANGE)
        _check_whole("n-gram length", self.ngram, NGRAM_RANGE)
        return self


NO_SPECULATION = Speculation()
AUTO_SPECULATION = Speculation(SpeculationMode.AUTO)


@dataclass(frozen=True)
class TokenRequest:
    """Request to a local runtime."""

    prompt_ids: tuple[int, ...]
    sampling: SamplingSettings
    """Has a seed, unless greedy."""
    stop_ids: frozenset[int] = field(default_factory=frozenset)
    """Generation ends after one of these ids."""
    options: GenAIOptions = GenAIOptions()
    echo: bool = False
    """Only for GenAI: return the prompt's tokens, too, with ``options.logprobs`` their log
    probabilities."""
    speculation: Speculation = NO_SPECULATION
    """Runtimes other than GenAI ignore it."""


@dataclass(frozen=True)
class TextRequest:
    """Request to a remote server."""

    turns: tuple[tuple[str, str], ...]
    """Role and text of each message; the server applies its model's prompt format."""
    sampling: SamplingSettings
    """Has a seed, unless greedy."""
    stop: tuple[str, ...] = ()
    """Stop texts; the answer ends before them."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Variables for the server's chat template."""


def _check(name: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:  # also catches NaN
        raise BadRequestError(
            f"The {_words(name)} is {value}. Choose a value from {low} to {high}."
        )


def _check_whole(name: str, value: int, bounds: tuple[int, int]) -> None:
    _check(name, value, bounds)
    if value != int(value):
        raise BadRequestError(
            f"The {_words(name)} is {value}. Choose a whole number from {bounds[0]} to {bounds[1]}."
        )


def _words(name: str) -> str:
    return name.replace("_", " ").replace("top p", "top-p").replace("top k", "top-k")
