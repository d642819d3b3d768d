"""Tests of the PyTorch baseline: the same answers as the converted model, and errors."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.catalogue import Precision
from core.errors import BadRequestError, CorruptModelError, GenerationError
from core.inference.engine import Engine, default_runtimes
from core.runtimes.base import InterruptedGeneration
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.pytorch import PyTorchModel, PyTorchRuntime
from core.runtimes.spec import (
    ANSWERING_RUNTIMES,
    ExecutionHints,
    ModelSpec,
    RuntimeName,
    SamplingSettings,
    TokenRequest,
)
from core.settings import Settings
from core.store import resolve

PROMPT = tuple(range(5, 25))


def spec_for(folder: Path, precision: Precision = Precision.FP32, **options) -> ModelSpec:
    return ModelSpec(str(folder), precision, "CPU", RuntimeName.PYTORCH, **options)


@pytest.fixture(scope="module")
def folder(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("gpt_neox")


@pytest.fixture(scope="module")
def model(folder: Path) -> PyTorchModel:
    runtime = PyTorchRuntime()
    runtime.prepare()
    return runtime.load(folder, spec_for(folder))


def ids_of(model, sampling: SamplingSettings, stop_ids: frozenset[int] = frozenset()) -> list[int]:
    ids: list[int] = []
    model.generate(
        TokenRequest(PROMPT, sampling, stop_ids), lambda token: ids.append(token) or True
    )
    return ids


def test_answers_and_scores_equal_those_of_the_converted_model(
    model: PyTorchModel, spec_of: Callable[..., ModelSpec], engine: Engine
):
    spec = spec_of("gpt_neox", Precision.FP32)
    stored = engine.store.get(resolve(spec.model), spec.precision)
    assert stored is not None
    other = OptimumRuntime().load(stored.folder, spec)
    for sampling in (
        SamplingSettings(max_new_tokens=12, greedy=True),
        SamplingSettings(max_new_tokens=12, temperature=0.9, top_k=20, seed=7),
    ):
        assert ids_of(model, sampling) == ids_of(other, sampling)
    ours, theirs = model.scores(PROMPT), other.scores(PROMPT)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == np.float32
    assert np.abs(ours - theirs).max() < 1e-3
    assert ids_of(other, SamplingSettings(max_new_tokens=1, greedy=True)) == [theirs[-1].argmax()]
    other.close()


def test_conditions_are_the_effective_ones(model: PyTorchModel, folder: Path):
    import torch

    assert model.conditions.execution_precision == model.conditions.kv_cache_precision == "f32"
    assert model.conditions.devices_used == ("CPU",) and model.conditions.threads >= 1
    assert model.positions == 8192 and model.end_ids == frozenset({0})
    before = torch.get_num_threads()
    try:
        half = PyTorchRuntime().load(
            folder, spec_for(folder, Precision.FP16, hints=ExecutionHints(threads=1))
        )
        assert half.conditions.execution_precision == "bf16" and half.conditions.threads == 1
        assert half._model.dtype is torch.bfloat16
    finally:
        torch.set_num_threads(before)


def test_stop_ids_and_on_token_end_an_answer(model: PyTorchModel):
    sampling = SamplingSettings(max_new_tokens=8, greedy=True)
    free = ids_of(model, sampling)
    assert len(free) == 8
    assert ids_of(model, sampling, frozenset({free[2]})) == free[: free.index(free[2]) + 1]
    taken: list[int] = []
    model.generate(TokenRequest(PROMPT, sampling), lambda token: taken.append(token) or False)
    assert taken == free[:1]


def test_model_stays_usable_after_an_interrupted_prefill(
    model: PyTorchModel,
):
    sampling = SamplingSettings(max_new_tokens=8, greedy=True)
    before = ids_of(model, sampling)
    ended = threading.Event()
    long = TokenRequest(tuple(5 + at % 200 for at in range(4000)), sampling)

    def interrupt() -> None:
        while not ended.wait(0.001):
            model.interrupt(long)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(InterruptedGeneration):
            model.generate(long, lambda token: True)
    finally:
        ended.set()
        thread.join()
    model.interrupt(long)  # no effect on an idle model
    assert ids_of(model, sampling) == before


def test_damaged_checkpoint_raises_a_one_line_error(tmp_path: Path, folder: Path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(CorruptModelError, match="cannot be loaded with PyTorch") as failure:
        PyTorchRuntime().load(tmp_path, spec_for(tmp_path))
    assert "\n" not in str(failure.value)


def test_torch_error_becomes_a_one_line_error(model: PyTorchModel, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("somewhere\nthe sizes do not match")

    monkeypatch.setattr(model._model, "forward", fail)
    with pytest.raises(GenerationError, match=r"Generation with PyTorch failed \(the sizes"):
        ids_of(model, SamplingSettings(max_new_tokens=2, greedy=True))
    with pytest.raises(GenerationError, match="Scoring a text with PyTorch failed"):
        model.scores(PROMPT)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_compressed_precisions_are_rejected(precision: Precision, folder: Path):
    with pytest.raises(BadRequestError, match="in FP32 and FP16, not in INT"):
        PyTorchRuntime().load(folder, spec_for(folder, precision))


def test_other_devices_are_rejected(folder: Path):
    with pytest.raises(BadRequestError, match="not on GPU"):
        PyTorchRuntime().load(folder, ModelSpec("x", Precision.FP16, "GPU", RuntimeName.PYTORCH))


def test_pages_do_not_offer_pytorch():
    import core.ui.compare.setup
    import core.ui.widgets.pickers

    assert RuntimeName.PYTORCH not in ANSWERING_RUNTIMES
    assert set(default_runtimes(Settings())) == set(ANSWERING_RUNTIMES)
    for module in (core.ui.widgets.pickers, core.ui.compare.setup):
        source = inspect.getsource(module)
        assert "in RuntimeName" not in source and "(RuntimeName)" not in source
