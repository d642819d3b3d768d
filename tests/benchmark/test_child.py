"""Measuring in a child process: real tiny models, and every way in which that process can end."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.benchmark import child
from core.benchmark.child import Job, MemoryPeaks, Outcome, measure_in_process
from core.benchmark.stopping import MAX_DISTURBED, MOST_ANSWERS
from core.catalogue import Precision
from core.errors import (
    BadRequestError,
    CorruptModelError,
    GenerationError,
    NotEnoughMemoryError,
    PromptTooLongError,
    StoppedError,
    UnknownDeviceError,
)
from core.hardware.devices import ProcessMemory
from core.inference.engine import Engine
from core.runtimes.spec import ModelSpec, RuntimeName
from core.store import resolve

MIB = 2**20


@pytest.fixture
def job(spec_of: Callable[..., ModelSpec], engine: Engine) -> Job:
    spec = spec_of("gpt_neox")
    stored = engine.store.get(resolve(spec.model), spec.precision)
    assert stored is not None
    return Job(folder=stored.folder, spec=spec, prompts=((16, 1),), new_tokens=4)


@pytest.fixture
def endless(job: Job) -> Job:
    """More answers than anybody waits for."""
    return replace(job, prompts=((16, 100_000),), new_tokens=64)


def run(job: Job, **options) -> Outcome:
    options = {"on_progress": lambda message: None, "cancel": threading.Event()} | options
    return measure_in_process(job, **options)


def workers() -> list[psutil.Process]:
    """Child processes of this one that measure."""

    def measures(child: psutil.Process) -> bool:
        try:
            return "core.benchmark.worker" in " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            return False

    return [child for child in psutil.Process().children() if measures(child)]


def when_answering(do: Callable[[], None]) -> Callable[[str], None]:
    """Progress that does something once, in the middle of the answers."""
    done = threading.Event()

    def hear(message: str) -> None:
        if message.startswith("Answering") and not done.is_set():
            done.set()
            do()

    return hear


def test_every_prompt_length_has_a_complete_round(job: Job):
    told: list[str] = []
    begun: list[int | None] = []
    job = replace(job, prompts=((48, 2), (16, 1)), new_tokens=6)
    found = run(
        job,
        on_progress=told.append,
        on_prompt=begun.append,
    )
    assert begun == [48, None, 16, None]
    assert list(found.rounds) == [48, 16]
    # So quick a model answers more often than it was asked to, more still with the cores apart.
    most = MOST_ANSWERS + MAX_DISTURBED
    assert all(2 < len(found.rounds[length].samples) <= most for length in (48, 16))
    for one in found.rounds.values():
        assert one.load_s > one.compile_s > 0
        assert 50 * MIB < one.memory_private_bytes <= one.memory_private_peak_bytes
        assert 0 < one.memory_file_backed_bytes <= one.memory_file_backed_peak_bytes
        assert one.cpu_cores > 0 and one.other_cpu_cores >= 0
        for sample in one.samples:
            assert len(sample.token_times_ms) == 6
            assert list(sample.token_times_ms) == sorted(sample.token_times_ms)
            assert sample.ttft_ms == pytest.approx(sample.token_times_ms[0])
            spread = sample.token_times_ms[-1] - sample.token_times_ms[0]
            assert sample.tpot_ms == pytest.approx(spread / 5)
            assert sample.total_ms >= sample.token_times_ms[-1]
    assert found.conditions.execution_precision == "f32"
    assert found.conditions.devices_used == ("CPU",)
    assert found.weight_bytes and found.kv_bytes_per_position
    assert told[-1] == "Answering prompts of 16 tokens."
    assert workers() == []


@pytest.mark.long
def test_the_baseline_runs_the_checkpoint_with_pytorch(job: Job):
    spec = replace(job.spec, precision=Precision.FP16, runtime=RuntimeName.PYTORCH)
    found = run(replace(job, folder=Path(job.spec.model), spec=spec))
    assert found.conditions.execution_precision == found.conditions.kv_cache_precision == "bf16"
    assert len(found.rounds[16].samples) >= 1
    assert found.weight_bytes == pytest.approx(
        run(job).weight_bytes / 2, rel=0.02
    )  # FP32 constants of the same multiplications; norms and biases apart


def test_killed_worker_shows_which_prompt_length_it_measured(endless: Job):
    begun: list[int | None] = []
    job = replace(endless, prompts=((8, 2), (16, 100_000)))

    def kill() -> None:
        workers()[0].kill()

    def when_second(message: str) -> None:
        if "16 tokens" in message and workers():
            kill()

    with pytest.raises(
        GenerationError, match=r"FP32 · CPU was killed by signal 9, possibly because"
    ) as e:
        run(job, on_progress=when_second, on_prompt=begun.append)
    assert "\n" not in str(e.value)
    assert begun == [8, None, 16]
    assert workers() == []


def test_cancel_ends_the_worker_at_once(endless: Job):
    cancel = threading.Event()
    with pytest.raises(StoppedError, match="Stopped while"):
        run(endless, on_progress=when_answering(cancel.set), cancel=cancel)
    assert workers() == []


def test_silent_worker_times_out(endless: Job, monkeypatch: pytest.MonkeyPatch):
    def freeze() -> None:
        workers()[0].suspend()

    # On a machine that needs longer to begin, that silence has the same effect.
    monkeypatch.setattr(child, "SILENCE_S", 5.0)
    with pytest.raises(GenerationError, match="did not respond for"):
        run(endless, on_progress=when_answering(freeze))
    assert workers() == []


def test_exceeded_memory_limit_is_an_error(job: Job):
    # Optimum, whose libraries alone take more than that; GenAI and a tiny model do not.
    spec = replace(job.spec, runtime=RuntimeName.OPTIMUM)
    with pytest.raises(
        NotEnoughMemoryError, match=r"needs more memory than the limit of 105 MB"
    ) as e:
        run(replace(job, spec=spec, memory_limit_bytes=100 * MIB))
    assert "Raise the limit" in str(e.value)
    assert workers() == []


def test_damaged_model_keeps_its_error(job: Job, tmp_path: Path):
    folder = shutil.copytree(job.folder, tmp_path / "copy")
    weights = folder / "openvino_model.bin"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CorruptModelError, match="cannot be loaded"):
        run(replace(job, folder=folder))


def test_missing_device_is_named(job: Job):
    with pytest.raises(UnknownDeviceError, match="There is no device 'NPU'"):
        run(replace(job, spec=replace(job.spec, device="NPU")))


def test_too_long_prompt_is_refused_before_timing(job: Job):
    with pytest.raises(PromptTooLongError, match="has a context length of 8,192 tokens, less than"):
        run(replace(job, prompts=((8191, 1),)))


def test_baseline_refuses_int8(job: Job):
    spec = replace(job.spec, precision=Precision.INT8, runtime=RuntimeName.PYTORCH)
    with pytest.raises(BadRequestError, match="FP32 and FP16, not in INT8"):
        run(replace(job, folder=Path(job.spec.model), spec=spec))


def test_worker_gets_no_secrets(job: Job, monkeypatch):
    """Neither in the command line nor in the environment."""
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    monkeypatch.setenv("PADDOCK_DATABASE_URL", "postgresql://me:hunter2@host/db")
    seen: list[str] = []

    def look(message: str) -> None:
        for worker in workers():
            seen.append(f"{worker.cmdline()} {worker.environ()}")

    with pytest.raises(UnknownDeviceError):
        run(replace(job, spec=replace(job.spec, device="NPU")), on_progress=look)
    assert seen and not any("hunter2" in text for text in seen)


def test_memory_peaks_are_kept_by_prompt_length():
    peaks = MemoryPeaks()
    for phase, size in ((None, 10), (512, 90), (32, 20)):
        peaks.phase = phase
        peaks.add(ProcessMemory(size, 100 - size, 100))
    assert peaks.peak(32) == ProcessMemory(20, 90, 100)
    assert peaks.peak(512) == ProcessMemory(90, 90, 100)
    assert peaks.peak(7) == ProcessMemory(10, 90, 100)  # loading alone
