"""INT4 for an NPU: converted once for answers and benchmarks, beside the stored INT4 model.

No test has an NPU: OpenVINO is made to report one, and what measures there measures nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.benchmark.artifacts import (
    Artifact,
    PreparedArtifact,
    is_prepared,
    prepare_artifact,
)
from core.benchmark.estimate import estimate, required_artifacts
from core.benchmark.plan import Plan
from core.benchmark.random_models import (
    checkpoint_folder,
    random_settings,
    remove_random_weights,
)
from core.benchmark.service import Benchmark
from core.catalogue import Int4Settings, Precision, npu_int4
from core.db.database import Database
from core.db.measurement_values import Int4Weights, MeasurementState
from core.db.measurements import MeasurementStore
from core.errors import NotAModelError
from core.hardware import devices
from core.metrics.document import from_json, to_json
from core.settings import Settings
from core.store import ModelStore, StoredModel
from core.store.manifest import read_manifest
from core.store.weights import read_weights
from tests.benchmark.fake_work import FakeWork

SMALL = "paddock-neox"
"""Small, here without a network, and usually in INT4 with groups of 32."""

FOR_NPU = Artifact(SMALL, False, Precision.INT4_NPU)
USUAL = Artifact(SMALL, False, Precision.INT4)

PLAN = Plan(
    models=(SMALL,),
    random_models=(SMALL,),
    precisions=(Precision.INT4,),
    devices=("CPU", "NPU"),
    prompt_tokens=(32,),
    new_tokens=8,
    repeats=2,
)

AS_AN_NPU_TAKES_IT = Int4Weights(symmetric=True, group_size=-1, ratio=1.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", memory_reserve_mib=0)


@pytest.fixture
def store(settings: Settings) -> Iterator[MeasurementStore]:
    made = MeasurementStore(Database.open(settings, patience_s=0.1))
    yield made
    made.close()


@pytest.fixture
def benchmark_of(
    settings: Settings, store: MeasurementStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[FakeWork], Benchmark]]:
    """A benchmark that makes its models really ready, and measures nothing."""
    made: list[Benchmark] = []

    def build(work: FakeWork) -> Benchmark:
        work.install(monkeypatch.setattr)
        monkeypatch.setattr("core.benchmark.runner.prepare_artifact", prepare_artifact)
        made.append(Benchmark(settings, lambda: store))
        return made[-1]

    yield build
    for benchmark in made:
        benchmark.close()


def ready(artifact: Artifact, settings: Settings) -> PreparedArtifact:
    return prepare_artifact(
        artifact, settings, on_progress=lambda *news: None, cancel=threading.Event()
    )


def stored_by_a_person(settings: Settings, int4: Int4Settings | None = None) -> StoredModel:
    store = ModelStore(settings)
    return store.ensure(store.resolve(SMALL), Precision.INT4, compression=int4)


def state_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


# What a device wants


def test_only_int4_on_an_npu_is_another_artifact():
    plan = replace(PLAN, precisions=(Precision.INT8, Precision.INT4), devices=("CPU", "NPU.0"))
    found = [(item.random_weights, item.precision) for item in required_artifacts(plan)]
    assert found == [
        (is_random, precision)
        for is_random in (False, True)
        for precision in (Precision.INT8, Precision.INT4, Precision.INT4_NPU)
    ]
    assert FOR_NPU.label == "paddock-neox in INT4 for an NPU"
    assert USUAL.label == "paddock-neox in INT4"


def test_scale_estimation_does_not_matter_to_a_device():
    wanted = npu_int4()
    weights = Int4Settings(symmetric=True, group_size=-1, ratio=1.0)
    assert replace(weights, scale_estimation=True, awq=True).suits(wanted)
    for other in (
        *({"symmetric": False}, {"group_size": 128}, {"ratio": 0.8}),
        {"other_groups": "64"},
    ):
        assert not replace(weights, **other).suits(wanted)


# A person's models


def test_stored_model_stays_and_npu_gets_its_own(settings: Settings):
    mine = stored_by_a_person(settings)
    before = state_of(mine.folder)
    assert not mine.int4.suits(npu_int4())
    assert not is_prepared(FOR_NPU, settings)

    made = ready(FOR_NPU, settings)
    assert made.int4 == AS_AN_NPU_TAKES_IT
    report = read_weights(made.folder)
    assert report.symmetric and set(report.group_sizes) == {-1}
    assert is_prepared(FOR_NPU, settings) and ready(FOR_NPU, settings) == made
    assert made.folder == settings.models_dir / SMALL / "int4-npu"

    usual = ready(USUAL, settings)
    assert usual.folder == mine.folder and usual.int4.group_size == 32
    assert state_of(mine.folder) == before
    assert [each.folder for each in ModelStore(settings).list()] == [mine.folder, made.folder]


def test_benchmark_stores_no_usual_int4_model(settings: Settings):
    ready(FOR_NPU, settings)
    assert [each.precision for each in ModelStore(settings).list()] == [Precision.INT4_NPU]


@pytest.mark.parametrize("scale_estimation", [False, True])
def test_suitable_stored_model_is_measured(settings: Settings, scale_estimation: bool):
    mine = stored_by_a_person(settings, replace(npu_int4(), scale_estimation=scale_estimation))
    assert is_prepared(FOR_NPU, settings)
    made = ready(FOR_NPU, settings)
    assert made.folder == mine.folder
    assert made.int4 == replace(AS_AN_NPU_TAKES_IT, scale_estimation=scale_estimation)
    assert len(ModelStore(settings).list()) == 1


def test_stored_fp16_replaces_a_missing_original(settings: Settings, checkpoints):
    folder = settings.home.parent / "mine"
    shutil.copytree(checkpoints("llama"), folder)
    store = ModelStore(settings)
    fp16 = store.ensure(store.resolve(str(folder)), Precision.FP16)
    shutil.rmtree(folder)
    artifact = replace(FOR_NPU, model=str(folder))
    assert not is_prepared(artifact, settings)
    assert ready(artifact, settings).int4 == AS_AN_NPU_TAKES_IT
    assert is_prepared(artifact, settings)
    assert fp16 in store.list() and len(store.list()) == 2


def test_missing_model_is_an_error(settings: Settings, checkpoints):
    folder = settings.home.parent / "mine"
    shutil.copytree(checkpoints("llama"), folder)
    store = ModelStore(settings)
    store.ensure(store.resolve(str(folder)), Precision.INT4)
    shutil.rmtree(folder)
    with pytest.raises(NotAModelError, match=r"is missing\. Restore it, or choose another"):
        ready(replace(FOR_NPU, model=str(folder)), settings)


def test_int4_source_is_used_if_suitable(settings: Settings):
    """Its weights cannot be compressed again; which layers are in INT4 is its author's choice."""
    elsewhere = settings.model_copy(update={"home": settings.home.parent / "elsewhere"})
    groups = stored_by_a_person(elsewhere)
    with pytest.raises(NotAModelError) as raised:
        ready(replace(FOR_NPU, model=str(groups.folder)), settings)
    said = str(raised.value)
    assert "asymmetric, group size 32, ratio 0." in said and "a version for NPUs" in said
    ModelStore(elsewhere).delete(groups)
    channels = stored_by_a_person(elsewhere, npu_int4())
    artifact = replace(FOR_NPU, model=str(channels.folder))
    assert not is_prepared(artifact, settings)
    made = ready(artifact, settings)
    assert is_prepared(artifact, settings)
    assert (made.int4.symmetric, made.int4.group_size, made.int4.ratio) == (True, -1, 1.0)
    assert [each.precision for each in ModelStore(settings).list()] == [Precision.INT4]


def test_the_estimate_counts_both(settings: Settings):
    one = replace(PLAN, models=(), random_models=("tiny-llama-1b-chat",), devices=("CPU",))
    both = replace(one, devices=("CPU", "NPU"))
    more = estimate(both, settings).disk_bytes - estimate(one, settings).disk_bytes
    assert 0.5e9 < more < 0.8e9  # 1.1 billion weights in four bits, the embeddings in eight
    npu = replace(both, devices=("NPU",))
    assert estimate(npu, settings).disk_bytes < estimate(one, settings).disk_bytes


# Random weights


def test_random_weights_of_both_kinds_coexist(settings: Settings):
    usual, npu = Artifact(SMALL, True, Precision.INT4), replace(FOR_NPU, random_weights=True)
    first = ready(usual, settings)
    assert is_prepared(usual, settings) and not is_prepared(npu, settings)
    second = ready(npu, settings)
    assert is_prepared(npu, settings) and first.folder != second.folder
    assert first.int4.group_size == 32
    assert second.int4 == AS_AN_NPU_TAKES_IT
    assert ready(usual, settings) == first
    other = checkpoint_folder(settings, "neox-410m")
    other.mkdir(parents=True)
    remove_random_weights(settings, [SMALL])
    assert other.is_dir() and not first.folder.exists() and not second.folder.exists()
    assert ModelStore(random_settings(settings)).list() == []


# Whole sweeps


@pytest.mark.usefixtures("an_npu")
def test_each_device_is_measured_with_its_own_weights(
    settings: Settings, benchmark_of, store: MeasurementStore
):
    mine = stored_by_a_person(settings)
    before = state_of(mine.folder)
    seen: dict[tuple[str, str], bool] = {}

    def look(job) -> None:
        seen[job.spec.device, str(job.folder)] = read_weights(job.folder).symmetric

    sweep = benchmark_of(FakeWork(before=look)).start(PLAN)
    assert sweep.wait(600) and sweep.progress().error is None
    assert len(seen) == 4  # CPU and NPU, of the real weights and of random ones
    assert {device: symmetric for (device, _), symmetric in seen.items()} == {
        "CPU": False,
        "NPU": True,
    }
    rows = store.of_sweep(sweep.id)
    assert {row.state for row in rows} == {MeasurementState.DONE}
    usual, for_npu = rows[0::2], rows[1::2]
    assert {(row.configuration.device, row.int4.group_size) for row in usual} == {("CPU", 32)}
    assert all(0.7 < row.int4.ratio < 0.9 and not row.int4.symmetric for row in usual)
    assert [row.configuration.device for row in for_npu] == ["NPU", "NPU"]
    assert all(row.int4 == AS_AN_NPU_TAKES_IT for row in for_npu)
    assert from_json(to_json(rows)) == rows
    assert state_of(mine.folder) == before
    assert ModelStore(random_settings(settings)).list() == []
    _, kept = ModelStore(settings).list()  # answers on the NPU use it too
    assert ("NPU", str(kept.folder)) in seen


def test_npu_weights_outlive_their_original(settings: Settings, checkpoints):
    folder = settings.home.parent / "mine"
    shutil.copytree(checkpoints("llama"), folder)
    artifact = replace(FOR_NPU, model=str(folder))
    made = ready(artifact, settings)
    shutil.rmtree(folder)
    assert is_prepared(artifact, settings) and ready(artifact, settings) == made


def test_changed_original_is_compressed_again(settings: Settings, checkpoints):
    folder = settings.home.parent / "mine"
    shutil.copytree(checkpoints("llama"), folder)
    artifact = replace(FOR_NPU, model=str(folder))
    before = read_manifest(ready(artifact, settings).folder)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert not is_prepared(artifact, settings)
    after = read_manifest(ready(artifact, settings).folder)
    assert after.key == before.key and after.source.location == before.source.location
    assert after.source.fingerprint != before.source.fingerprint


def test_without_an_npu_nothing_is_compressed(settings: Settings, benchmark_of, store):
    if any(device.id.startswith("NPU") for device in devices.list_devices()):
        pytest.skip("this machine has an NPU")
    sweep = benchmark_of(FakeWork()).start(replace(PLAN, random_models=(), devices=("NPU",)))
    assert sweep.wait(60)
    (row,) = store.of_sweep(sweep.id)
    assert row.state is MeasurementState.FAILED and "NPU" in row.error and row.int4 is None
    assert ModelStore(settings).list() == []
