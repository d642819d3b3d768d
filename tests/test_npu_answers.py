"""Tests of INT4 answers on an NPU, which needs its own weights; stored models are kept.

No NPU is needed: OpenVINO's device list is patched, and a fake runtime generates the answers.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from core.benchmark.artifacts import Artifact, prepare_artifact
from core.catalogue import Precision, npu_int4
from core.db import Origin
from core.errors import HubError, ModelBusyError, NotAModelError
from core.inference.answer import StopReason
from core.inference.contention import MONITOR
from core.inference.engine import Engine, find_stored
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, RuntimeName, SamplingSettings, TokenRequest
from core.settings import Settings
from core.store import ModelStore, SourceKind, StoredModel, subprocesses
from core.store.manifest import SourceRecord, write_manifest
from tests.builders import CHAT_TEMPLATE, tiny_tokenizer
from tests.fakes import FakeModel, FakeRuntime
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.usefixtures("an_npu")

here = pytest.mark.usefixtures("convert_here")
"""For all tests but that of stopping a conversion, which ends its process."""

SMALL = "paddock-neox"
"""A small embedded model whose default INT4 group size is 32."""

ON_CPU = ModelSpec(SMALL, Precision.INT4, "CPU")
ON_NPU = replace(ON_CPU, device="NPU")


@pytest.fixture
def runtime(tmp_path: Path) -> FakeRuntime:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tiny_tokenizer(folder, chat_template=CHAT_TEMPLATE)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def script(request: TokenRequest) -> list[int]:
        return [*tokenizer("Because.", add_special_tokens=False)["input_ids"], 0]

    return FakeRuntime(lambda spec: FakeModel(tokenizer, script))


@pytest.fixture
def engine(tmp_path: Path, runtime: FakeRuntime) -> Iterator[Engine]:
    settings = Settings(home=tmp_path / "home", memory_reserve_mib=0)
    made = Engine(settings, runtimes=dict.fromkeys(RuntimeName, runtime))
    yield made
    made.close()


@pytest.fixture
def mine(engine: Engine, put_demo: Callable[..., None]) -> StoredModel:
    """A stored model with INT4 settings that an NPU does not support."""
    put_demo(engine.settings.home, Precision.INT4)
    stored = engine.store.ensure(engine.store.resolve(SMALL), Precision.INT4)
    assert not stored.serves(Precision.INT4_NPU)
    return stored


def start(engine: Engine, spec: ModelSpec) -> Job:
    request = GenerationRequest("Why?", sampling=SamplingSettings(greedy=True, max_new_tokens=9))
    return engine.answer(engine.handle(spec), request, origin=Origin.INSTRUCT)


def ask(engine: Engine, spec: ModelSpec) -> Job:
    job = start(engine, spec)
    assert job.wait(600)
    return job


def loaded(engine: Engine, spec: ModelSpec) -> StoredModel:
    """Return the stored model that is loaded."""
    return next(info.stored for info in engine.pool.loaded() if info.spec == spec)


def made_for_npu(engine: Engine) -> list[Path]:
    return [each.folder for each in engine.store.list() if each.precision is Precision.INT4_NPU]


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}


def nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subprocesses, "_run_child", lambda *_, **__: pytest.fail("it was converted")
    )


@here
def test_npu_weights_are_created_once_and_the_stored_model_is_kept(
    engine: Engine, mine: StoredModel, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
):
    before = state_of(mine.folder)
    first = ask(engine, ON_NPU)
    assert first.answer.error is None
    assert loaded(engine, ON_NPU).compression == npu_int4()
    assert made_for_npu(engine) == [loaded(engine, ON_NPU).folder]
    assert state_of(mine.folder) == before and len(engine.store.list()) == 2

    nothing_is_made(monkeypatch)
    engine.pool.close()
    assert ask(engine, ON_NPU).answer.error is None
    on_cpu = ask(engine, ON_CPU)
    assert loaded(engine, ON_CPU).folder == mine.folder
    assert first.prompt_format == on_cpu.prompt_format != ""
    rows = [run.flat() for run in engine.runs.recent()]
    assert len(rows) == 3 and len({(row["title"], row["source"]) for row in rows}) == 1
    assert state_of(mine.folder) == before


@here
def test_benchmark_reuses_npu_weights_of_an_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    assert ask(engine, ON_NPU).answer.error is None
    nothing_is_made(monkeypatch)
    artifact = Artifact(SMALL, False, Precision.INT4_NPU)
    made = prepare_artifact(
        artifact, engine.settings, on_progress=lambda *news: None, cancel=threading.Event()
    )
    assert [made.folder] == made_for_npu(engine)


@here
def test_stored_model_with_npu_settings_is_used_directly(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    stored = engine.store.ensure(
        engine.store.resolve(SMALL), Precision.INT4, compression=npu_int4()
    )
    nothing_is_made(monkeypatch)
    assert ask(engine, ON_NPU).answer.error is None
    assert loaded(engine, ON_NPU).folder == stored.folder
    assert made_for_npu(engine) == []


# Failures


@here
def test_stored_model_is_kept_when_the_hub_is_unreachable(engine: Engine, mine: StoredModel):
    """The downloaded checkpoint was deleted before."""
    folder = engine.settings.models_dir / "org--name" / "int4"
    shutil.copytree(mine.folder, folder)
    record = SourceRecord(
        kind=SourceKind.HUB, location="org/name", revision="abc", fingerprint=None
    )
    write_manifest(folder, mine.manifest.model_copy(update={"source": record}))
    before = state_of(folder)
    on_npu = replace(ON_NPU, model="org/name")
    assert isinstance(ask(engine, on_npu).answer.error, HubError)
    assert state_of(folder) == before
    assert ask(engine, replace(on_npu, device="CPU")).answer.error is None


@here
def test_stored_model_is_kept_when_its_checkpoint_is_missing(
    engine: Engine, checkpoints: Callable[..., Path], tmp_path: Path
):
    folder = tmp_path / "mine"
    shutil.copytree(checkpoints("llama"), folder)
    on_npu = replace(ON_NPU, model=str(folder))
    stored = engine.store.ensure(engine.store.resolve(str(folder)), Precision.INT4)
    shutil.rmtree(folder)
    error = ask(engine, on_npu).answer.error
    assert isinstance(error, NotAModelError) and "is missing. Restore it" in str(error)
    assert stored.folder.is_dir()
    assert ask(engine, replace(on_npu, device="CPU")).answer.error is None


@pytest.mark.long
def test_stop_ends_the_conversion_and_keeps_the_stored_model(engine: Engine, mine: StoredModel):
    before, ended = state_of(mine.folder), threading.Event()
    job = start(engine, ON_NPU)
    work = engine.settings.models_dir / ".work"
    while not list(work.glob("*/export")):
        assert not job.wait(0.01)
    with MONITOR.running() as beside:
        assert beside.contended  # a conversion affects timings
    job.cancel()
    assert job.wait(PATIENCE_S) and job.answer.stop_reason is StopReason.CANCELLED
    while engine.pool._loads:
        ended.wait(0.01)
    assert made_for_npu(engine) == [] and not list(work.glob("*/export"))
    assert state_of(mine.folder) == before
    assert ask(engine, ON_NPU).answer.error is None


# Models that are already in INT4


@pytest.fixture
def elsewhere(tmp_path: Path) -> ModelStore:
    """Another store, whose models serve as external OpenVINO models."""
    return ModelStore(Settings(home=tmp_path / "elsewhere", memory_reserve_mib=0))


@here
def test_int4_model_with_npu_settings_is_imported_once(
    engine: Engine, elsewhere: ModelStore, monkeypatch: pytest.MonkeyPatch
):
    came = elsewhere.ensure(elsewhere.resolve(SMALL), Precision.INT4, compression=npu_int4())
    (came.folder / "paddock.json").unlink()
    on_npu = replace(ON_NPU, model=str(came.folder))
    first = ask(engine, on_npu)
    assert first.answer.error is None
    (stored,) = engine.store.list()
    assert stored.kept_unchanged and stored.int4.ratio == 1 and made_for_npu(engine) == []
    engine.pool.close()
    nothing_is_made(monkeypatch)
    shutil.rmtree(came.folder)
    before = state_of(stored.folder)
    assert ask(engine, on_npu).answer.error is None
    assert state_of(stored.folder) == before


@here
def test_int4_model_with_other_settings_raises_and_is_kept(
    engine: Engine,
    elsewhere: ModelStore,
    put_demo: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    put_demo(elsewhere.settings.home, Precision.INT4)
    came = elsewhere.ensure(elsewhere.resolve(SMALL), Precision.INT4)
    (came.folder / "paddock.json").unlink()
    on_npu = replace(ON_NPU, model=str(came.folder))
    assert ask(engine, replace(on_npu, device="CPU")).answer.error is None
    (stored,) = engine.store.list()
    before = state_of(stored.folder)
    nothing_is_made(monkeypatch)
    error = ask(engine, on_npu).answer.error
    assert isinstance(error, NotAModelError) and "do not run on an NPU" in str(error)
    assert "group size 32" in str(error)
    assert state_of(stored.folder) == before and made_for_npu(engine) == []


# In memory


def remove_npu(engine: Engine) -> int:
    (stored,) = (each for each in engine.store.list() if each.precision is Precision.INT4_NPU)
    return engine.delete(stored)


@here
def test_npu_weights_in_use_are_not_deleted(engine: Engine, mine: StoredModel):
    assert ask(engine, ON_NPU).answer.error is None and ask(engine, ON_CPU).answer.error is None
    with engine.handle(ON_NPU).lease(lambda *news: None, threading.Event()):
        with pytest.raises(ModelBusyError, match="is generating an answer"):
            remove_npu(engine)
        assert len(made_for_npu(engine)) == 1 and engine.pool.is_loaded(ON_NPU)
    assert remove_npu(engine) > 0
    assert made_for_npu(engine) == [] and not engine.pool.is_loaded(ON_NPU)
    assert engine.pool.is_loaded(ON_CPU) and mine.folder.is_dir()


@here
def test_npu_weights_are_not_created_at_start_up(engine: Engine, mine: StoredModel):
    assert ask(engine, ON_NPU).answer.error is None
    assert engine.last_used() == ON_NPU
    remove_npu(engine)
    assert find_stored(engine.store, ON_NPU) is None and engine.last_used() is None
