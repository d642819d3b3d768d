"""Tests of the Optimum runtime: errors, conditions and generation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.errors import CorruptModelError, GenerationError
from core.inference.engine import Engine
from core.runtimes.base import InterruptedGeneration
from core.runtimes.optimum import OptimumModel, OptimumRuntime, openvino_properties
from core.runtimes.spec import ExecutionHints, ModelSpec, SamplingSettings, TokenRequest
from core.settings import CHECKOUT
from core.store import StoredModel, resolve
from tests.runtimes.interrupting import interrupted

SpecOf = Callable[..., ModelSpec]


@pytest.fixture
def folder(spec_of: SpecOf, engine: Engine, tmp_path: Path) -> Path:
    """A copy of a converted model that a test can damage."""
    spec = spec_of("gpt_neox")
    copy = tmp_path / "copy"
    shutil.copytree(stored(engine, spec).folder, copy)
    return copy


def stored(engine: Engine, spec: ModelSpec) -> StoredModel:
    found = engine.store.get(resolve(spec.model), spec.precision)
    assert found is not None
    return found


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


DAMAGES = {
    "weights cut off": lambda folder: cut(folder / "openvino_model.bin", 0.5),
    "weights gone": lambda folder: (folder / "openvino_model.bin").unlink(),
    "network cut off": lambda folder: cut(folder / "openvino_model.xml", 0.5),
    "network empty": lambda folder: (folder / "openvino_model.xml").write_bytes(b""),
    "configuration gone": lambda folder: (folder / "config.json").unlink(),
    "configuration damaged": lambda folder: (folder / "config.json").write_text("{"),
    "tokenizer damaged": lambda folder: cut(folder / "tokenizer.json", 0.5),
    "tokenizer of another kind": lambda folder: (folder / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "model": {"type": "None"}})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_files_raise_a_one_line_error(damage, folder: Path):
    damage(folder)
    spec = ModelSpec("mine", Precision.FP32, "CPU")
    with pytest.raises(CorruptModelError) as failure:
        OptimumRuntime().load(folder, spec)
    message = str(failure.value)
    assert "mine in FP32 cannot be loaded" in message and "convert the model again" in message
    assert "\n" not in message and len(message) < 400


def test_error_of_a_device_is_not_reported_as_damaged_files(folder: Path, monkeypatch):
    from optimum.intel import OVModelForCausalLM

    def refuse(self):
        raise RuntimeError("Exception from src/core.cpp:1:\nthe plugin lacks an operation")

    monkeypatch.setattr(OVModelForCausalLM, "compile", refuse)
    with pytest.raises(GenerationError, match=r"NPU cannot run mine.*lacks an operation.*Choose"):
        OptimumRuntime().load(folder, ModelSpec("mine", Precision.FP32, "NPU"))


@pytest.mark.parametrize("device", ["CPU", "AUTO"])
def test_conditions_are_read_back_from_the_compiled_model(device, spec_of, engine):
    spec = spec_of("gpt_neox")
    hints = ExecutionHints("f32", "u8", threads=1)
    wanted = ModelSpec(spec.model, spec.precision, device, hints=hints)
    model = OptimumRuntime().load(stored(engine, spec).folder, wanted)
    conditions = model.conditions
    assert conditions.execution_precision == "f32"
    assert conditions.kv_cache_precision == "u8"
    assert conditions.devices_used == ("CPU",)
    assert conditions.threads == 1
    assert conditions.hints["INFERENCE_PRECISION_HINT"] == "f32"
    assert conditions.hints["INFERENCE_NUM_THREADS"] == 1
    assert model.positions == 8192
    assert model.end_ids == {0}
    model.close()


def test_auto_applies_hints_to_the_cpu():
    hints = ExecutionHints(inference_precision="f32")
    assert openvino_properties("CPU", hints) == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    assert openvino_properties("AUTO", hints) == {
        "PERFORMANCE_HINT": "LATENCY",
        "DEVICE_PROPERTIES": {"CPU": {"INFERENCE_PRECISION_HINT": "f32"}},
    }
    assert "CACHE_DIR" not in openvino_properties("CPU", ExecutionHints())


@pytest.fixture
def model(spec_of: SpecOf, engine: Engine):
    spec = spec_of("gpt_neox")
    loaded = OptimumRuntime().load(stored(engine, spec).folder, spec)
    yield loaded
    loaded.close()


def ids_of(model: OptimumModel, request: TokenRequest) -> list[int]:
    ids: list[int] = []
    model.generate(request, lambda token_id: ids.append(token_id) or True)
    return ids


def test_model_stays_usable_after_an_interrupted_prefill(model: OptimumModel):
    short = TokenRequest((5, 6, 7), SamplingSettings(max_new_tokens=8, greedy=True))
    before = ids_of(model, short)
    long = TokenRequest((5, 6, 7) * 2600, SamplingSettings(max_new_tokens=8, greedy=True))
    with interrupted(model, long), pytest.raises(InterruptedGeneration):
        ids_of(model, long)
    assert ids_of(model, short) == before


def test_interrupt_of_an_idle_model_does_nothing(model: OptimumModel):
    model.interrupt(TokenRequest((5,), SamplingSettings()))
    assert len(ids_of(model, TokenRequest((5,), SamplingSettings(max_new_tokens=3)))) == 3


def test_stop_id_ends_generation_and_is_included(model: OptimumModel):
    sampling = SamplingSettings(max_new_tokens=16, greedy=True)
    free = ids_of(model, TokenRequest((5, 6, 7), sampling))
    stop = free[4]
    stopped = ids_of(model, TokenRequest((5, 6, 7), sampling, frozenset({stop})))
    assert stopped == free[: free.index(stop) + 1]


def test_on_token_can_end_the_answer(model: OptimumModel):
    ids: list[int] = []
    model.generate(
        TokenRequest((5, 6, 7), SamplingSettings(max_new_tokens=50, greedy=True)),
        lambda token_id: ids.append(token_id) or len(ids) < 3,
    )
    assert len(ids) == 3


def test_exception_in_on_token_is_raised(model: OptimumModel):
    def fail(token_id: int) -> bool:
        raise KeyError(token_id)

    with pytest.raises(KeyError):
        model.generate(TokenRequest((5,), SamplingSettings(max_new_tokens=3)), fail)
    assert len(ids_of(model, TokenRequest((5,), SamplingSettings(max_new_tokens=3)))) == 3


def test_openvino_error_becomes_a_one_line_error(model: OptimumModel, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("Exception from src/inference.cpp:79:\n\nout of device memory\n")

    request = TokenRequest((5,), SamplingSettings(max_new_tokens=3, greedy=True))
    with monkeypatch.context() as patch:
        patch.setattr(model._model, "generate", fail)
        with pytest.raises(GenerationError, match="out of device memory") as failure:
            ids_of(model, request)
    assert "\n" not in str(failure.value)
    assert len(ids_of(model, request)) == 3


def test_global_random_state_is_neither_used_nor_changed(model: OptimumModel):
    import torch

    request = TokenRequest((5, 6), SamplingSettings(max_new_tokens=12, seed=7, temperature=2.0))
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = ids_of(model, request)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert ids_of(model, request) == first


def test_imported_objects_are_frozen_and_models_are_not():
    code = (
        "import gc\n"
        "from core.runtimes.optimum import OptimumRuntime\n"
        "OptimumRuntime().prepare()\n"
        "frozen, watched = gc.get_freeze_count(), len(gc.get_objects())\n"
        "later = [[] for _ in range(1000)]\n"
        "OptimumRuntime().prepare()\n"
        "print(frozen, watched, gc.get_freeze_count() - frozen)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=300
    )
    frozen, watched, more = map(int, done.stdout.split())
    assert frozen > 100_000 and watched < 10_000
    assert more <= 0, "the second call must not freeze the first model's objects"
