"""Benchmark runs that measure nothing: order, rows, failures, cancellation, resuming."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from core.benchmark.lock import BenchmarkLock
from core.benchmark.plan import EXACT_HINTS, Plan
from core.benchmark.random_models import (
    checkpoint_folder,
    delete_random_weights,
    random_settings,
)
from core.benchmark.runner import SPARE_ROUNDS
from core.benchmark.service import Benchmark
from core.benchmark.sweep import Sweep
from core.catalogue import Precision
from core.db.database import Database
from core.db.measurement_values import MeasurementState, SweepState
from core.db.measurements import MeasurementStore
from core.errors import (
    BadRequestError,
    DiskFullError,
    GenerationError,
    ModelBusyError,
    RecordsError,
    StoppedError,
    UnknownModelError,
)
from core.inference.contention import ActivityMonitor
from core.runtimes.spec import RuntimeName
from core.settings import CHECKOUT, Settings
from tests.benchmark.fake_work import BANDWIDTH, FakeWork, configurations
from tests.builders import tiny_checkpoint
from tests.db.measurement_samples import a_measurement
from tests.waiting import PATIENCE_S

DONE, FAILED = MeasurementState.DONE, MeasurementState.FAILED

PLAN = Plan(
    models=("paddock-neox", "paddock-llama"),
    precisions=(Precision.INT8, Precision.FP16),
    prompt_tokens=(32, 512),
    new_tokens=8,
    repeats=3,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", memory_reserve_mib=0)


@pytest.fixture
def store(settings: Settings) -> Iterator[MeasurementStore]:
    made = MeasurementStore(Database.open(settings, patience_s=0.1))
    yield made
    made.close()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> FakeWork:
    """Replaces what a run carries out."""
    return FakeWork().install(monkeypatch.setattr)


@pytest.fixture
def monitor() -> ActivityMonitor:
    return ActivityMonitor()


@pytest.fixture
def benchmark_(
    settings: Settings, store: MeasurementStore, work: FakeWork, monitor: ActivityMonitor
) -> Iterator[Benchmark]:
    made = Benchmark(settings, lambda: store, monitor)
    yield made
    made.close()


def ended(sweep: Sweep) -> Sweep:
    assert sweep.wait(PATIENCE_S), sweep.progress()
    return sweep


def states(sweep: Sweep) -> list[MeasurementState]:
    return [row.state for row in sweep.progress().rows]


class Gate:
    """Holds the measuring processes until it is opened, or the sweep is cancelled."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.sweep: Sweep | None = None

    def __call__(self, job: object) -> None:
        self.reached.set()
        while not self.open.wait(0.02):
            if self.sweep is not None and self.sweep._cancel.is_set():
                raise StoppedError("Stopped.")


def held(work: FakeWork, start: Callable[[], Sweep]) -> tuple[Sweep, Gate]:
    """A sweep that stands in its first measuring process."""
    gate = Gate()
    work.before = gate
    gate.sweep = start()
    assert gate.reached.wait(PATIENCE_S)
    return gate.sweep, gate


# The whole


def test_every_configuration_is_measured(benchmark_: Benchmark, store, work: FakeWork):
    sweep = ended(benchmark_.start(PLAN))
    progress = sweep.progress()
    assert sweep.state is SweepState.DONE and benchmark_.current is sweep
    assert states(sweep) == [DONE] * 8
    assert (progress.done, progress.error) == (progress.total, None)
    assert (progress.fraction, progress.seconds_left) == (1.0, 0.0)
    assert [row.configuration for row in progress.rows] == configurations(PLAN)
    for row in progress.rows:
        assert [len(one.samples) for one in row.rounds] == [2, 1]
        assert row.figures.decode_tokens_per_s == pytest.approx(100.0)
        assert row.figures.mbu > 0 and row.host.bandwidth_bytes_per_s == BANDWIDTH
        assert row.started_at <= row.ended_at
        assert (row.disk_bytes, row.weight_bytes) == (5_000, 10_000_000)
        assert (row.execution_precision, row.kv_precision, row.threads) == ("f32", "u8", 2)
    assert store.of_sweep(sweep.id) == list(progress.rows)
    assert store.sweep(sweep.id).state is SweepState.DONE
    assert store.sweep(sweep.id).ended_at is not None


def test_each_round_has_another_order(benchmark_: Benchmark, work: FakeWork):
    ended(benchmark_.start(PLAN))
    told = [(job.spec.model, job.spec.precision) for job in work.jobs]
    first, second = told[:4], told[4:]
    assert second == [*first[1:], first[0]]
    assert [job.prompts for job in work.jobs[:4]] == [((32, 2), (512, 2))] * 4
    # The short prompt always first: what a long one needs would count in its peak.
    assert [job.prompts for job in work.jobs[4:]] == [((32, 1), (512, 1))] * 4
    assert len(work.made) == 4  # each model in each precision, once


def test_the_memory_limit_goes_to_every_process(benchmark_: Benchmark, work: FakeWork):
    ended(benchmark_.start(replace(PLAN, memory_limit_bytes=2**31)))
    assert {job.memory_limit_bytes for job in work.jobs} == {2**31}


def test_pytorch_gets_the_checkpoint(benchmark_: Benchmark, work: FakeWork):
    plan = replace(PLAN, runtimes=(RuntimeName.OPTIMUM, RuntimeName.PYTORCH))
    sweep = ended(benchmark_.start(plan))
    assert states(sweep) == [DONE] * 12
    baseline = [job for job in work.jobs if job.spec.runtime is RuntimeName.PYTORCH]
    assert {job.spec.precision for job in baseline} == {Precision.FP16}
    assert len([item for item in work.made if item.precision is None]) == 2


# What fails


def test_failed_configuration_is_a_row_with_its_error(
    benchmark_: Benchmark, work: FakeWork, store: MeasurementStore
):
    def fail(job):
        if job.spec.precision is Precision.INT8 and job.spec.model == "paddock-llama":
            raise GenerationError("The process was killed by signal 9.")

    work.before = fail
    sweep = ended(benchmark_.start(PLAN))
    assert sweep.state is SweepState.DONE
    assert states(sweep) == [DONE] * 4 + [FAILED] * 2 + [DONE] * 2
    broken = store.of_sweep(sweep.id)[4]
    assert broken.error == "The process was killed by signal 9." and broken.figures is None
    assert len(work.jobs) == 4 + 3  # not tried again in the second round


def test_measurements_before_a_failure_are_kept(benchmark_: Benchmark, work: FakeWork):
    def fail_late(job):
        if len(work.jobs) > 4 and job.spec == work.jobs[0].spec:
            raise GenerationError("It fell silent.")

    work.before = fail_late
    first = ended(benchmark_.start(PLAN)).progress().rows[0]
    assert first.state is FAILED and first.error == "It fell silent."
    assert len(first.rounds) == 1 and first.figures is not None


@pytest.mark.parametrize("lengths", [(32, 512, 64), (512, 32, 64), (32, 64, 512)])
def test_failed_prompt_length_does_not_affect_others(
    benchmark_: Benchmark, work: FakeWork, lengths: tuple[int, ...]
):
    def too_long(job):
        for prompt, _ in job.prompts:
            work.on_prompt(prompt)
            if prompt == 512:
                raise GenerationError("It ran into its memory limit.")

    work.before = too_long
    plan = replace(PLAN, models=("paddock-neox",), prompt_tokens=lengths)
    sweep = ended(benchmark_.start(plan))
    assert states(sweep) == [FAILED if length == 512 else DONE for length in lengths] * 2
    without = [length for length in lengths if length != 512]
    assert [[prompt for prompt, _ in job.prompts] for job in work.jobs] == [
        *([sorted(lengths), sorted(without)] * 2),
        *([sorted(without)] * 2),
    ]
    assert sweep.progress().done == sweep.progress().total


def test_nothing_is_planned_after_every_prompt_length_failed(benchmark_, work: FakeWork):
    def fail(job):
        work.on_prompt(job.prompts[0][0])
        raise GenerationError("It ran into its memory limit.")

    work.before = fail
    sweep = ended(benchmark_.start(PLAN))
    assert states(sweep) == [FAILED] * 8 and len(work.jobs) == 8
    assert sweep.progress().done == sweep.progress().total


def test_utilisation_is_only_known_for_the_cpu(benchmark_: Benchmark, work: FakeWork):
    work.devices_used = ("GPU",)
    figures = ended(benchmark_.start(PLAN)).progress().rows[0].figures
    assert figures.mbu is None and figures.bytes_per_token


def test_unexpected_error_fails_only_its_rows(benchmark_, work: FakeWork):
    def surprise(job):
        if job.spec.precision is Precision.INT8:
            raise ZeroDivisionError("division by zero")

    work.before = surprise
    sweep = ended(benchmark_.start(PLAN))
    assert sweep.state is SweepState.DONE
    failed = [row for row in sweep.progress().rows if row.state is FAILED]
    assert len(failed) == 4 and "ZeroDivisionError" in failed[0].error


def test_unavailable_model_fails_its_rows(benchmark_: Benchmark, work: FakeWork):
    def no_room(artifact):
        if artifact.precision is Precision.FP16:
            raise DiskFullError("The disk became full; make room and try again.")

    work.make = no_room
    sweep = ended(benchmark_.start(PLAN))
    assert states(sweep) == [DONE, DONE, FAILED, FAILED] * 2
    assert sweep.progress().rows[2].error.startswith("The disk became full")
    assert {job.spec.precision for job in work.jobs} == {Precision.INT8}


def test_missing_device_fails_its_rows_before_conversion(benchmark_, work: FakeWork):
    sweep = ended(benchmark_.start(replace(PLAN, devices=("GPU.7",))))
    assert sweep.state is SweepState.DONE and states(sweep) == [FAILED] * 8
    assert "GPU.7" in sweep.progress().rows[0].error
    assert not work.made and not work.jobs


def test_prompt_longer_than_the_context_fails_alone(benchmark_: Benchmark, work: FakeWork):
    work.positions = 256
    sweep = ended(benchmark_.start(PLAN))
    assert states(sweep) == [DONE, FAILED] * 4
    assert (
        "context length of Paddock NeoX 3M (tiny demo), which is 256"
        in sweep.progress().rows[1].error
    )
    assert {prompt for job in work.jobs for prompt, _ in job.prompts} == {32}


def test_model_larger_than_the_memory_is_not_loaded(
    settings: Settings, store: MeasurementStore, work: FakeWork
):
    tight = settings.model_copy(update={"memory_reserve_mib": 2**30})
    sweep = ended(Benchmark(tight, lambda: store).start(PLAN))
    assert states(sweep) == [FAILED] * 8 and not work.jobs
    assert "memory" in sweep.progress().rows[0].error


def test_no_utilisation_without_bandwidth(benchmark_, work, store):
    def broken() -> float:
        raise MemoryError

    work.bandwidth = broken
    sweep = ended(benchmark_.start(PLAN))
    assert states(sweep) == [DONE] * 8
    assert sweep.progress().rows[0].figures.mbu is None
    assert "read bandwidth was not measured" in sweep.progress().error


# Other work


def test_other_work_marks_the_measurements_it_disturbed(benchmark_, work, monitor):
    def disturb(job):
        if len(work.jobs) == 1:
            with monitor.running():
                pass

    work.before = disturb
    rows = ended(benchmark_.start(PLAN)).progress().rows
    assert [row.figures.contended for row in rows] == [True, True] + [False] * 6
    assert [one.contended for one in rows[0].rounds] == [True, False]


def test_answer_during_a_benchmark_is_marked(benchmark_, work: FakeWork, monitor):
    sweep, gate = held(work, lambda: benchmark_.start(PLAN))
    with monitor.running() as activity:
        assert activity.contended
    gate.open.set()
    ended(sweep)


# Stopping and resuming


def test_cancel_keeps_finished_measurements(
    benchmark_: Benchmark, work: FakeWork, store: MeasurementStore
):
    def stop_at_the_third(job):
        if len(work.jobs) == 3:
            gate(job)

    gate = Gate()
    work.before = stop_at_the_third
    gate.sweep = sweep = benchmark_.start(replace(PLAN, rounds=1))
    assert gate.reached.wait(PATIENCE_S)
    sweep.cancel()
    assert sweep.progress().message == "Stopping." or not sweep.running
    assert sweep.wait(PATIENCE_S)
    assert sweep.state is SweepState.CANCELLED
    assert states(sweep) == [DONE] * 4 + [MeasurementState.CANCELLED] * 4
    assert store.of_sweep(sweep.id) == list(sweep.progress().rows)
    assert store.sweep(sweep.id).state is SweepState.CANCELLED


def test_the_best_bandwidth_of_all_rounds_counts(benchmark_, work: FakeWork):
    found = iter([BANDWIDTH / 2, BANDWIDTH])
    work.bandwidth = lambda: next(found)
    sweep = ended(benchmark_.start(replace(PLAN, rounds=2)))
    rows = sweep.progress().rows
    assert {row.host.bandwidth_bytes_per_s for row in rows} == {BANDWIDTH}
    for row in rows:
        mbu = row.figures.bytes_per_token * row.figures.decode_tokens_per_s / BANDWIDTH
        assert row.figures.mbu == pytest.approx(mbu)
    assert sweep.progress().done == sweep.progress().total


# Cores that the host moves apart

NEAR, FAR = 110.0, 300.0


def test_round_with_high_core_latency_is_repeated(benchmark_: Benchmark, work: FakeWork, store):
    distances = iter([NEAR, FAR, NEAR, NEAR, NEAR, NEAR, NEAR, NEAR, FAR, NEAR])
    work.core_latency = lambda job: next(distances)
    sweep = ended(benchmark_.start(PLAN))
    assert states(sweep) == [DONE] * 8
    assert next(distances, None) is None, "eight processes, and twice one in place of the second"
    apart = [row.figures.answers_apart for row in sweep.progress().rows]
    rounds = [len(row.rounds) for row in sweep.progress().rows]
    assert (apart, rounds) == ([0, 0, 3, 3, 0, 0, 0, 0], [2, 2, 4, 4, 2, 2, 2, 2])
    for row in sweep.progress().rows:
        assert not row.figures.contended and row.figures.nearest_ns == NEAR
    assert work.jobs[0].nearest_ns is None and work.jobs[1].nearest_ns == NEAR
    assert store.of_sweep(sweep.id) == list(sweep.progress().rows)
    progress = sweep.progress()
    assert progress.done == progress.total and progress.fraction == 1.0


def test_lasting_high_core_latency_is_accepted(benchmark_: Benchmark, work: FakeWork):
    first = iter([NEAR])
    work.core_latency = lambda job: next(first, FAR)
    sweep = ended(benchmark_.start(PLAN))
    assert states(sweep) == [DONE] * 8
    near, *others = [sweep.progress().rows[number] for number in (0, 2, 4, 6)]
    assert [len(row.rounds) for row in (near, *others)] == [PLAN.rounds + SPARE_ROUNDS] * 4
    assert not near.figures.contended and near.figures.answers_apart > 0
    assert all(row.figures.contended and not row.figures.answers_apart for row in others)


def test_constant_core_latency_repeats_nothing(benchmark_, work: FakeWork):
    work.core_latency = lambda job: FAR
    sweep = ended(benchmark_.start(PLAN))
    assert len(work.jobs) == 8
    assert not any(row.figures.contended for row in sweep.progress().rows)


@pytest.mark.parametrize("cancelled", [False, True])
def test_complete_row_is_done_if_an_extra_round_fails(
    benchmark_: Benchmark, work: FakeWork, cancelled: bool
):
    def fail_in_a_further_round(job):
        if len(work.jobs) > 8 and cancelled:
            raise StoppedError("Stopped.")
        if len(work.jobs) > 8:
            raise GenerationError("It was killed.")

    first = iter([NEAR])
    work.core_latency = lambda job: next(first, FAR)
    work.before = fail_in_a_further_round
    sweep = ended(benchmark_.start(PLAN))
    assert states(sweep) == [DONE] * 8
    rows = sweep.progress().rows
    assert all(len(row.rounds) == 2 and row.figures and not row.error for row in rows)
    if not cancelled:
        assert "An extra round of paddock-neox · INT8 · CPU failed: It was killed" in (
            sweep.progress().error
        )


def test_resume_knows_the_lowest_core_latency(benchmark_: Benchmark, work: FakeWork):
    work.core_latency = lambda job: NEAR

    def fail_later(job: object) -> None:
        if len(work.jobs) > 1:
            raise GenerationError("Broke.")

    work.before = fail_later
    sweep = ended(benchmark_.start(PLAN))
    work.before = lambda job: None
    work.jobs.clear()
    ended(benchmark_.resume(sweep.id))
    assert work.jobs[0].nearest_ns == NEAR


def test_resume_measures_only_what_is_missing(benchmark_, work: FakeWork, store):
    def stop_in_the_second_round(job):
        if len(work.jobs) == 6:
            gate(job)

    gate = Gate()
    work.before = stop_in_the_second_round
    gate.sweep = sweep = benchmark_.start(PLAN)
    assert gate.reached.wait(PATIENCE_S)
    sweep.cancel()
    ended(sweep)
    whole = {row.id: row for row in sweep.progress().rows if row.state is DONE}
    half = [row for row in sweep.progress().rows if len(row.rounds) == 1]
    assert whole and half
    work.jobs.clear()
    work.before = lambda job: None
    again = ended(benchmark_.resume(sweep.id))
    assert again.id == sweep.id and again.state is SweepState.DONE
    assert states(again) == [DONE] * 8
    assert len(work.jobs) == len(half) / 2  # both prompt lengths in one process
    for row in again.progress().rows:
        assert len(row.rounds) == 2
        assert whole.get(row.id, row) == row
    assert store.of_sweep(sweep.id) == list(again.progress().rows)


def test_resume_tries_failed_rows_again(benchmark_: Benchmark, work: FakeWork):
    def fail(job):
        raise GenerationError("It was killed.")

    work.before = fail
    sweep = ended(benchmark_.start(PLAN))
    work.before = lambda job: None
    again = ended(benchmark_.resume(sweep.id))
    assert states(again) == [DONE] * 8
    assert all(row.error is None for row in again.progress().rows)


def test_imported_rows_of_a_run_are_not_measured(benchmark_: Benchmark, work: FakeWork, store):
    def fail(job):
        raise GenerationError("It was killed.")

    work.before = fail
    sweep = ended(benchmark_.start(PLAN))
    imported = a_measurement(sweep=sweep.id, state=MeasurementState.FAILED)
    store.import_all([imported])
    work.before = lambda job: None
    ended(benchmark_.resume(sweep.id))
    failed = [row.id for row in store.of_sweep(sweep.id) if row.state is not DONE]
    assert failed == [imported.id]
    with pytest.raises(BadRequestError, match="is complete"):
        benchmark_.resume(sweep.id)


def test_rounds_of_other_versions_are_discarded(benchmark_, work, store, monkeypatch):
    def fail_late(job):
        if len(work.jobs) > 4:
            raise GenerationError("It was killed.")

    work.before = fail_late
    sweep = ended(benchmark_.start(PLAN))
    work.before, newer = (lambda job: None), {"openvino": "9999.1"}
    monkeypatch.setattr("core.benchmark.service.library_versions", lambda: newer)
    work.jobs.clear()
    again = ended(benchmark_.resume(sweep.id))
    assert states(again) == [DONE] * 8
    assert len(work.jobs) == 8  # both rounds once more


def test_rounds_of_other_weights_are_discarded(benchmark_, work: FakeWork, monkeypatch):
    def fail_late(job):
        if len(work.jobs) > 4:
            raise GenerationError("It was killed.")

    work.before = fail_late
    sweep = ended(benchmark_.start(PLAN))
    work.before = lambda job: None

    def larger(artifact, *args, **options):
        return replace(work.prepare(artifact, *args, **options), disk_bytes=6_000)

    monkeypatch.setattr("core.benchmark.runner.prepare_artifact", larger)
    work.jobs.clear()
    again = ended(benchmark_.resume(sweep.id))
    assert states(again) == [DONE] * 8 and len(work.jobs) == 8
    assert all((len(row.rounds), row.disk_bytes) == (2, 6_000) for row in again.progress().rows)


def test_folder_is_found_from_any_working_directory(
    benchmark_, work: FakeWork, store, tmp_path: Path, monkeypatch
):
    tiny_checkpoint("gpt_neox", tmp_path / "here" / "mine")
    monkeypatch.chdir(tmp_path / "here")
    sweep = ended(benchmark_.start(replace(PLAN, models=("./mine",))))
    whole = str((tmp_path / "here" / "mine").resolve())
    assert {row.configuration.model for row in store.of_sweep(sweep.id)} == {whole}
    assert store.sweep(sweep.id).plan["models"] == [whole]


def test_complete_run_cannot_be_resumed(benchmark_: Benchmark):
    sweep = ended(benchmark_.start(PLAN))
    with pytest.raises(BadRequestError, match="is complete"):
        benchmark_.resume(sweep.id)


def test_unknown_run_cannot_be_resumed(benchmark_: Benchmark):
    with pytest.raises(BadRequestError, match="--list"):
        benchmark_.resume("f" * 32)


def test_close_interrupts_the_run(benchmark_: Benchmark, work: FakeWork, store):
    sweep, _ = held(work, lambda: benchmark_.start(PLAN))
    benchmark_.close()
    assert not sweep.running and sweep.state is SweepState.INTERRUPTED
    assert {row.state for row in store.of_sweep(sweep.id)} == {MeasurementState.INTERRUPTED}
    with pytest.raises(BadRequestError, match="shutting down"):
        benchmark_.start(PLAN)


def test_killed_process_can_be_resumed(settings: Settings, work: FakeWork):
    """As a process of its own, killed in the middle of a measurement."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from core.inference.engine import Engine\n"
        "from core.benchmark.service import Benchmark\n"
        "from core.settings import Settings\n"
        "from tests.benchmark.fake_work import FakeWork\n"
        "from tests.benchmark.test_service import PLAN\n"
        "engine, work = Engine(Settings(home=Path(sys.argv[1]))), FakeWork().install()\n"
        "def before(job):\n"
        "    if len(work.jobs) == 6:\n"
        "        print(sweep.id, flush=True)\n"
        "        time.sleep(60)\n"
        "work.before = before\n"
        "sweep = Benchmark(engine.settings, lambda: engine.measurements).start(PLAN)\n"
        "sweep.wait()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(settings.home)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        sweep_id = child.stdout.readline().strip()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    from core.inference.engine import Engine

    engine = Engine(settings)
    try:
        assert engine.measurements.sweep(sweep_id).state is SweepState.INTERRUPTED
        left = {row.state for row in engine.measurements.of_sweep(sweep_id)}
        assert left == {DONE, MeasurementState.INTERRUPTED}
        benchmark = Benchmark(settings, lambda: engine.measurements)
        assert states(ended(benchmark.resume(sweep_id))) == [DONE] * 8
        assert len(work.jobs) == 3  # the one that was killed, and two that it did not come to
    finally:
        engine.close()


# Two at once


def test_second_run_in_this_process_is_refused(benchmark_, work: FakeWork):
    sweep, gate = held(work, lambda: benchmark_.start(PLAN))
    with pytest.raises(ModelBusyError, match="already"):
        benchmark_.start(PLAN)
    gate.open.set()
    ended(sweep)
    ended(benchmark_.start(PLAN))


def test_second_run_is_refused_in_another_process(settings: Settings, benchmark_: Benchmark):
    code = (
        "import sys; from pathlib import Path; from core.benchmark.lock import BenchmarkLock\n"
        "from core.settings import Settings\n"
        "lock = BenchmarkLock(Settings(home=Path(sys.argv[1])))\n"
        "lock.acquire(); print('taken', flush=True)\n"
        "sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(settings.home)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline().strip() == "taken"
        with pytest.raises(ModelBusyError, match="already running in this home folder"):
            benchmark_.start(PLAN)
    finally:
        other.communicate()
    ended(benchmark_.start(PLAN))  # the lock died with its holder


def test_a_refused_start_leaves_nothing(settings: Settings, benchmark_: Benchmark, store):
    with BenchmarkLock(settings).acquire(), pytest.raises(ModelBusyError):
        benchmark_.start(PLAN)
    assert store.sweeps() == [] and benchmark_.current is None


# Records that fail


class Locked:
    """Holds the write lock of the run database, as another program would."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.home / "paddock.db"
        self.connection: sqlite3.Connection | None = None

    def begin(self) -> None:
        self.connection = sqlite3.connect(self.path, check_same_thread=False)
        self.connection.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        if self.connection is not None:
            with closing(self.connection):
                self.connection.rollback()


def test_rows_are_written_after_a_database_lock(benchmark_, work: FakeWork, store, settings):
    """Locked after the first process, free again before the last."""
    locked = Locked(settings)

    def lock(job):
        if len(work.jobs) == 2:
            locked.begin()
        if len(work.jobs) == 7:
            assert "locked" in benchmark_.current.progress().error
            locked.end()

    work.before = lock
    sweep = ended(benchmark_.start(PLAN))
    assert states(sweep) == [DONE] * 8 and sweep.progress().error is None
    assert store.of_sweep(sweep.id) == list(sweep.progress().rows)


def test_unwritten_rows_can_be_exported(benchmark_, work: FakeWork, store, settings):
    locked = Locked(settings)

    def lock(job):
        if len(work.jobs) == 2:
            locked.begin()

    work.before = lock
    sweep = ended(benchmark_.start(PLAN))
    assert sweep.state is SweepState.DONE and states(sweep) == [DONE] * 8
    assert "locked" in sweep.progress().error
    locked.end()
    again = ended(benchmark_.resume(sweep.id))  # its end was not written, nor most of its rows
    assert states(again) == [DONE] * 8
    assert store.of_sweep(sweep.id) == list(again.progress().rows)


def test_run_with_unwritten_rows_does_not_count_as_ended(
    benchmark_: Benchmark, work: FakeWork, store, monkeypatch: pytest.MonkeyPatch
):
    def fail(row):
        raise RecordsError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(store, "save", fail)
        sweep = ended(benchmark_.start(PLAN))
    assert sweep.state is SweepState.DONE and "full" in sweep.progress().error
    assert store.sweep(sweep.id).state is SweepState.RUNNING
    again = ended(benchmark_.resume(sweep.id))
    assert states(again) == [DONE] * 8 and store.sweep(sweep.id).state is SweepState.DONE


def test_run_without_database_does_not_start(settings: Settings, work: FakeWork):
    def broken() -> MeasurementStore:
        raise RecordsError("The run database is damaged; move it away.")

    made = Benchmark(settings, broken)
    with pytest.raises(RecordsError, match="damaged"):
        made.start(PLAN)
    assert not work.jobs
    with BenchmarkLock(settings).acquire():  # the turn was given back
        pass


# What cannot be begun


def test_unknown_model_is_refused_at_once(benchmark_: Benchmark):
    with pytest.raises(UnknownModelError):
        benchmark_.start(replace(PLAN, models=("no such model",)))


def test_same_model_under_two_names_is_refused(benchmark_: Benchmark):
    with pytest.raises(BadRequestError, match="same model"):
        benchmark_.start(replace(PLAN, models=("dolly-v2-3b", "databricks/dolly-v2-3b")))


def test_too_small_disk_is_refused_at_once(benchmark_: Benchmark, monkeypatch):
    monkeypatch.setattr("core.benchmark.estimate.free_bytes", lambda folder: 10**9)
    with pytest.raises(DiskFullError, match="of disk space"):
        benchmark_.start(Plan(random_models=("dolly-v2-3b",)))


@pytest.mark.skipif(sys.platform == "win32", reason="folders are protected otherwise there")
def test_unwritable_home_is_an_error(tmp_path: Path, store, work: FakeWork):
    (tmp_path / "file").write_text("")
    settings = Settings(home=tmp_path / "file" / "home")
    with pytest.raises(Exception, match="PADDOCK_HOME"):
        BenchmarkLock(settings).acquire()


# Quality


def test_quality_is_compared_with_the_reference(benchmark_: Benchmark, work: FakeWork):
    sweep = ended(benchmark_.start(replace(PLAN, quality=True, prompt_tokens=(32,))))
    assert [(spec.model, spec.precision, spec.hints) for spec in work.judged] == [
        (model, precision, hints)
        for model in PLAN.models
        for precision, hints in (
            (Precision.FP16, EXACT_HINTS),
            (Precision.INT8, None),
            (Precision.FP16, None),
        )
    ]
    assert all(row.quality.reference == "fp16" for row in sweep.progress().rows)


@pytest.mark.parametrize(
    ("taken", "hints"),
    [(("CPU",), EXACT_HINTS), (("GPU",), None), (("GPU", "CPU"), None), ((), None)],
)
def test_reference_on_auto_is_exact_if_that_is_the_cpu(
    benchmark_: Benchmark, work: FakeWork, monkeypatch, taken, hints
):
    monkeypatch.setattr("core.benchmark.plan.auto_devices", lambda: taken)
    plan = replace(PLAN, quality=True, models=("paddock-neox",), devices=("AUTO",))
    ended(benchmark_.start(plan))
    assert [spec.hints for spec in work.judged] == [hints, None, None]


def test_unmeasured_reference_is_prepared(benchmark_, work: FakeWork):
    plan = replace(PLAN, quality=True, models=("paddock-neox",), precisions=(Precision.INT4,))
    sweep = ended(benchmark_.start(plan))
    assert [item.precision for item in work.made] == [Precision.INT4, Precision.FP16]
    assert [spec.precision for spec in work.judged] == [Precision.FP16, Precision.INT4]
    assert len(work.jobs) == 2 and states(sweep) == [DONE] * 2
    assert sweep.progress().done == sweep.progress().total


def test_random_weights_and_pytorch_have_no_quality(benchmark_, work: FakeWork):
    plan = replace(
        PLAN,
        models=("paddock-neox",),
        random_models=("neox-410m",),
        runtimes=(RuntimeName.OPTIMUM, RuntimeName.PYTORCH),
        precisions=(Precision.FP16,),
        quality=True,
    )
    rows = ended(benchmark_.start(plan)).progress().rows
    have = {(r.configuration.model, r.configuration.runtime) for r in rows if r.quality}
    assert have == {("paddock-neox", "optimum")}


def test_failed_quality_is_reported_and_can_be_resumed(benchmark_, work: FakeWork, monkeypatch):
    judge = work.judge

    def broken(folder, spec, reference, **how):
        if spec.precision is Precision.INT8:
            raise GenerationError("It was killed.")
        return judge(folder, spec, reference, **how)

    plan = replace(PLAN, quality=True, models=("paddock-neox",))
    work.judge = broken
    sweep = ended(benchmark_.start(plan))
    assert states(sweep) == [DONE] * 4 and "It was killed." in sweep.progress().error
    work.judge = judge
    work.jobs.clear()
    again = ended(benchmark_.resume(sweep.id))
    assert all(row.quality for row in again.progress().rows) and not work.jobs


# Random weights


def test_random_weights_are_removed_at_the_end(benchmark_, work, settings: Settings):
    kept = checkpoint_folder(settings, "neox-410m")
    plan = Plan(random_models=("neox-410m",), precisions=(Precision.INT8,))

    def make(artifact):
        assert artifact.random_weights
        kept.mkdir(parents=True, exist_ok=True)

    work.make = make
    sweep, _ = held(work, lambda: benchmark_.start(plan))
    sweep.cancel()
    ended(sweep)
    assert kept.is_dir()  # a resumed sweep needs them
    work.before = lambda job: None
    rows = ended(benchmark_.resume(sweep.id)).progress().rows
    assert all(row.configuration.random_weights for row in rows)
    assert not kept.exists()


def test_kept_random_weights_survive_runs_of_other_models(
    benchmark_: Benchmark, work: FakeWork, settings: Settings
):
    plan = Plan(random_models=("neox-410m",), precisions=(Precision.INT8,))
    work.make = lambda artifact: checkpoint_folder(settings, artifact.model).mkdir(
        parents=True, exist_ok=True
    )
    ended(benchmark_.start(replace(plan, keep_random_weights=True)))
    ended(benchmark_.start(replace(plan, random_models=("tiny-llama-1b-chat",))))
    assert checkpoint_folder(settings, "neox-410m").is_dir()
    assert not checkpoint_folder(settings, "tiny-llama-1b-chat").exists()
    (checkpoint_folder(settings, "neox-410m") / "config.json").write_text("{}")
    assert delete_random_weights(settings) == 2
    assert not random_settings(settings).home.exists()


# What it will take


def test_estimate_grows_with_the_plan(benchmark_: Benchmark):
    small = benchmark_.estimate(Plan(models=("paddock-neox",)))
    more = benchmark_.estimate(Plan(models=("paddock-neox",), repeats=20))
    random = benchmark_.estimate(Plan(random_models=("dolly-v2-3b",), repeats=2))
    hub = benchmark_.estimate(Plan(models=("dolly-v2-3b",)))
    assert 0 < small.seconds < more.seconds < random.seconds
    assert (small.rows, small.download_bytes, small.problem) == (6, 0, None)
    checkpoint, int8, int4, fp16 = 5.55e9, 2.8e9, 2.2e9, 5.6e9
    scratch = 5.6e9
    assert random.disk_bytes == pytest.approx(checkpoint + int8 + int4 + fp16 + scratch, rel=0.1)
    assert random.download_bytes == 0 < hub.download_bytes
