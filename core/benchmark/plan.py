"""Plan of a benchmark: a product of models, precisions, devices, runtimes and prompt lengths.

A :class:`Target` is measured at all prompt lengths by one new process at a time; each prompt length
is a row, so a run has ``targets × prompt lengths`` measurements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.benchmark.random_models import RANDOM_SOURCE, random_model
from core.catalogue import Precision, catalogue
from core.db.measurement_values import Configuration, Measurement
from core.errors import BadRequestError
from core.hardware.devices import AUTO, auto_devices
from core.runtimes.spec import (
    DEFAULT_RUNTIME,
    NO_SPECULATION,
    ExecutionHints,
    ModelSpec,
    RuntimeName,
    Speculation,
)
from core.store import Source, SourceKind
from core.units import bytes_text

DEFAULT_PRECISIONS = (Precision.INT8, Precision.INT4, Precision.FP16)
"""The usual choice; FP32 is exact and rarely used."""

PROMPT_TOKENS_RANGE = (1, 32_768)
"""Up to the longest context length in the catalogue; a length that exceeds the model's becomes a
failed row."""

NEW_TOKENS_RANGE = (1, 1000)

REPEATS_RANGE = (1, 100)

ROUNDS_RANGE = (1, 20)

SMALLEST_MEMORY_LIMIT = 64 * 2**20
"""In bytes; not even the interpreter starts with less."""

BASELINE_PRECISIONS = (Precision.FP32, Precision.FP16)
"""PyTorch runs the uncompressed checkpoint."""

BASELINE_DEVICE = "CPU"
"""Device of the PyTorch baseline, whatever devices OpenVINO has."""

MOST_ROWS = 1_000
"""Maximum per run: this many take weeks, and are most likely a mistake."""


EXACT_HINTS = ExecutionHints(inference_precision="f32", kv_cache_precision="f32")
"""By default a CPU may execute FP16 weights in bf16, which is not a reference for f32."""


@dataclass(frozen=True)
class Target:
    """What one process measures: a model, loaded once, in one configuration."""

    model: str
    """As entered by the user, stripped."""
    random_weights: bool
    precision: Precision
    device: str
    runtime: RuntimeName
    exact: bool = False
    """Whether it is executed in f32 throughout, if it runs on the CPU alone: the reference of
    quality."""

    @classmethod
    def of_row(cls, row: Measurement) -> Target:
        """Return the target of a row."""
        what = row.configuration
        precision, runtime = Precision(what.precision), RuntimeName(what.runtime)
        return cls(what.model, what.random_weights, precision, what.device, runtime)

    @property
    def spec(self) -> ModelSpec:
        """How the model is loaded."""
        # Any device may take part in an unresolved AUTO.
        cpu = self.device == "CPU" or (self.device == AUTO and auto_devices() == ("CPU",))
        hints = EXACT_HINTS if self.exact and cpu else None
        return ModelSpec(self.model, self.precision, self.device, self.runtime, hints)

    @property
    def baseline(self) -> bool:
        """Whether it is PyTorch with the checkpoint, without conversion."""
        return self.runtime is RuntimeName.PYTORCH

    @property
    def label(self) -> str:
        """Name for progress messages: "tiny-llama-1b-chat · INT4 · CPU"."""
        parts = [self.model, self.precision.label, self.device]
        if self.random_weights:
            parts.insert(1, RANDOM_SOURCE)
        if self.baseline:
            parts.append("PyTorch")
        return " · ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that one benchmark run measures."""

    models: tuple[str, ...] = ()
    """Catalogue keys, Hugging Face Hub ids, folders, or keys of stored models."""
    random_models: tuple[str, ...] = ()
    """Catalogue keys and benchmark shapes that are measured with random weights."""
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    devices: tuple[str, ...] = ("CPU",)
    runtimes: tuple[RuntimeName, ...] = (DEFAULT_RUNTIME,)
    prompt_tokens: tuple[int, ...] = (32, 512)
    new_tokens: int = 128
    repeats: int = 5
    """Timed answers of each configuration at each prompt length, over all rounds."""
    rounds: int = 2
    """Number of new processes over which the repeats are distributed."""
    speculation: Speculation = NO_SPECULATION
    """How GenAI guesses tokens; other runtimes do not."""
    quality: bool = False
    """Whether each precision is compared with the reference precision of its model."""
    memory_limit_bytes: int | None = None
    """Limit of each measuring process; None for no limit."""
    keep_random_weights: bool = False
    """Whether the random weights of this plan stay on disk after a complete run."""

    def validated(self) -> Plan:
        """Return the plan in normal form: names stripped, devices in upper case.

        A missing device is not an error of the plan: its rows fail with the reason.

        Raises:
            BadRequestError: a value is invalid; the text says what to change.
            UnknownModelError: there is no such shape for random weights.
        """
        plan = replace(
            self,
            models=_names("model", self.models),
            random_models=_names("model with random weights", self.random_models),
            devices=_chosen("device", _names("device", [name.upper() for name in self.devices])),
            precisions=_chosen("precision", self.precisions),
            runtimes=_chosen("runtime", self.runtimes),
            prompt_tokens=_chosen("prompt length", self.prompt_tokens),
            speculation=self.speculation.validated(),
        )
        if not plan.models and not plan.random_models:
            raise BadRequestError("Choose at least one model to measure.")
        for name in plan.random_models:
            random_model(name)
        plan._check_numbers()
        plan._check_product()
        return plan

    def targets(self) -> tuple[Target, ...]:
        """Return all possible targets, one process each.

        PyTorch is measured only in FP32 and FP16, once, on the CPU.
        """
        models = [(name, False) for name in self.models]
        models += [(name, True) for name in self.random_models]
        return tuple(
            Target(name, is_random, precision, device, runtime)
            for name, is_random in models
            for precision in self.precisions
            for runtime in self.runtimes
            if runtime is not RuntimeName.PYTORCH or precision in BASELINE_PRECISIONS
            for device in ((BASELINE_DEVICE,) if runtime is RuntimeName.PYTORCH else self.devices)
        )

    def configuration(
        self, target: Target, prompt_tokens: int, known: Source | None = None
    ) -> Configuration:
        """Return the configuration of one row.

        Args:
            known: the model's source; by default title and source are those of the catalogue.
        """
        title = source = target.model
        if target.random_weights:
            title, source = random_model(target.model).title, RANDOM_SOURCE
        elif known is not None:
            embedded = known.kind is SourceKind.EMBEDDED
            title, source = known.title, known.kind.value if embedded else str(known.location)
        elif (row := catalogue().get(target.model)) is not None:
            title, source = row.title, row.hub_id or "embedded"
        return Configuration(
            model=target.model,
            title=title,
            source=source,
            random_weights=target.random_weights,
            precision=target.precision.value,
            device=target.device,
            runtime=target.runtime.value,
            hints={} if target.baseline else target.spec.effective_hints.properties,
            speculation=self.speculation_of(target).text,
            prompt_tokens=prompt_tokens,
            new_tokens=self.new_tokens,
            repeats=self.repeats,
        )

    def speculation_of(self, target: Target) -> Speculation:
        """Return the speculation of a target; only GenAI has it."""
        genai = target.runtime is RuntimeName.GENAI
        return self.speculation if genai else NO_SPECULATION

    def answers_in_round(self, number: int) -> int:
        """Return the number of timed answers of a process in this round; the first rounds get the
        remainder.
        """
        usual, rest = divmod(self.repeats, self.rounds)
        return usual + (1 if number < rest else 0)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return TypeAdapter(Plan).dump_python(self, mode="json")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read a plan written by :meth:`to_json`; fields of a newer Paddock are ignored.

        Raises:
            BadRequestError: the plan is not readable.
        """
        try:
            return TypeAdapter(Plan).validate_python(data).validated()
        except ValidationError as error:
            raise BadRequestError(
                "The stored plan of this benchmark is not readable. Start a new one."
            ) from error

    def _check_numbers(self) -> None:
        for length in self.prompt_tokens:
            _in_range("prompt length", length, PROMPT_TOKENS_RANGE, "tokens")
        _in_range("number of new tokens", self.new_tokens, NEW_TOKENS_RANGE, "tokens")
        _in_range("number of repeats", self.repeats, REPEATS_RANGE)
        _in_range("number of rounds", self.rounds, ROUNDS_RANGE)
        if self.rounds > self.repeats:
            raise BadRequestError(
                f"{self.repeats} repeats cannot be distributed over {self.rounds} rounds. Choose "
                "at least as many repeats as rounds."
            )
        limit = self.memory_limit_bytes
        if limit is not None and (type(limit) is not int or limit < SMALLEST_MEMORY_LIMIT):
            raise BadRequestError(
                f"The memory limit must be at least {bytes_text(SMALLEST_MEMORY_LIMIT)}. Raise it, "
                "or remove it."
            )

    def _check_product(self) -> None:
        baseline_alone = set(self.runtimes) == {RuntimeName.PYTORCH}
        if RuntimeName.PYTORCH in self.runtimes and not set(self.precisions) & set(
            BASELINE_PRECISIONS
        ):
            raise BadRequestError(
                "PyTorch runs only uncompressed weights. Add the precision fp16 or fp32, or remove "
                "pytorch from the runtimes."
            )
        if baseline_alone and BASELINE_DEVICE not in self.devices:
            raise BadRequestError(
                f"The PyTorch baseline runs only on the {BASELINE_DEVICE}. Choose that device."
            )
        rows = len(self.targets()) * len(self.prompt_tokens)
        if rows > MOST_ROWS:
            raise BadRequestError(
                f"This plan has {rows} measurements, more than the maximum of {MOST_ROWS}. Choose "
                "fewer models, precisions, devices or prompt lengths."
            )


def _names(what: str, given: Iterable[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given)
    if "" in names:
        raise BadRequestError(f"The name of a {what} is empty. Enter a name, or remove it.")
    return _no_doubles(what, names)


def _chosen(what: str, given: Sequence[Any]) -> tuple[Any, ...]:
    if not given:
        raise BadRequestError(f"Choose at least one {what}.")
    return _no_doubles(what, tuple(given))


def _no_doubles(what: str, given: tuple[Any, ...]) -> tuple[Any, ...]:
    for value, count in Counter(given).items():
        if count > 1:
            raise BadRequestError(f"The {what} {value} is given {count} times. Give it once.")
    return given


def _in_range(what: str, value: object, limits: tuple[int, int], unit: str = "") -> None:
    low, high = limits
    if type(value) is not int or not low <= value <= high:
        raise BadRequestError(
            f"The {what} is {value}. Enter a whole number from {low} to "
            f"{high:,}{' ' + unit if unit else ''}."
        )
