"""The search for execution hints, with scripted processes and once with a real one."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.__main__ import main
from core.benchmark import artifacts, tuning
from core.benchmark.artifacts import PreparedArtifact
from core.benchmark.lock import BenchmarkLock
from core.benchmark.speed.paired import Variant
from core.benchmark.tuning import TuningRun, TuningService, wording
from core.catalogue import Precision
from core.errors import (
    BadRequestError,
    GenerationError,
    ModelBusyError,
    NotEnoughMemoryError,
    StoppedError,
    UnknownModelError,
)
from core.inference.contention import MONITOR
from core.inference.engine import Engine
from core.runtimes.pool import memory_for
from core.runtimes.spec import ExecutionHints, ModelSpec, RuntimeName
from core.runtimes.tuned_hints import Tuned, TunedHints, TuningKey
from core.settings import Settings
from core.store import resolve
from tests.waiting import PATIENCE_S

SPEC = ModelSpec("mine", Precision.INT8, "CPU", RuntimeName.GENAI)
USUAL = ExecutionHints(inference_precision="f32")
NOWHERE = Path("nowhere")


class ScriptedPairedRun:
    """Decode rates and perplexities that a test defines by hints."""

    rate: Callable[[ExecutionHints], float] = staticmethod(lambda hints: 100.0)
    perplexity: Callable[[ExecutionHints], float] = staticmethod(lambda hints: 5.0)
    first_token: Callable[[ExecutionHints], float] = staticmethod(lambda hints: 10.0)
    guessing: Callable[[str, str], float] = staticmethod(lambda mode, kind: 10.0)
    """Milliseconds per token."""

    def __init__(self, variants: list[Variant], cancel: threading.Event) -> None:
        self.hints = {variant.name: variant.spec.effective_hints for variant in variants}
        self.processes = {name: self.Asked(self, name) for name in self.hints}

    class Asked:
        def __init__(self, paired: ScriptedPairedRun, name: str) -> None:
            self.hints = paired.hints[name]

        def run(self, do: str, model: str, **command: Any) -> dict[str, float]:
            if do == "answer":
                mode = command["speculation"]["mode"]
                return {"ms_per_token": ScriptedPairedRun.guessing(mode, command["kind"])}
            assert do == "perplexity"
            return {"nll": 10 * math.log(ScriptedPairedRun.perplexity(self.hints)), "tokens": 10}

    def __enter__(self) -> ScriptedPairedRun:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def medians(self, rounds: int, **command: object) -> dict[str, dict[str, float]]:
        return {
            name: {
                "tokens_per_s": ScriptedPairedRun.rate(hints),
                "ttft_ms": ScriptedPairedRun.first_token(hints),
            }
            for name, hints in self.hints.items()
        }


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedPairedRun]:
    monkeypatch.setattr(tuning, "PairedRun", ScriptedPairedRun)
    for name in ("rate", "perplexity", "first_token", "guessing"):
        monkeypatch.setattr(ScriptedPairedRun, name, staticmethod(getattr(ScriptedPairedRun, name)))
    return ScriptedPairedRun


def test_fastest_hints_are_combined(scripted, monkeypatch):
    def rate(hints: ExecutionHints) -> float:
        fast = 1.5 if hints.dynamic_quantization_group == 64 else 1.0
        return 100.0 * fast * (1.2 if hints.kv_cache_precision == "f16" else 1.0)

    monkeypatch.setattr(scripted, "rate", staticmethod(rate))
    found = TuningRun(SPEC, "mine").search(NOWHERE)
    assert found.hints == ExecutionHints("f32", "f16", dynamic_quantization_group=64)
    assert found.gain == pytest.approx(1.8) and found.usual_tokens_per_s == 100.0
    assert (found.key.model, found.key.device) == ("mine", "CPU")


def test_hints_that_cost_quality_are_rejected(scripted, monkeypatch):
    monkeypatch.setattr(
        scripted,
        "rate",
        staticmethod(lambda hints: 200.0 if hints.dynamic_quantization_group else 100.0),
    )
    monkeypatch.setattr(
        scripted,
        "perplexity",
        staticmethod(lambda hints: 5.1 if hints.dynamic_quantization_group else 5.0),
    )
    strict = TuningRun(SPEC, "mine")
    assert strict.search(NOWHERE).hints == USUAL
    assert any(trial.perplexity_ratio == pytest.approx(1.02) for trial in strict.trials)
    assert not any(trial.kept for trial in strict.trials)
    generous = TuningRun(SPEC, "mine", perplexity_limit=1.05).search(NOWHERE)
    assert generous.gain == pytest.approx(2.0)
    assert generous.perplexity_ratio == pytest.approx(1.02)


def test_noise_and_slow_first_token_are_rejected(scripted, monkeypatch):
    monkeypatch.setattr(
        scripted, "rate", staticmethod(lambda hints: 101.0 if hints != USUAL else 100.0)
    )
    assert TuningRun(SPEC, "mine").search(NOWHERE).hints == USUAL
    monkeypatch.setattr(
        scripted, "rate", staticmethod(lambda hints: 150.0 if hints != USUAL else 100.0)
    )
    monkeypatch.setattr(
        scripted, "first_token", staticmethod(lambda hints: 15.0 if hints != USUAL else 10.0)
    )
    result = TuningRun(SPEC, "mine").search(NOWHERE)
    assert (result.hints, result.gain) == (USUAL, 1.0)


def test_stop_ends_the_search(scripted):
    run = TuningRun(SPEC, "mine")
    run.report = lambda message, share: run.cancel()
    with pytest.raises(StoppedError):
        run.search(NOWHERE)
    assert len(run.trials) == 1


def test_speculation_is_compared_with_none(scripted, monkeypatch):
    times = {("off", "summary"): 10, ("auto", "summary"): 4, ("on", "summary"): 5}
    times |= {("off", "open question"): 10, ("auto", "open question"): 10}
    times |= {("on", "open question"): 12.5}
    monkeypatch.setattr(scripted, "guessing", staticmethod(lambda *of: float(times[of])))
    run = TuningRun(SPEC, "mine")
    assert run.compare_speculation(NOWHERE, USUAL) == (
        "Decode rate with speculation relative to off: the summary of a passage × 2.50 with auto "
        "and × 2.00 with on, an open question × 1.00 with auto and × 0.80 with on."
    )
    optimum = replace(SPEC, runtime=RuntimeName.OPTIMUM)
    assert TuningRun(optimum, "mine").compare_speculation(NOWHERE, USUAL) is None

    def fail(mode: str, kind: str) -> float:
        raise GenerationError("No memory.")

    monkeypatch.setattr(scripted, "guessing", staticmethod(fail))
    assert run.compare_speculation(NOWHERE, USUAL) == "Speculation was not measured: No memory."


def test_hints_in_words():
    assert wording(ExecutionHints()) == "the plugin's defaults"
    assert wording(ExecutionHints("f32", "u8", 1, 0)) == (
        "execution in f32, KV cache in u8, 1 thread, activations unquantised"
    )


@pytest.mark.long
def test_real_model_is_tuned_and_hints_are_applied(
    engine: Engine, spec_of, monkeypatch: pytest.MonkeyPatch
):
    """With one hint and one round."""
    spec = spec_of("llama", Precision.INT8)
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_axes", lambda precision, device: [("threads", (1,))])
        patch.setattr(tuning, "LEAST_GAIN", 0.0)
        patch.setattr(tuning, "LONGEST_FIRST_TOKEN", 1e9)
        patch.setattr(tuning, "ROUNDS", 1)
        service = TuningService(engine.settings, engine.keep_tuned, MONITOR.running)
        run = service.start(spec, perplexity_limit=1.5)
        with pytest.raises(ModelBusyError):
            service.start(spec)
        assert run.wait(PATIENCE_S)
    assert run.error is None, run.message
    (trial,) = run.trials
    assert trial.hints.threads == 1 and trial.kept
    assert trial.perplexity_ratio == pytest.approx(1.0, abs=1e-3)
    assert engine.tuned.find(run.result.key) == run.result
    assert run.speculation.startswith("Decode rate with speculation relative to off"), (
        run.speculation
    )

    fixed = ExecutionHints(inference_precision="f32", threads=1)
    engine.keep_tuned(replace(run.result, hints=fixed))
    with engine.pool.lease(spec, lambda *news: None, threading.Event()) as lease:
        assert lease.model.conditions.threads == 1
        assert lease.model.conditions.hints["INFERENCE_NUM_THREADS"] == 1
    assert engine.forget_tuned(run.result.key) is True
    with engine.pool.lease(spec, lambda *news: None, threading.Event()) as lease:
        assert "INFERENCE_NUM_THREADS" not in lease.model.conditions.hints
    assert engine.forget_tuned(run.result.key) is False


def test_invalid_requests_are_refused_at_once(tmp_path: Path):
    settings = Settings(home=tmp_path)
    desk = TuningService(settings, lambda tuned: None, MONITOR.running)
    with pytest.raises(BadRequestError, match="OpenVINO"):
        desk.start(ModelSpec("paddock-neox", runtime=RuntimeName.PYTORCH))
    with pytest.raises(BadRequestError, match="perplexity"):
        desk.start(ModelSpec("paddock-neox"), perplexity_limit=0.5)
    with pytest.raises(UnknownModelError):
        desk.start(ModelSpec("no such model"))
    with BenchmarkLock(settings).acquire(), pytest.raises(ModelBusyError, match="benchmark"):
        desk.start(ModelSpec("paddock-neox"))
    assert desk.current is None
    assert resolve("paddock-neox").key == "paddock-neox"


@pytest.mark.parametrize(("free", "fits"), [(2, True), (1.9, False)])
def test_model_is_tuned_only_if_it_fits_twice(
    free: float, fits: bool, tmp_path: Path, scripted, monkeypatch: pytest.MonkeyPatch
):
    weights, settings = 2**30, Settings(home=tmp_path)
    ready = PreparedArtifact(tmp_path, weights, weights, 2048)
    monkeypatch.setattr(tuning, "prepare_artifact", lambda artifact, *_, **__: ready)
    there = int(free * memory_for(weights)) + settings.memory_reserve_mib * 2**20
    monkeypatch.setattr(artifacts, "available_memory_bytes", lambda: there)
    desk = TuningService(settings, lambda tuned: None, MONITOR.running)
    run = desk.start(ModelSpec("paddock-neox", Precision.INT8, "CPU", RuntimeName.GENAI))
    assert run.wait(PATIENCE_S)
    if fits:
        assert run.error is None and run.result is not None
    else:
        assert isinstance(run.error, NotEnoughMemoryError) and not run.trials
        assert "loaded 2 times, needs about 4.7 GB" in str(run.error)


@pytest.mark.parametrize("typed", ["cpu", " CPU ", "cpu.0"])
def test_device_name_is_not_case_sensitive(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = Settings(home=tmp_path)
    found = Tuned(
        key=TuningKey.here("paddock-neox", Precision.INT8, "CPU", RuntimeName.GENAI),
        hints=ExecutionHints(threads=1),
        gain=1.5,
        tokens_per_s=150.0,
        usual_tokens_per_s=100.0,
        perplexity_ratio=1.0,
        measured_at="2026-11-28T08:00:00+00:00",
    )
    ready = PreparedArtifact(tmp_path, 1, 1, 2048)
    monkeypatch.setattr(tuning, "prepare_artifact", lambda artifact, *_, **__: ready)
    monkeypatch.setattr(TuningRun, "search", lambda run, folder: found)
    monkeypatch.setattr(TuningRun, "compare_speculation", lambda *_: None)
    kept = TunedHints(tmp_path)
    run = TuningService(settings, kept.keep, MONITOR.running).start(
        ModelSpec("paddock-neox", Precision.INT8, typed, RuntimeName.GENAI)
    )
    assert run.wait(PATIENCE_S) and run.spec.device == "CPU"
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    forget = ("--precision", "int8", "--runtime", "genai", "--device", typed, "--forget")
    assert main(("tune", "paddock-neox", *forget)) == 0
    assert kept.find(found.key) is None
