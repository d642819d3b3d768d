"""Searches the execution hints with which a model decodes fastest on this machine.

One hint after another is tried against the best so far, each in a new process, the two in turns. A
faster one is kept only if the model's perplexity with it is as good as with the default hints.

Speculation is measured under the best hints and only reported: *auto* decides for each answer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from core.benchmark.speed.paired import PairedRun, Variant
from core.catalogue import Precision
from core.errors import PaddockError, StoppedError
from core.hardware.devices import host_facts
from core.runtimes.spec import (
    AUTO_SPECULATION,
    NO_SPECULATION,
    ExecutionHints,
    ModelSpec,
    RuntimeName,
    Speculation,
    SpeculationMode,
)
from core.runtimes.tuned_hints import Tuned, TuningKey

PERPLEXITY_LIMIT = 1.01
"""Ratio of perplexities up to which users notice no difference."""

LEAST_GAIN = 1.02
"""Smaller gains are noise, and the previous hints are kept."""

LONGEST_FIRST_TOKEN = 1.25
"""Limit of the time to first token relative to the best so far: faster decoding does not justify a
longer wait before it."""

ROUNDS = 5
PROMPT_TOKENS = 128
NEW_TOKENS = 64

_SPECULATIONS = (NO_SPECULATION, AUTO_SPECULATION, Speculation(SpeculationMode.ON))
_INSTRUCTIONS = (("summary", "the summary of a passage"), ("open question", "an open question"))
"""Kinds of instruction (:mod:`core.benchmark.speed.instructions`) for speculation, and as text."""
_PASSAGE_TOKENS = 160
"""Length of the prompt with a passage."""

Report = Callable[[str, float], None]
"""Receives a sentence about the current trial, and the finished share."""


@dataclass(frozen=True)
class Trial:
    """One candidate compared with the best before it."""

    hints: ExecutionHints
    gain: float
    """Decode rate relative to the best before it."""
    first_token: float
    """Time to first token relative to the best before it."""
    perplexity_ratio: float | None
    """Relative to the default hints; None if it was not fast enough to be measured."""
    kept: bool


@dataclass
class TuningSearch:
    """One search and its trials."""

    folder: Path
    spec: ModelSpec
    """The model is the key of the stored model; the hints are ignored."""
    report: Report = lambda message, share: None
    cancel: threading.Event = field(default_factory=threading.Event)
    perplexity_limit: float = PERPLEXITY_LIMIT
    rounds: int = ROUNDS
    trials: list[Trial] = field(default_factory=list)

    def run(self) -> Tuned:
        """Try all candidates and return the best, which may be the default hints. Blocks for
        minutes.

        Raises:
            StoppedError: ``cancel`` was set.
            GenerationError: a measuring process failed.
        """
        usual = ExecutionHints.default_for(self.spec.precision, self.spec.device)
        best, reference, ratio = usual, None, 1.0
        axes = list(_axes(self.spec.precision, self.spec.device))
        for number, candidates in enumerate(axes):
            for hints in dict.fromkeys(change(best) for change in candidates):
                if self.cancel.is_set():
                    raise StoppedError("Tuning was stopped. The hints are unchanged.")
                if hints == best or hints in (trial.hints for trial in self.trials):
                    continue
                self.report(f"Trying {wording(hints)}.", number / len(axes))
                if reference is None:
                    reference = self._perplexity(usual)
                trial = self._try(hints, best, reference)
                self.trials.append(trial)
                if trial.kept:
                    best, ratio = hints, trial.perplexity_ratio or 1.0
        return self._result(best, usual, ratio)

    def _try(self, hints: ExecutionHints, best: ExecutionHints, reference: float) -> Trial:
        with self._paired(best, hints) as paired:
            found = self._measured(paired)
            gain = found["new"]["tokens_per_s"] / found["best"]["tokens_per_s"]
            first = found["new"]["ttft_ms"] / found["best"]["ttft_ms"]
            if gain < LEAST_GAIN or first > LONGEST_FIRST_TOKEN:
                return Trial(hints, gain, first, None, False)
            ratio = _perplexity_of(paired, "new", self.spec.model) / reference
        return Trial(hints, gain, first, ratio, ratio <= self.perplexity_limit)

    def _result(self, best: ExecutionHints, usual: ExecutionHints, ratio: float) -> Tuned:
        """Compare the best with the default hints once more, directly."""
        self.report("Comparing the best with the default hints.", 0.95)
        with self._paired(usual, best) as paired:
            found = self._measured(paired)
        rate, before = found["new"]["tokens_per_s"], found["best"]["tokens_per_s"]
        if best != usual and rate < before:  # better in each step, but not overall
            best, rate, ratio = usual, before, 1.0
        spec = self.spec
        return Tuned(
            key=TuningKey.here(spec.model, spec.precision, spec.device, spec.runtime),
            hints=best,
            gain=1.0 if best == usual else rate / before,
            tokens_per_s=rate,
            usual_tokens_per_s=before,
            perplexity_ratio=ratio,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def speculation(self, hints: ExecutionHints) -> str | None:
        """Compare *auto* and *on* with *off* under these hints.

        Returns:
            A sentence with the result, or why there is none; None for runtimes that do not guess
            tokens.

        Raises:
            StoppedError: ``cancel`` was set.
        """
        if self.spec.runtime is not RuntimeName.GENAI:
            return None
        self.report("Comparing speculation with none.", 0.97)
        variant = Variant("best", self.folder, replace(self.spec, hints=hints))
        try:
            with PairedRun([variant], self.cancel) as paired:
                found = [self._speculation_gains(paired, kind) for kind, _ in _INSTRUCTIONS]
        except StoppedError:
            raise
        except PaddockError as error:
            return f"Speculation was not measured: {error}"
        texts = (
            f"{text} × {auto:.2f} with auto and × {on:.2f} with on"
            for (_, text), (auto, on) in zip(_INSTRUCTIONS, found, strict=True)
        )
        return f"Decode rate with speculation relative to off: {', '.join(texts)}."

    def _speculation_gains(self, paired: PairedRun, kind: str) -> tuple[float, float]:
        """Return the decode rates of *auto* and *on* relative to *off*.

        The first round is not timed: it loads the pipeline with prompt lookup.
        """
        rounds = []
        for number in range(self.rounds + 1):
            times = {}
            for speculation in _SPECULATIONS[:: 1 if number % 2 else -1]:
                answer = paired.processes["best"].run(
                    do="ask",
                    model=self.spec.model,
                    kind=kind,
                    prompt_tokens=_PASSAGE_TOKENS,
                    new_tokens=NEW_TOKENS,
                    seed=0,
                    speculation=asdict(speculation),
                )
                times[speculation.mode] = answer["ms_per_token"]
            rounds.append(times)
        auto, on = (
            median(times[SpeculationMode.OFF] / times[mode] for times in rounds[1:])
            for mode in (SpeculationMode.AUTO, SpeculationMode.ON)
        )
        return auto, on

    def _perplexity(self, hints: ExecutionHints) -> float:
        variant = Variant("new", self.folder, replace(self.spec, hints=hints))
        with PairedRun([variant], self.cancel) as paired:
            return _perplexity_of(paired, "new", self.spec.model)

    def _paired(self, best: ExecutionHints, hints: ExecutionHints) -> PairedRun:
        variants = [
            Variant(name, self.folder, replace(self.spec, hints=each))
            for name, each in (("best", best), ("new", hints))
        ]
        return PairedRun(variants, self.cancel)

    def _measured(self, paired: PairedRun) -> dict:
        return paired.medians(
            self.rounds, do="answer", prompt_tokens=PROMPT_TOKENS, new_tokens=NEW_TOKENS
        )


def wording(hints: ExecutionHints) -> str:
    """Describe hints in words: "execution in f32, KV cache in u8"."""
    parts = []
    if hints.inference_precision:
        parts.append(f"execution in {hints.inference_precision}")
    if hints.kv_cache_precision:
        parts.append(f"KV cache in {hints.kv_cache_precision}")
    if hints.threads:
        parts.append(f"{hints.threads} {'thread' if hints.threads == 1 else 'threads'}")
    if hints.dynamic_quantization_group is not None:
        group = hints.dynamic_quantization_group
        parts.append(f"activations in groups of {group}" if group else "activations unquantised")
    return ", ".join(parts) or "the plugin's defaults"


Change = Callable[[ExecutionHints], ExecutionHints]


def _axes(precision: Precision, device: str) -> Iterator[list[Change]]:
    """Yield the candidates of each hint, those with the largest effect first."""
    if device in ("CPU", "AUTO"):
        yield _setting("inference_precision", *_execution_precisions())
        if precision.compressed or precision is Precision.STORED:
            yield _setting("dynamic_quantization_group", 0, 64, 128, 256)
        yield _setting("kv_cache_precision", "u8", "f16", "f32")
        yield _setting("threads", *_thread_counts())
    else:
        yield _setting("inference_precision", "f16", "f32")
        yield _setting("kv_cache_precision", "u8", "f16")


def _setting(name: str, *values: object) -> list[Change]:
    return [lambda hints, value=value: replace(hints, **{name: value}) for value in values]


def _execution_precisions() -> list[str]:
    """Return the precisions this processor computes in; bf16 only if it has instructions for it."""
    import openvino

    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["f32", "bf16"] if "BF16" in capabilities else ["f32"]


def _thread_counts() -> list[int]:
    host = host_facts()
    physical = host.physical_cores or host.logical_cores
    return sorted({physical, host.logical_cores, max(1, physical - 1)}, reverse=True)


def _perplexity_of(paired: PairedRun, name: str, model: str) -> float:
    found = paired.processes[name].run(do="perplexity", model=model)
    return math.exp(found["nll"] / found["tokens"])
