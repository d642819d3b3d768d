"""Checks before loading whether models fit into memory together."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from core.catalogue import CONVERTED_PRECISIONS, Precision, catalogue
from core.compare.fit import fit_together
from core.runtimes import pool as pool_module
from core.runtimes.pool import MEMORY_BASE_BYTES, ModelPool, memory_for
from core.runtimes.spec import ModelSpec
from core.settings import Settings
from core.store import ModelStore
from core.store.manifest import Int4Record, write_manifest
from tests.fakes import FakeModel, FakeRuntime, fake_pool, stored_model
from tests.runtimes.test_pool import WordTokenizer

GIB = 2**30
WEIGHTS = 1000
NEED = 2 * WEIGHTS + MEMORY_BASE_BYTES


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, max_loaded_models=3, memory_reserve_mib=512)


@pytest.fixture
def pool(settings: Settings) -> ModelPool:
    runtime = FakeRuntime(lambda spec: FakeModel(WordTokenizer(), lambda request: [1, 1]))
    return fake_pool(settings, runtime, weight_bytes=WEIGHTS)


@pytest.fixture
def store(settings: Settings) -> ModelStore:
    return ModelStore(settings)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Sets the machine's free memory in bytes, the reserve of 512 MiB included."""

    def set_free(size: int) -> None:
        monkeypatch.setattr(pool_module, "available_memory_bytes", lambda: size + GIB // 2)

    return set_free


def load(pool: ModelPool, spec: ModelSpec) -> None:
    with pool.lease(spec, lambda message, fraction: None, threading.Event()):
        pass


def dolly(precision: Precision = Precision.INT8, device: str = "CPU") -> ModelSpec:
    return ModelSpec("dolly-v2-3b", precision, device)


def test_models_not_on_disk_are_estimated(pool: ModelPool, store: ModelStore, free):
    sides = (dolly(Precision.FP16), ModelSpec("phi-2", Precision.FP16, "CPU"))
    rows = catalogue()
    needed = sum(memory_for(2 * rows[spec.model].parameters) for spec in sides)
    free(int(needed * 1.05))
    assert fit_together(pool, store, sides) is None
    free(int(needed * 0.95))
    sentence = fit_together(pool, store, sides)
    assert sentence.startswith("Together these models need about 2") and sentence.endswith(
        "programs."
    )
    assert " GB more memory, but only " in sentence and "\n" not in sentence
    assert "Phi-2 · FP16" in sentence or "Dolly 2.0 3B · FP16" in sentence
    assert fit_together(pool, store, sides[:1]) is None


def test_lower_precisions_need_less(pool: ModelPool, store: ModelStore, free):
    other = ModelSpec("paddock-neox", Precision.INT8, "CPU")
    free(7 * GIB)
    fits = {p: fit_together(pool, store, (dolly(p), other)) is None for p in CONVERTED_PRECISIONS}
    assert fits == {
        Precision.FP32: False,
        Precision.FP16: False,
        Precision.INT8: True,
        Precision.INT4: True,
    }


def test_model_on_two_sides_counts_once(pool: ModelPool, store: ModelStore, free):
    free(7 * GIB)
    assert fit_together(pool, store, (dolly(), dolly())) is None
    assert fit_together(pool, store, (dolly(), dolly(device=" cpu "))) is None
    assert fit_together(pool, store, (dolly(), dolly(device="AUTO"))) is not None


def test_loaded_models_need_no_memory_and_idle_ones_are_unloaded(
    pool: ModelPool, store: ModelStore, free, monkeypatch: pytest.MonkeyPatch
):
    first, second = (ModelSpec(key, device="CPU") for key in ("paddock-neox", "paddock-llama"))
    free(4 * GIB)
    load(pool, first)
    monkeypatch.setattr("core.compare.fit._memory", lambda pool, store, spec: NEED)
    free(NEED)
    assert fit_together(pool, store, (first, second)) is None
    free(NEED - 1)
    assert fit_together(pool, store, (first, second)) is not None
    # With other models chosen, the loaded one is unloaded, which makes room for one.
    assert fit_together(pool, store, (second, dolly())) is not None
    free(NEED)
    assert fit_together(pool, store, (second, dolly())) is None


def test_more_models_than_the_pool_keeps(pool: ModelPool, store: ModelStore, free):
    free(900 * GIB)
    sides = tuple(dolly(precision) for precision in CONVERTED_PRECISIONS)
    sentence = fit_together(pool, store, sides)
    assert sentence.startswith("4 different models were chosen, but at most 3 models are kept")
    assert fit_together(pool, store, (*sides[:3], sides[0])) is None


def test_unknown_size_counts_as_zero(pool: ModelPool, store: ModelStore, free):
    free(0)
    unknown = (ModelSpec("org/unheard-of", device="CPU"), ModelSpec("no model", device="CPU"))
    assert fit_together(pool, store, unknown) is None
    assert fit_together(pool, store, (dolly(device="NPU"), dolly(device="FPGA"))) is None


@pytest.mark.usefixtures("an_npu")
def test_npu_weights_count_with_their_own_size(pool: ModelPool, store: ModelStore, free):
    spec = dolly(Precision.INT4, "NPU")
    free(GIB)
    assert fit_together(pool, store, (spec,)) is not None
    manifest = stored_model(spec).manifest
    for precision, int4 in ((Precision.INT4, False), (Precision.INT4_NPU, True)):
        folder = store.settings.models_dir / "dolly-v2-3b" / precision
        folder.mkdir(parents=True)
        record = Int4Record(
            symmetric=int4, group_size=-1, ratio=1.0, group_sizes={-1: 9}, four_bit_share=1.0
        )
        write_manifest(folder, manifest.model_copy(update={"int4": record}))
        assert (fit_together(pool, store, (spec,)) is None) is int4
