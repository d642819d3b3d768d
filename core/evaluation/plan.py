"""What a run of a test set does, and its results: values that are stored and exported as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from core.catalogue.chat_template import Role, Turn
from core.errors import BadRequestError
from core.evaluation.cases import Case, TestSet
from core.evaluation.checks import Outcome, Verdict
from core.inference.answer import StopReason
from core.inference.request import GenerationRequest
from core.runtimes.spec import (
    DEFAULT_RUNTIME,
    NO_SPECULATION,
    ExecutionHints,
    ModelSpec,
    SamplingSettings,
    Speculation,
)

MAX_CANDIDATES = 8
_EXACT_DEVICES = ("CPU", "AUTO")


class Candidate(BaseModel):
    """A model and how it is asked."""

    model_config = ConfigDict(frozen=True)

    spec: ModelSpec
    prompt_format: str | None = None
    """None for the model's own."""
    system: str = ""
    """System prompt; empty for none."""
    sampling: SamplingSettings = SamplingSettings(greedy=True)
    speculation: Speculation = NO_SPECULATION
    label: str = ""
    """Display name, unique in a run; see :func:`labelled`."""

    @property
    def model_name(self) -> str:
        """Model, precision, device and runtime, as ``--models`` takes them."""
        spec = self.spec
        if spec.remote:
            return spec.model
        device = "" if spec.device == "AUTO" else f"@{spec.device}"
        runtime = "" if spec.runtime is DEFAULT_RUNTIME else f"+{spec.runtime.value}"
        return f"{spec.model}:{spec.precision.value}{device}{runtime}"

    @property
    def exact_spec(self) -> ModelSpec:
        """The spec with exact hints; other devices than the CPU keep their defaults."""
        if self.spec.remote or self.spec.device.upper() not in _EXACT_DEVICES:
            return replace(self.spec, prefix_cache=False)
        return replace(self.spec, hints=ExecutionHints.exact(), prefix_cache=False)

    def with_max_tokens(self, tokens: int) -> Candidate:
        """Return the candidate with another maximum of new tokens."""
        return self.model_copy(update={"sampling": replace(self.sampling, max_new_tokens=tokens)})

    def request(self, case: Case) -> GenerationRequest:
        """Return the request for a case."""
        earlier = (Turn(Role.SYSTEM, self.system),) if self.system.strip() else ()
        return GenerationRequest(
            case.instruction,
            case.context,
            self.sampling,
            self.prompt_format,
            earlier,
            speculation=self.speculation,
        )


def labelled(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates with display names that tell them apart.

    Raises:
        BadRequestError: none, too many, or two that are the same.
    """
    if not candidates:
        raise BadRequestError("There is no candidate. Choose a model.")
    if len(candidates) > MAX_CANDIDATES:
        raise BadRequestError(
            f"There are {len(candidates)} candidates. Choose at most {MAX_CANDIDATES}."
        )
    plain = [each.model_copy(update={"label": ""}) for each in candidates]
    if len(set(plain)) < len(plain):
        raise BadRequestError("Two candidates are the same. Change or remove one of them.")
    seen: Counter[str] = Counter()
    found: list[Candidate] = []
    for each in plain:
        label = " · ".join([each.model_name, *_chosen(each)])
        seen[label] += 1
        count = f" ({seen[label]})" if seen[label] > 1 else ""
        found.append(each.model_copy(update={"label": label + count}))
    return tuple(found)


def _chosen(candidate: Candidate) -> list[str]:
    """Return what is not the default, as words."""
    sampling = candidate.sampling
    parts = [f"prompt {candidate.prompt_format}"] if candidate.prompt_format else []
    if candidate.system.strip():
        parts.append("system prompt")
    if candidate.speculation != NO_SPECULATION:
        parts.append(f"speculation {candidate.speculation.text}")
    if not sampling.greedy:
        parts.append(f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}")
    return parts


class Result(BaseModel):
    """The answer of a candidate to a case, and the verdict on it."""

    model_config = ConfigDict(frozen=True)

    candidate: int
    """Index."""
    case: int
    """Index."""
    verdict: Verdict | None = None
    """None if the case has no check."""
    outcomes: tuple[Outcome, ...] = ()
    answer: str = ""
    error: str | None = None
    """Why there is no answer, as a sentence."""
    stop_reason: StopReason | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    ttft_ms: float | None = None
    decode_tokens_per_s: float | None = None
    total_ms: float | None = None
    contended: bool = True
    """Whether other answers were generated at the same time, which most of a run are."""
    load_s: float | None = None
    private_bytes: int | None = None
    """Memory growth over load and warm-up of the model."""
    file_backed_bytes: int | None = None
    conditions: Mapping[str, Any] = Field(default_factory=dict)
    """Execution and KV cache precision, devices, runtime, weights, prompt format, seed."""


class Plan(TestSet):
    """A test set and the candidates that answer it."""

    candidates: tuple[Candidate, ...]

    @classmethod
    def of(cls, test_set: TestSet, candidates: Sequence[Candidate]) -> Plan:
        """Return a plan.

        Args:
            test_set: as :func:`core.evaluation.cases.checked` returns it.

        Raises:
            BadRequestError: see :func:`labelled`; or a setting is out of range.
        """
        candidates = labelled(candidates)
        for candidate in candidates:
            candidate.request(test_set.cases[0]).validated()
        return cls(**dict(test_set), candidates=candidates)

    @property
    def total(self) -> int:
        """Number of answers."""
        return len(self.cases) * len(self.candidates)
