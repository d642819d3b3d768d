"""Looks for the execution hints under which a model decodes fastest on this machine.

One hint after the other is tried against the best so far, each in a fresh process, the two asked by
turns; what is faster counts only where the model then reads texts as well as under the usual hints.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from core.benchmark.speed.paired import Duel, Way
from core.catalogue import Precision
from core.errors import StoppedError
from core.hardware.devices import host_facts
from core.runtimes.spec import ExecutionHints, ModelSpec
from core.runtimes.tuned_hints import Tuned, TuningKey

PERPLEXITY_LIMIT = 1.01
"""Ratio of perplexities up to which a hint costs nothing that a person would notice."""

LEAST_GAIN = 1.02
"""Below this a difference is noise, and the hints that are known better stay."""

LONGEST_FIRST_TOKEN = 1.25
"""Times the usual time to the first token that a hint may take: faster decoding is not worth any
wait before it."""

ROUNDS = 5
PROMPT_TOKENS = 128
NEW_TOKENS = 64

Tell = Callable[[str, float], None]
"""Told what is tried, as a sentence, and the share that is done."""


@dataclass(frozen=True)
class Trial:
    """One candidate against the best before it."""

    hints: ExecutionHints
    gain: float
    """Decode rate over that of the best before it."""
    first_token: float
    """Time to the first token over that of the best before it."""
    perplexity_ratio: float | None
    """To the usual hints; None where it was not fast enough to look."""
    kept: bool


@dataclass
class Tuning:
    """One search, and what was tried in it."""

    folder: Path
    spec: ModelSpec
    """Its model is the key of the stored model; its hints do not matter."""
    tell: Tell = lambda message, share: None
    cancel: threading.Event = field(default_factory=threading.Event)
    perplexity_limit: float = PERPLEXITY_LIMIT
    rounds: int = ROUNDS
    trials: list[Trial] = field(default_factory=list)

    def run(self) -> Tuned:
        """Try everything and return the best, which may be the usual hints. Blocks for minutes.

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
                    raise StoppedError("The tuning was stopped; the hints stay as they were.")
                if hints == best or hints in (trial.hints for trial in self.trials):
                    continue
                self.tell(f"Trying {wording(hints)}.", number / len(axes))
                if reference is None:
                    reference = self._perplexity(usual)
                trial = self._try(hints, best, reference)
                self.trials.append(trial)
                if trial.kept:
                    best, ratio = hints, trial.perplexity_ratio or 1.0
        return self._result(best, usual, ratio)

    def _try(self, hints: ExecutionHints, best: ExecutionHints, reference: float) -> Trial:
        with self._duel(best, hints) as duel:
            found = self._measured(duel)
            gain = found["new"]["tokens_per_s"] / found["best"]["tokens_per_s"]
            first = found["new"]["ttft_ms"] / found["best"]["ttft_ms"]
            if gain < LEAST_GAIN or first > LONGEST_FIRST_TOKEN:
                return Trial(hints, gain, first, None, False)
            ratio = _perplexity_of(duel, "new", self.spec.model) / reference
        return Trial(hints, gain, first, ratio, ratio <= self.perplexity_limit)

    def _result(self, best: ExecutionHints, usual: ExecutionHints, ratio: float) -> Tuned:
        """The best against the usual hints, once more and directly."""
        self.tell("Comparing the best with the usual hints.", 0.95)
        with self._duel(usual, best) as duel:
            found = self._measured(duel)
        rate, before = found["new"]["tokens_per_s"], found["best"]["tokens_per_s"]
        if best != usual and rate < before:  # what looked better by steps is not as a whole
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

    def _perplexity(self, hints: ExecutionHints) -> float:
        way = Way("new", self.folder, replace(self.spec, hints=hints))
        with Duel([way], self.cancel) as duel:
            return _perplexity_of(duel, "new", self.spec.model)

    def _duel(self, best: ExecutionHints, hints: ExecutionHints) -> Duel:
        ways = [
            Way(name, self.folder, replace(self.spec, hints=each))
            for name, each in (("best", best), ("new", hints))
        ]
        return Duel(ways, self.cancel)

    def _measured(self, duel: Duel) -> dict:
        return duel.medians(
            self.rounds, do="answer", prompt_tokens=PROMPT_TOKENS, new_tokens=NEW_TOKENS
        )


def wording(hints: ExecutionHints) -> str:
    """Hints in words: "execution in f32, KV cache in u8"."""
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
    """What is tried, one hint after the other; the most telling ones first."""
    if device in ("CPU", "AUTO"):
        yield _setting("inference_precision", *_execution_precisions())
        if precision in (Precision.INT8, Precision.INT4, Precision.STORED):
            yield _setting("dynamic_quantization_group", 0, 64, 128, 256)
        yield _setting("kv_cache_precision", "u8", "f16", "f32")
        yield _setting("threads", *_thread_counts())
    else:
        yield _setting("inference_precision", "f16", "f32")
        yield _setting("kv_cache_precision", "u8", "f16")


def _setting(name: str, *values: object) -> list[Change]:
    return [lambda hints, value=value: replace(hints, **{name: value}) for value in values]


def _execution_precisions() -> list[str]:
    """What this processor computes in; bf16 where it has instructions for it."""
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ["f32", "bf16"] if "BF16" in able else ["f32"]


def _thread_counts() -> list[int]:
    host = host_facts()
    physical = host.physical_cores or host.logical_cores
    return sorted({physical, host.logical_cores, max(1, physical - 1)}, reverse=True)


def _perplexity_of(duel: Duel, name: str, model: str) -> float:
    found = duel.contenders[name].ask(do="perplexity", model=model)
    return math.exp(found["nll"] / found["tokens"])
