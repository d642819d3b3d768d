"""Tests of the engine, from a model's name to a recorded answer, with tiny models."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import core.inference.engine
from core.catalogue import Precision
from core.db import GUEST, Origin, RunState, RunStore
from core.errors import (
    BadRequestError,
    CorruptModelError,
    HubError,
    ModelBusyError,
    NotAModelError,
    RecordsError,
    StoppedError,
    UnknownDeviceError,
    UnknownModelError,
)
from core.inference.answer import StopReason
from core.inference.engine import Engine
from core.inference.job import Job, Phase
from core.inference.recorder import GROWTH_IN_PROCESS
from core.inference.request import GenerationRequest, User
from core.runtimes import pool as pool_module
from core.runtimes.base import LoadedModel
from core.runtimes.optimum import OptimumModel
from core.runtimes.spec import ExecutionHints, ModelSpec, RuntimeName, SamplingSettings
from core.runtimes.subprocess_runtime import ProcessModel
from core.settings import Settings
from core.store import TaskRequest, TaskState
from core.store import tasks as tasks_module
from tests.builders import tiny_checkpoint
from tests.in_process import converted, engine_in_process, greedy_answer
from tests.waiting import PATIENCE_S, eventually

SpecOf = Callable[..., ModelSpec]
SHORT = SamplingSettings(max_new_tokens=12, seed=9)


def start(engine: Engine, spec: ModelSpec, session: str | None, **request: object) -> Job:
    asked = {"instruction": "Why?", "sampling": SHORT, "prompt_format": "dolly"} | request
    return engine.answer(
        engine.pool.handle(spec),
        GenerationRequest(**asked),
        origin=Origin.INSTRUCT,
        user=User(session=session),
    )


@pytest.fixture
def session(request: pytest.FixtureRequest) -> str:
    """Session name that identifies the rows of this test."""
    return request.node.name


def test_answer_is_recorded_as_one_row_with_its_conditions(engine, spec_of, session):
    spec = spec_of("llama", Precision.INT8)
    job = start(engine, spec, session, context="It rains.")
    assert job.wait(PATIENCE_S)
    answer = job.answer
    (run,) = engine.runs.recent(session=session)
    assert run.state is RunState.DONE
    row = run.flat()
    unknown = {name for name, value in row.items() if value is None}
    assert (
        unknown == {"error", "weights", "cached_tokens", "draft_tokens", "accepted_tokens"}
        and row["owner"] == GUEST
    )
    assert row["origin"] == Origin.INSTRUCT
    assert (row["instruction"], row["context"]) == ("Why?", "It rains.")
    assert row["prompt_format"] == "dolly"
    assert (row["temperature"], row["top_p"], row["top_k"]) == (0.8, 0.92, 0)
    assert (row["max_new_tokens"], row["seed"], row["greedy"]) == (12, 9, False)
    assert (row["model"], row["source"]) == (engine.store.name(spec.model), spec.model)
    assert (row["precision"], row["device"], row["runtime"]) == ("int8", "CPU", "genai")
    assert (row["execution_precision"], row["kv_precision"]) == ("f32", "u8")
    assert row["devices_used"] == ("CPU",) and row["threads"] >= 1
    assert row["hints"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert {"openvino", "optimum-intel", "transformers", "torch", "nncf"} <= set(row["versions"])
    assert row["text"] == answer.text and row["stop_reason"] == answer.stop_reason.value
    assert row["contended"] is False
    assert row["prompt_tokens"] == answer.timings.prompt_tokens > 0
    assert row["new_tokens"] == len(answer.token_ids) == len(row["token_times_ms"])
    for name in ("queue_ms", "ttft_ms", "tpot_ms", "total_ms"):
        assert row[name] == pytest.approx(getattr(answer.timings, name))
    assert row["decode_tokens_per_s"] == pytest.approx(1000 / row["tpot_ms"])
    assert row["load_s"] == pytest.approx(answer.facts.load_s)
    assert row["memory_scope"] == GROWTH_IN_PROCESS
    assert row["host_cpu"] and row["host_os"]


def test_request_above_a_limit_of_the_settings_is_rejected(engine, spec_of, session):
    with pytest.raises(BadRequestError, match="200,001 characters together"):
        start(engine, spec_of("llama"), session, instruction="a" * 200_000, context="b")
    assert engine.runs.recent(session=session) == []


def test_limit_of_new_tokens_is_that_of_the_settings(tmp_path):
    request = GenerationRequest("Why?", sampling=SamplingSettings(max_new_tokens=1001))
    Engine(Settings(home=tmp_path)).check_size(request)
    with pytest.raises(BadRequestError, match="1,001 new tokens were requested"):
        Engine(Settings(home=tmp_path, max_new_tokens=1000)).check_size(request)


def test_answer_cancelled_in_the_queue_is_recorded_as_cancelled(
    engine, spec_of, session, monkeypatch
):
    one_at_a_time = replace(spec_of("llama", Precision.INT8), runtime=RuntimeName.OPTIMUM)
    spec, go_on = one_at_a_time, threading.Event()
    generate = OptimumModel.generate

    def slow(self, request, on_token):
        generate(self, request, lambda token: go_on.wait(PATIENCE_S) and on_token(token))

    assert start(engine, spec, None).wait(PATIENCE_S)
    monkeypatch.setattr(OptimumModel, "generate", slow)
    first = start(engine, spec, f"{session} first")
    eventually(lambda: first.snapshot().phase is Phase.PREFILL)
    second = start(engine, spec, session)
    eventually(lambda: second.snapshot().place == 1)
    second.cancel()
    assert second.wait(PATIENCE_S)
    (run,) = engine.runs.recent(session=session)
    assert run.state is RunState.DONE
    assert (run.result.stop_reason, run.result.text) == ("cancelled", "")
    assert run.result.new_tokens == 0 and run.result.queue_ms > 0
    go_on.set()
    assert first.wait(PATIENCE_S) and first.answer.error is None


def test_failed_answer_is_recorded_with_its_error(engine, spec_of, session, monkeypatch):
    spec = spec_of("llama", Precision.INT8)
    generate = ProcessModel.generate

    def fail_late(self, request, on_token):
        def failing(token: int) -> bool:
            on_token(token)
            raise ValueError("wrong shape")

        generate(self, request, failing)

    assert start(engine, spec, None).wait(PATIENCE_S)
    monkeypatch.setattr(ProcessModel, "generate", fail_late)
    job = start(engine, spec, session)
    assert job.wait(PATIENCE_S)
    (run,) = engine.runs.recent(session=session)
    assert run.result.stop_reason == "error"
    assert run.result.error == job.answer.error_sentence
    assert "ValueError: wrong shape" in run.result.error
    assert run.result.new_tokens == 1


@pytest.mark.parametrize("method", ["start", "finish"])
def test_answer_succeeds_when_the_database_fails(method, engine, spec_of, session, monkeypatch):
    def fail(*args, **options):
        raise RecordsError("The database is full.")

    expected = start(engine, spec_of("llama", Precision.INT8), None)
    assert expected.wait(PATIENCE_S)
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, method, fail)
        job = start(engine, spec_of("llama", Precision.INT8), session)
        assert job.wait(PATIENCE_S)
    assert job.answer.error is None
    assert job.answer.token_ids == expected.answer.token_ids
    rows = engine.runs.recent(session=session)
    assert len(rows) == 1  # written completely at the end, or left as started
    assert rows[0].state is (RunState.DONE if method == "start" else RunState.RUNNING)


def test_answer_succeeds_when_the_database_cannot_be_opened(spec_of, shared_home, tmp_path: Path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    settings = Settings(
        home=shared_home, database_url=f"sqlite:///{(tmp_path / 'file' / 'x.db').as_posix()}"
    )
    engine = Engine(settings)
    job = start(engine, spec_of("llama", Precision.INT8), None)
    assert job.wait(PATIENCE_S) and job.answer.error is None and job.answer.token_ids
    engine.pool.close()


def test_invalid_request_is_neither_started_nor_recorded(engine, spec_of, session):
    with pytest.raises(BadRequestError):
        start(engine, spec_of("llama", Precision.INT8), session, instruction="")
    assert engine.runs.recent(session=session) == []


# Models that cannot be provided


@pytest.fixture
def fresh(tmp_path: Path) -> Engine:
    """An engine whose home folder does not exist."""
    return Engine(Settings(home=tmp_path / "home", memory_reserve_mib=0))


def failure(engine: Engine, spec: ModelSpec) -> Exception:
    job = start(engine, spec, None)
    assert job.wait(PATIENCE_S)
    assert job.answer.stop_reason is StopReason.ERROR
    sentence = job.answer.error_sentence
    assert sentence and "\n" not in sentence
    return job.answer.error


def test_unknown_model(fresh: Engine):
    assert isinstance(failure(fresh, ModelSpec("no-such-model")), UnknownModelError)


def test_hub_model_without_a_network(fresh: Engine):
    assert isinstance(failure(fresh, ModelSpec("org/name")), HubError)
    assert not list(fresh.settings.models_dir.glob("org*"))


def test_folder_without_a_tokenizer(fresh: Engine, tmp_path: Path):
    from tests.builders import tiny_checkpoint

    folder = tiny_checkpoint("llama", tmp_path / "model", with_tokenizer=False)
    error = failure(fresh, ModelSpec(str(folder)))
    assert isinstance(error, NotAModelError) and "tokenizer" in str(error)


@pytest.mark.parametrize("device", ["GPU", "NPU", "nonsense"])
def test_unknown_device_converts_nothing(device: str, fresh: Engine, checkpoints):
    spec = ModelSpec(str(checkpoints("llama")), Precision.INT8, device)
    assert isinstance(failure(fresh, spec), UnknownDeviceError)
    assert not fresh.settings.models_dir.exists()


@pytest.fixture
def stored_folder(engine: Engine, spec_of: SpecOf):
    """Folder of a stored model, restored after the test."""
    import shutil

    from core.store import resolve

    spec = spec_of("mistral", Precision.INT8)
    engine.pool.unload(spec)
    folder = engine.store.get(resolve(spec.model), spec.precision).folder
    aside = folder.with_name("aside")
    shutil.copytree(folder, aside)
    yield folder
    shutil.rmtree(folder)
    aside.rename(folder)


@pytest.mark.parametrize("name", ["openvino_model.bin", "openvino_model.xml", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut off", "altered", "gone"])
def test_damaged_model_raises_and_is_not_loaded(name, damage, engine, spec_of, stored_folder):
    path = stored_folder / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-100] if damage == "cut off" else content[:-1] + b"\x01")
    spec = spec_of("mistral", Precision.INT8)
    error = failure(engine, spec)
    assert isinstance(error, CorruptModelError)
    assert name in str(error) and "convert it again" in str(error)
    assert not engine.pool.is_loaded(spec)


def test_invalid_manifest(engine, spec_of, stored_folder):
    (stored_folder / "paddock.json").write_text(json.dumps({"schema_version": 99}))
    error = failure(engine, spec_of("mistral", Precision.INT8))
    assert isinstance(error, CorruptModelError)


def test_cancel_during_conversion_leaves_no_files(fresh: Engine, checkpoints):
    job = start(fresh, ModelSpec(str(checkpoints("phi")), Precision.INT8), None)
    eventually(lambda: list(fresh.settings.models_dir.glob(".work/*")) or job.done)
    assert job.snapshot().phase is Phase.PREPARING
    job.cancel()
    assert job.wait(PATIENCE_S)
    assert job.answer.stop_reason is StopReason.CANCELLED and job.answer.error is None
    eventually(lambda: not fresh.pool._loads)
    assert fresh.store.list() == []
    left = [path for path in fresh.settings.models_dir.rglob("*") if path.is_file()]
    assert [path.suffix for path in left if path.suffix != ".lock"] == []


def test_delete_unloads_the_model_and_deletes_its_files(engine: Engine, spec_of: SpecOf):
    from core.store import resolve

    spec = spec_of("mistral", Precision.FP16)
    assert start(engine, spec, None).wait(PATIENCE_S) and engine.pool.is_loaded(spec)
    stored = engine.store.get(resolve(spec.model), spec.precision)
    with engine.pool.handle(spec).lease(lambda *news: None, threading.Event()):
        with pytest.raises(ModelBusyError, match="is generating an answer"):
            engine.delete(stored)
        assert stored.folder.is_dir()
    assert engine.delete(stored) > 100_000
    assert not engine.pool.is_loaded(spec) and not stored.folder.exists()
    engine.store.ensure(resolve(spec.model), spec.precision)  # other tests use it


# Downloads, conversions and loads at the same time


def test_answer_during_a_task_is_contended(
    engine: Engine, spec_of: SpecOf, session: str, monkeypatch: pytest.MonkeyPatch
):
    spec, begun, go_on = spec_of("llama", Precision.INT8), threading.Event(), threading.Event()

    def long_work(*args: object, **options: object) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    monkeypatch.setattr(tasks_module, "convert_in_process", long_work)
    number = engine.tasks.submit(TaskRequest("paddock-neox", Precision.INT4))
    assert begun.wait(PATIENCE_S)
    during = start(engine, spec, session)
    assert during.wait(PATIENCE_S) and during.answer.contended
    (run,) = engine.runs.recent(session=session)
    assert run.flat()["contended"] is True
    go_on.set()
    eventually(lambda: not engine.tasks.active())
    assert engine.tasks.get(number).state is TaskState.DONE
    after = start(engine, spec, session)
    assert after.wait(PATIENCE_S) and not after.answer.contended


def test_answer_during_a_conversion_for_another_answer_is_contended(
    engine: Engine, spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch
):
    begun, go_on = threading.Event(), threading.Event()

    def long_work(*args: object, **options: object) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        raise HubError("The hub is closed.")

    warm = spec_of("llama", Precision.INT8)
    assert start(engine, warm, None).wait(PATIENCE_S)
    monkeypatch.setattr(core.inference.engine, "convert_in_process", long_work)
    other = start(engine, ModelSpec("org/name", Precision.INT8, "CPU"), None)
    assert begun.wait(PATIENCE_S)
    during = start(engine, warm, None)
    assert during.wait(PATIENCE_S) and during.answer.contended
    go_on.set()
    assert other.wait(PATIENCE_S) and isinstance(other.answer.error, HubError)
    after = start(engine, warm, None)
    assert after.wait(PATIENCE_S) and not after.answer.contended


def test_answer_during_the_load_of_another_model_is_contended(
    engine: Engine, spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch
):
    begun, go_on, warm_up = threading.Event(), threading.Event(), pool_module._warm_up

    def long_warm_up(model: LoadedModel) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        warm_up(model)

    warm = spec_of("llama", Precision.INT8)
    assert start(engine, warm, None).wait(PATIENCE_S)
    cold = replace(warm, hints=ExecutionHints(inference_precision="f32", threads=1))
    engine.pool.unload(cold)
    monkeypatch.setattr(pool_module, "_warm_up", long_warm_up)
    other = start(engine, cold, None)
    assert begun.wait(PATIENCE_S)
    during = start(engine, warm, None)
    assert during.wait(PATIENCE_S) and during.answer.contended
    go_on.set()
    assert other.wait(PATIENCE_S) and not other.answer.contended
    after = start(engine, warm, None)
    assert after.wait(PATIENCE_S) and not after.answer.contended
    engine.pool.unload(cold)


def test_close_stops_tasks(fresh: Engine, monkeypatch: pytest.MonkeyPatch):
    begun = threading.Event()

    def until_stopped(*args: object, cancel: threading.Event, **options: object) -> None:
        begun.set()
        assert cancel.wait(PATIENCE_S)
        raise StoppedError("Stopped; nothing was kept.")

    monkeypatch.setattr(tasks_module, "convert_in_process", until_stopped)
    number = fresh.tasks.submit(TaskRequest("paddock-neox", Precision.INT4))
    assert begun.wait(PATIENCE_S)
    fresh.close()
    assert fresh.tasks.get(number).state is TaskState.STOPPED
    assert not fresh.settings.home.joinpath("paddock.db").exists()  # never opened, so not now


def test_a_loaded_model_is_let_go_when_its_files_change(tmp_path):
    folder = tiny_checkpoint("llama", tmp_path / "model")
    own = engine_in_process(tmp_path / "home")
    try:
        converted(own, folder)
        before = greedy_answer(own, folder, prompt_format="plain")
        (first,) = own.pool.loaded()
        greedy_answer(own, folder, prompt_format="plain")
        assert own.pool.loaded()[0].facts is first.facts, "it stays loaded"
        (folder / "generation_config.json").write_text('{"eos_token_id": [5]}', encoding="utf-8")
        converted(own, folder)
        after = greedy_answer(own, folder, prompt_format="plain")
        (second,) = own.pool.loaded()
        assert second.stored.manifest.created > first.stored.manifest.created
        assert before.error is None and after.error is None
    finally:
        own.close()


def test_a_loaded_model_is_not_used_when_its_stored_files_are_altered(tmp_path):
    folder = tiny_checkpoint("llama", tmp_path / "model")
    own = engine_in_process(tmp_path / "home")
    try:
        converted(own, folder)
        assert greedy_answer(own, folder, prompt_format="plain").error is None
        (loaded,) = own.pool.loaded()
        (loaded.stored.folder / "generation_config.json").write_text("{}", encoding="utf-8")
        answer = greedy_answer(own, folder, prompt_format="plain")
        assert isinstance(answer.error, CorruptModelError)
        assert "generation_config.json" in str(answer.error)
        assert not own.pool.loaded()
    finally:
        own.close()
