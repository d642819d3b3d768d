"""Tests of the model pool with a fake runtime: sharing, leases, eviction, memory, failures."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.errors import (
    CorruptModelError,
    ModelBusyError,
    NotEnoughMemoryError,
    UnknownDeviceError,
)
from core.inference.contention import ActivityMonitor
from core.runtimes import pool as pool_module
from core.runtimes.pool import MEMORY_BASE_BYTES, ModelPool
from core.runtimes.spec import ExecutionHints, ModelSpec, RuntimeName
from core.settings import Settings
from tests.fakes import FakeModel, FakeRuntime, fake_pool, stored_model
from tests.waiting import PATIENCE_S, eventually

GIB = 2**30


class WordTokenizer:
    """The part of a tokenizer that the warm-up needs."""

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [1]}


def spec(name: str, device: str = "CPU", **more: object) -> ModelSpec:
    return ModelSpec(name, Precision.INT8, device, **more)


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime(lambda spec: FakeModel(WordTokenizer(), lambda request: [1, 1]))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, max_loaded_models=2, memory_reserve_mib=512)


def lease(pool: ModelPool, wanted: ModelSpec, cancelled: threading.Event | None = None):
    return pool.lease(wanted, lambda message, fraction: None, cancelled or threading.Event())


def loaded(pool: ModelPool) -> list[str]:
    return [info.spec.model for info in pool.loaded()]


def test_concurrent_leases_share_one_load(settings, runtime):
    gate, inside = threading.Event(), threading.Barrier(17)

    def provide(spec, on_progress, cancelled):
        assert gate.wait(PATIENCE_S)
        return stored_model(spec)

    pool = fake_pool(settings, runtime, provide=provide)

    def use(_: int) -> int:
        inside.wait()
        with lease(pool, spec("a")) as mine:
            return id(mine.model)

    with ThreadPoolExecutor(16) as threads:
        results = [threads.submit(use, n) for n in range(16)]
        inside.wait()
        gate.set()
        assert len({result.result(PATIENCE_S) for result in results}) == 1
    assert len(runtime.loads) == 1
    assert pool.loaded()[0].in_use == 0


@pytest.mark.parametrize(
    "same",
    [
        spec("a", "cpu"),
        spec("a", " CPU "),
        spec("a", hints=ExecutionHints.default_for(Precision.INT8)),
    ],
)
def test_equivalent_specs_share_one_load(same: ModelSpec, settings, runtime):
    pool = fake_pool(settings, runtime)
    with lease(pool, spec("a")) as one, lease(pool, same) as other:
        assert one.model is other.model
    assert pool.is_loaded(same)
    assert runtime.loads[0].device == "CPU"
    assert pool.unload(same)


def test_different_specs_do_not_share(settings, runtime):
    pool = fake_pool(settings, runtime)
    other = spec("a", hints=ExecutionHints(inference_precision="bf16"))
    with lease(pool, spec("a")) as one, lease(pool, other) as two:
        assert one.model is not two.model


def test_handle_does_not_load_the_model(settings, runtime):
    pool = fake_pool(settings, runtime)
    handle = pool.handle(spec("a"))
    assert not pool.is_loaded(spec("a")) and not runtime.loads
    handle.release()


def test_least_recently_used_model_is_unloaded_first(settings, runtime):
    pool = fake_pool(settings, runtime)
    for name in ("a", "b", "a", "c"):
        with lease(pool, spec(name)):
            pass
    assert sorted(loaded(pool)) == ["a", "c"]
    assert runtime.models[spec("b")].closed
    assert not runtime.models[spec("a")].closed


def test_leased_model_is_never_unloaded(settings, runtime):
    pool = fake_pool(settings, runtime)
    with lease(pool, spec("a")) as held:
        for name in ("b", "c", "d"):
            with lease(pool, spec(name)):
                pass
        assert not held.model.closed
        assert sorted(loaded(pool)) == ["a", "d"]
        with lease(pool, spec("d")), pytest.raises(NotEnoughMemoryError, match="all of them are"):
            lease(pool, spec("e")).__enter__()
        with pytest.raises(ModelBusyError, match="a · INT8 · CPU is generating an answer"):
            pool.unload(spec("a"))
        pool.handle(spec("a")).release()  # no effect and no error
        assert not held.model.closed
    assert pool.unload(spec("a"))
    assert held.model.closed
    assert not pool.unload(spec("a"))


def test_model_is_leased_before_another_load_can_evict_it(tmp_path, runtime):
    """With room for one model, two concurrent loads must not evict each other endlessly."""
    pool = fake_pool(Settings(home=tmp_path, max_loaded_models=1), runtime)
    failures: list[BaseException] = []
    held = threading.Event()

    def use(name: str) -> None:
        try:
            with lease(pool, spec(name)) as mine:
                assert not mine.model.closed
                held.wait(0.1)
                assert not mine.model.closed
        except NotEnoughMemoryError as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(runtime.loads) <= 2 and len(failures) <= 1


@pytest.mark.parametrize("fails", [False, True])
def test_loading_counts_as_contention_for_other_answers_only(settings, runtime, fails, monkeypatch):
    monitor = ActivityMonitor()
    contended: list[bool] = []

    def warm_up(model: FakeModel) -> None:
        with monitor.running() as other:
            contended.append(other.contended)
        if fails:
            raise CorruptModelError("It is damaged.")

    monkeypatch.setattr(pool_module, "_warm_up", warm_up)
    pool = fake_pool(settings, runtime, working=monitor.running)
    with suppress(CorruptModelError), lease(pool, spec("a")):
        pass
    with monitor.running() as answer:
        assert not answer.contended
    assert contended == [True]


def test_too_little_memory_raises_before_loading(settings, runtime, monkeypatch):
    monkeypatch.setattr(pool_module, "available_memory_bytes", lambda: 2 * GIB)
    pool = fake_pool(settings, runtime, weight_bytes=4 * GIB)
    with pytest.raises(NotEnoughMemoryError, match=r"8\.8 GB.* 1\.6 GB are free") as failure:
        lease(pool, spec("big")).__enter__()
    assert "a · " not in str(failure.value)
    assert runtime.loads == [] and pool.loaded() == ()


def test_idle_models_are_unloaded_until_the_new_one_fits(settings, runtime, monkeypatch):
    settings = settings.model_copy(update={"max_loaded_models": 9, "memory_reserve_mib": 0})
    pool = fake_pool(settings, runtime, weight_bytes=GIB)
    each = 2 * GIB + MEMORY_BASE_BYTES
    monkeypatch.setattr(
        pool_module, "available_memory_bytes", lambda: 3 * each - len(pool._entries) * each
    )
    for name in ("a", "b", "c", "d"):
        with lease(pool, spec(name)):
            pass
    assert sorted(loaded(pool)) == ["b", "c", "d"]


def test_no_model_is_unloaded_for_one_that_cannot_fit(settings, runtime, monkeypatch):
    sizes = {"small": 1000, "huge": 400 * GIB}

    def provide(wanted, on_progress, cancelled):
        return stored_model(wanted, weight_bytes=sizes[wanted.model])

    pool = fake_pool(settings, runtime, provide=provide)
    monkeypatch.setattr(pool_module, "available_memory_bytes", lambda: 8 * GIB)
    with lease(pool, spec("small")):
        pass
    with pytest.raises(NotEnoughMemoryError):
        lease(pool, spec("huge")).__enter__()
    assert loaded(pool) == ["small"]


@pytest.mark.parametrize("device", ["GPU.7", "TPU", "", "CPU\x00"])
def test_unknown_device_raises_before_converting_or_loading(device, settings, runtime):
    provided = []
    pool = fake_pool(settings, runtime, provide=lambda *args: provided.append(args))
    with pytest.raises(UnknownDeviceError):
        lease(pool, spec("a", device)).__enter__()
    assert not provided and not runtime.loads
    assert not pool.is_loaded(spec("a", device))
    with lease(fake_pool(settings, runtime), spec("a")):
        pass


def test_failed_load_raises_in_all_waiting_answers_and_can_be_retried(settings, runtime):
    gate, attempts = threading.Event(), []

    def provide(wanted, on_progress, cancelled):
        attempts.append(wanted)
        assert gate.wait(PATIENCE_S)
        if len(attempts) == 1:
            raise CorruptModelError("Damaged; convert it again.")
        return stored_model(wanted)

    pool = fake_pool(settings, runtime, provide=provide)

    def use(_: int) -> str:
        try:
            with lease(pool, spec("a")):
                return "loaded"
        except CorruptModelError as error:
            return str(error)

    with ThreadPoolExecutor(5) as threads:
        results = [threads.submit(use, n) for n in range(5)]
        eventually(lambda: any(load.waiting == 5 for load in list(pool._loads.values())))
        gate.set()
        assert {result.result(PATIENCE_S) for result in results} == {"Damaged; convert it again."}
    assert use(0) == "loaded"
    assert len(attempts) == 2


def test_model_that_fails_during_warm_up_is_closed(settings):
    def fail(request):
        raise RuntimeError("boom")
        yield

    runtime = FakeRuntime(lambda spec: FakeModel(WordTokenizer(), fail))
    pool = fake_pool(settings, runtime)
    with pytest.raises(RuntimeError, match="boom"):
        lease(pool, spec("a")).__enter__()
    assert runtime.models[spec("a")].closed
    assert pool.loaded() == ()


def test_conversion_without_waiting_answers_is_cancelled(settings, runtime):
    seen: list[threading.Event] = []

    def provide(wanted, on_progress, cancelled):
        seen.append(cancelled)
        on_progress("Exporting.", 0.25)
        assert cancelled.wait(PATIENCE_S), "the conversion was not cancelled"
        raise CorruptModelError("it was stopped half-way")

    pool = fake_pool(settings, runtime, provide=provide)
    reported: list[tuple[str, float | None]] = []
    stops = [threading.Event(), threading.Event()]

    def use(stop: threading.Event) -> object:
        with pool.lease(spec("a"), lambda *progress: reported.append(progress), stop) as mine:
            return mine

    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(use, stop) for stop in stops]
        eventually(lambda: ("Exporting.", 0.25) in reported)
        eventually(lambda: pool._loads[spec("a")].waiting == 2)
        stops[0].set()
        assert results[0].result(PATIENCE_S) is None
        assert not seen[0].is_set()  # the other answer still waits for it
        stops[1].set()
        assert results[1].result(PATIENCE_S) is None
    eventually(lambda: not pool._loads)
    assert seen[0].is_set() and len(seen) == 1
    assert runtime.loads == []


def test_lease_after_a_cancelled_load_gets_the_model(settings, runtime):
    converting = threading.Event()
    attempts: list[int] = []

    def provide(wanted, on_progress, cancelled):
        attempts.append(1)
        if len(attempts) == 1:
            converting.set()
            assert cancelled.wait(PATIENCE_S)
            time.sleep(0.05)  # the second lease comes while the first conversion is stopping
            raise CorruptModelError("it was stopped half-way")
        return stored_model(wanted)

    pool = fake_pool(settings, runtime, provide=provide)
    stop = threading.Event()
    first = threading.Thread(target=lambda: lease(pool, spec("a"), stop).__enter__())
    first.start()
    assert converting.wait(PATIENCE_S)
    stop.set()
    first.join(PATIENCE_S)
    with lease(pool, spec("a")) as mine:
        assert mine is not None
    assert len(attempts) == 2


def test_models_are_loaded_one_at_a_time(settings):
    running, most = [], []

    def make(wanted: ModelSpec) -> FakeModel:
        running.append(wanted)
        most.append(len(running))
        time.sleep(0.03)
        running.pop()
        return FakeModel(WordTokenizer(), lambda request: [1])

    pool = fake_pool(settings.model_copy(update={"max_loaded_models": 8}), FakeRuntime(make))

    def use(name: str) -> None:
        with lease(pool, spec(name)):
            pass

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(use, "abcde"))
    assert most == [1] * 5


def test_close_unloads_idle_models_only(settings, runtime):
    pool = fake_pool(settings, runtime)
    with lease(pool, spec("a")), lease(pool, spec("b")):
        pass
    with lease(pool, spec("a")):
        pool.close()
        assert loaded(pool) == ["a"]
    pool.close()
    assert pool.loaded() == ()


def test_an_outdated_model_is_replaced_and_closed_after_its_last_lease(settings, runtime):
    changed = False
    pool = ModelPool(
        settings,
        lambda spec, on_progress, cancelled: stored_model(spec),
        {RuntimeName.GENAI: runtime},
        is_current=lambda spec, stored: not changed,
    )
    with lease(pool, spec("a")) as old:
        changed = True
        with lease(pool, spec("a")) as new:
            changed = False
            assert new.model is not old.model
            assert not old.model.closed
        with lease(pool, spec("a")) as again:
            assert again.model is new.model
    assert old.model.closed and not new.model.closed
    assert len(pool.loaded()) == 1
