"""Searches the execution hints with which a model decodes fastest, one model at a time.

One hint after another is tried against the best so far, each in a new process, the two in turns. A
faster one is kept only if the model's perplexity with it is as good as with the default hints.

Speculation is measured under the best hints and only reported: *auto* decides for each answer.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from core.benchmark.artifacts import Artifact, check_memory, prepare_artifact
from core.benchmark.lock import BenchmarkLock
from core.benchmark.speed.paired import PairedRun, Variant, in_turns, median_ratio
from core.catalogue import Precision
from core.errors import BadRequestError, GenerationError, ModelBusyError, PaddockError, StoppedError
from core.hardware.devices import host_facts, require_device
from core.runtimes.spec import (
    ANSWERING_RUNTIMES,
    AUTO_SPECULATION,
    NO_SPECULATION,
    ExecutionHints,
    ModelSpec,
    RuntimeName,
    Speculation,
    SpeculationMode,
)
from core.runtimes.tuned_hints import Tuned, TuningKey
from core.settings import Settings
from core.store import ModelStore
from core.workers.process import Event

logger = logging.getLogger(__name__)

PERPLEXITY_LIMIT = 1.01
"""Ratio of perplexities up to which users notice no difference."""

PERPLEXITY_LIMITS = (1.0, 2.0)
"""Allowed range of the limit."""

LEAST_GAIN = 1.02
"""Smaller gains are noise, and the previous hints are kept."""

LONGEST_FIRST_TOKEN = 1.25
"""Limit of the time to first token relative to the best so far: faster decoding does not justify a
longer wait before it."""

ROUNDS = 5
PROMPT_TOKENS = 128
NEW_TOKENS = 64

_LOADED_AT_ONCE = 2
"""Processes of a paired run that have the model in memory."""

_SPECULATIONS = (NO_SPECULATION, AUTO_SPECULATION, Speculation(SpeculationMode.ON))
_INSTRUCTIONS = {"summary": "the summary of a passage", "open question": "an open question"}
"""Kinds of instruction (:mod:`core.benchmark.speed.paired_worker`) for speculation, and as text."""
_PASSAGE_TOKENS = 160
"""Length of the prompt with a passage."""


@dataclass(frozen=True)
class Trial:
    """One candidate compared with the best before it."""

    hints: ExecutionHints
    gain: float
    """Decode rate relative to the best before it."""
    perplexity_ratio: float | None
    """Relative to the default hints; None if it was not fast enough to be measured."""
    kept: bool


class TuningRun:
    """A running or finished search; callers poll its attributes."""

    def __init__(
        self, spec: ModelSpec, key: str, perplexity_limit: float = PERPLEXITY_LIMIT
    ) -> None:
        """
        Args:
            spec: its hints are ignored.
            key: of the stored model.
        """
        self.spec = spec
        self.message = "Preparing."
        self.share = 0.0
        self.result: Tuned | None = None
        self.speculation: str | None = None
        """What speculation brings under the best hints, as a sentence."""
        self.error: PaddockError | None = None
        self.trials: list[Trial] = []
        self.cancelled = threading.Event()
        self._key = key
        self._perplexity_limit = perplexity_limit
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether the search has ended, successfully or not."""
        return self._done.is_set()

    def cancel(self) -> None:
        """Stop the search; stored hints do not change."""
        self.cancelled.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return False on a timeout."""
        return self._done.wait(timeout_s)

    def report(self, message: str, share: float | None) -> None:
        """Set what is done now, and the finished share of it."""
        self.message, self.share = message, share or 0.0

    def search(self, folder: Path) -> Tuned:
        """Try all candidates and return the best, which may be the default hints. Blocks for
        minutes.

        Raises:
            StoppedError: :meth:`cancel` was called.
            GenerationError: a measuring process failed.
        """
        usual = ExecutionHints.default_for(self.spec.precision, self.spec.device)
        best, reference, ratio = usual, None, 1.0
        axes = list(_axes(self.spec.precision, self.spec.device))
        for number, (hint, values) in enumerate(axes):
            for hints in dict.fromkeys(replace(best, **{hint: value}) for value in values):
                if self.cancelled.is_set():
                    raise StoppedError("Tuning was stopped. The hints are unchanged.")
                if hints == best or hints in (trial.hints for trial in self.trials):
                    continue
                self.report(f"Trying {wording(hints)}.", number / len(axes))
                if reference is None:
                    with self._paired(folder, new=usual) as paired:
                        reference = self._perplexity(paired)
                trial = self._try(folder, hints, best, reference)
                self.trials.append(trial)
                if trial.kept:
                    best, ratio = hints, trial.perplexity_ratio or 1.0
        self.report("Comparing the best with the default hints.", 0.95)
        with self._paired(folder, best=usual, new=best) as paired:
            found = _measured(paired)
        rate, before = found["new"]["tokens_per_s"], found["best"]["tokens_per_s"]
        if best != usual and rate < before:  # better in each step, but not overall
            best, rate, ratio = usual, before, 1.0
        spec = self.spec
        return Tuned(
            key=TuningKey.here(self._key, spec.precision, spec.device, spec.runtime),
            hints=best,
            gain=1.0 if best == usual else rate / before,
            tokens_per_s=rate,
            usual_tokens_per_s=before,
            perplexity_ratio=ratio,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _try(
        self, folder: Path, hints: ExecutionHints, best: ExecutionHints, reference: float
    ) -> Trial:
        with self._paired(folder, best=best, new=hints) as paired:
            found = _measured(paired)
            gain = found["new"]["tokens_per_s"] / found["best"]["tokens_per_s"]
            first = found["new"]["ttft_ms"] / found["best"]["ttft_ms"]
            if gain < LEAST_GAIN or first > LONGEST_FIRST_TOKEN:
                return Trial(hints, gain, None, False)
            ratio = self._perplexity(paired) / reference
        return Trial(hints, gain, ratio, ratio <= self._perplexity_limit)

    def compare_speculation(self, folder: Path, hints: ExecutionHints) -> str | None:
        """Compare *auto* and *on* with *off* under these hints.

        Returns:
            A sentence with the result, or why there is none; None for runtimes that do not guess
            tokens.

        Raises:
            StoppedError: :meth:`cancel` was called.
        """
        if self.spec.runtime is not RuntimeName.GENAI:
            return None
        self.report("Comparing speculation with none.", 0.97)
        texts = []
        try:
            with self._paired(folder, best=hints) as paired:
                for kind, text in _INSTRUCTIONS.items():
                    # The first round, which is not counted, loads the pipeline with prompt lookup.
                    times = in_turns(
                        ROUNDS,
                        {
                            each.mode: partial(self._answer, paired, kind, each)
                            for each in _SPECULATIONS
                        },
                    )
                    auto, on = (
                        median_ratio(times[SpeculationMode.OFF], times[mode], "ms_per_token")
                        for mode in (SpeculationMode.AUTO, SpeculationMode.ON)
                    )
                    texts.append(f"{text} × {auto:.2f} with auto and × {on:.2f} with on")
        except StoppedError:
            raise
        except PaddockError as error:
            return f"Speculation was not measured: {error}"
        return f"Decode rate with speculation relative to off: {', '.join(texts)}."

    def _answer(
        self, paired: PairedRun, kind: str, speculation: Speculation, _number: int
    ) -> Event:
        return paired.processes["best"].run(
            do="answer",
            model=self._key,
            kind=kind,
            prompt_tokens=_PASSAGE_TOKENS,
            new_tokens=NEW_TOKENS,
            seed=0,
            speculation=asdict(speculation),
        )

    def _perplexity(self, paired: PairedRun) -> float:
        found = paired.processes["new"].run(do="perplexity", model=self._key)
        return math.exp(found["nll"] / found["tokens"])

    def _paired(self, folder: Path, **hints: ExecutionHints) -> PairedRun:
        """Return processes that run the model with these hints, by name."""
        spec = replace(self.spec, model=self._key)
        variants = [Variant(name, folder, replace(spec, hints=h)) for name, h in hints.items()]
        return PairedRun(variants, self.cancelled)


class TuningService:
    """Starts searches for execution hints, in the background."""

    def __init__(
        self,
        settings: Settings,
        keep: Callable[[Tuned], None],
        working: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """
        Args:
            keep: called with the result.
            working: context manager that marks this work as disturbing other timings.
        """
        self.current: TuningRun | None = None
        """The latest search."""
        self._settings = settings
        self._keep = keep
        self._working = working
        self._lock = threading.Lock()

    def start(self, spec: ModelSpec, perplexity_limit: float = PERPLEXITY_LIMIT) -> TuningRun:
        """Start a search and return at once.

        Raises:
            ModelBusyError: another model is being tuned, or a benchmark is running.
            BadRequestError, UnknownModelError, UnknownDeviceError: the request is invalid.
        """
        if spec.runtime not in ANSWERING_RUNTIMES:
            raise BadRequestError(
                "Only OpenVINO runtimes have execution hints. Choose "
                f"{' or '.join(ANSWERING_RUNTIMES)}."
            )
        low, high = PERPLEXITY_LIMITS
        if not low <= perplexity_limit <= high:
            raise BadRequestError(
                f"The perplexity limit is {perplexity_limit}. Enter a ratio from {low} to {high}."
            )
        spec = replace(spec, device=require_device(spec.device))
        key = ModelStore(self._settings).resolve(spec.model).key
        with self._lock:
            if self.current is not None and not self.current.done:
                raise ModelBusyError(
                    f"{self.current.spec.label} is being tuned. Wait for it, or stop it."
                )
            lock = BenchmarkLock(self._settings)
            lock.acquire()
            self.current = run = TuningRun(spec, key, perplexity_limit)
        threading.Thread(target=self._run, args=(run, lock), name="tune", daemon=True).start()
        return run

    def close(self) -> None:
        """Stop the current search and wait for its end."""
        if self.current is not None:
            self.current.cancel()
            self.current.wait()

    def _run(self, run: TuningRun, lock: BenchmarkLock) -> None:
        spec = run.spec
        try:
            with self._working():
                ready = prepare_artifact(
                    Artifact(spec.model, False, spec.precision.on(spec.device)),
                    self._settings,
                    on_progress=run.report,
                    cancel=run.cancelled,
                )
                check_memory(spec.label, ready, self._settings, at_once=_LOADED_AT_ONCE)
                tuned = run.search(ready.folder)
                run.speculation = run.compare_speculation(ready.folder, tuned.hints)
                run.result = tuned
            self._keep(tuned)
            run.message = "Done."
        except StoppedError as error:
            run.message = str(error)
        except PaddockError as error:
            run.error, run.message = error, str(error)
        except Exception as error:
            logger.exception("Tuning failed unexpectedly")
            run.error = GenerationError(f"Tuning failed ({error}). Try again.")
            run.message = str(run.error)
        finally:
            lock.release()
            run._done.set()


def _measured(paired: PairedRun) -> dict[str, dict[str, float]]:
    return paired.medians(ROUNDS, do="answer", prompt_tokens=PROMPT_TOKENS, new_tokens=NEW_TOKENS)


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


def _axes(precision: Precision, device: str) -> Iterator[tuple[str, Sequence[object]]]:
    """Yield each hint and its candidates, those with the largest effect first."""
    if device in ("CPU", "AUTO"):
        import openvino

        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        # bf16 only if the processor has instructions for it.
        yield "inference_precision", ["f32", "bf16"] if "BF16" in capabilities else ["f32"]
        if precision.compressed or precision is Precision.STORED:
            yield "dynamic_quantization_group", (0, 64, 128, 256)
        yield "kv_cache_precision", ("u8", "f16", "f32")
        host = host_facts()
        physical = host.physical_cores or host.logical_cores
        yield "threads", sorted({physical, host.logical_cores, max(1, physical - 1)}, reverse=True)
    else:
        yield "inference_precision", ("f16", "f32")
        yield "kv_cache_precision", ("u8", "f16")
