"""``bench`` on the command line, with real processes where that is cheap, else with fake tools."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.__main__ import main
from core.benchmark import runner
from core.benchmark.lock import BenchmarkLock
from core.benchmark.random_models import checkpoint_folder, random_weights_bytes
from core.benchmark.sweep import Sweep
from core.catalogue import Precision
from core.cli.arguments import byte_count
from core.db.measurement_values import MeasurementState
from core.errors import GenerationError, NotEnoughMemoryError, StoppedError
from core.inference.engine import Engine
from core.metrics import document
from core.settings import CHECKOUT, Settings
from tests.benchmark.fake_work import FakeWork
from tests.waiting import PATIENCE_S

Run = Callable[..., tuple[int, str, str]]

SHORT = ("--models", "paddock-neox", "--precisions", "int8,int4", "--new-tokens", "4")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where ``PADDOCK_HOME`` points to in a test."""
    return tmp_path / "home"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> FakeWork:
    """Replaces conversion and measurement."""
    return FakeWork().install(monkeypatch.setattr)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(arguments)
        return code, *capfd.readouterr()

    return call


def summary(out: str) -> dict:
    return json.loads(out.splitlines()[-1])


# Real measurements


@pytest.mark.long
@pytest.mark.usefixtures("convert_here")
def test_a_model_is_measured_in_processes_of_its_own(
    home: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Random weights of a small shape, OpenVINO and PyTorch, all files: end to end."""
    monkeypatch.setattr(runner, "SPARE_ROUNDS", 0)  # whatever the latency between cores
    files = {name: tmp_path / f"out.{name}" for name in ("json", "csv", "markdown")}
    code, out, err = run(
        "bench",
        *("--random-weights", "paddock-neox", "--precisions", "fp16,int4"),
        *("--runtimes", "optimum,pytorch", "--prompt-tokens", "8,4000", "--new-tokens", "5"),
        *("--repeat", "1", "--rounds", "1"),
        *(part for name, file in files.items() for part in (f"--{name}", str(file))),
    )
    told = summary(out)
    assert code == 1  # three rows fail: the prompt is longer than the context length
    assert (told["state"], told["rows"], told["done"], told["failed"]) == ("done", 6, 3, 3)
    rows = document.from_json(files["json"].read_text())
    assert [row.id for row in rows]
    done = [row for row in rows if row.state is MeasurementState.DONE]
    kinds = {(row.configuration.runtime, row.configuration.precision) for row in done}
    assert kinds == {("optimum", "fp16"), ("optimum", "int4"), ("pytorch", "fp16")}
    for row in done:
        assert len(row.rounds) == 1 and row.rounds[0].samples
        timed = sum(len(one.samples) for one in row.rounds)
        assert row.figures.answers + row.figures.answers_apart == timed
        assert all(len(s.token_times_ms) == 5 for one in row.rounds for s in one.samples)
        assert row.figures.decode_tokens_per_s > 0 and row.figures.memory_private_bytes > 0
        assert row.figures.mbu is not None and row.host.bandwidth_bytes_per_s > 1e9
        assert row.configuration.random_weights
    assert all("which is 1024" in r.error for r in rows if r.state is MeasurementState.FAILED)
    for file in (files["csv"], files["markdown"]):
        assert "random weights" in file.read_text()
    assert "INT4" in out and "which is 1024" in out and "Measuring" in err
    assert "--resume" in err
    assert random_weights_bytes(Settings(home=home)) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_keeps_measurements_and_names_resume(home: Path, put_demo: Callable[..., None]):
    put_demo(home, Precision.INT8, Precision.INT4)
    child = subprocess.Popen(
        [sys.executable, "-m", "core", "bench", *SHORT, "--repeat", "100", "--rounds", "1"],
        cwd=CHECKOUT,
        env=os.environ | {"PADDOCK_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in child.stderr:
        if "Measuring paddock-neox" in line:
            break
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does, to every process in it
    out, err = child.communicate(timeout=PATIENCE_S)
    told = summary(out)
    assert child.returncode == 1 and told["state"] == "cancelled", err
    assert "Traceback" not in err
    assert f"--resume {told['sweep']}" in err


# Fake measurements


def test_the_table_the_files_and_the_last_line(run: Run, work: FakeWork, tmp_path: Path):
    file = tmp_path / "out.json"
    code, out, err = run("bench", *SHORT, "--json", str(file))
    told = summary(out)
    assert code == 0
    assert (told["rows"], told["done"], told["failed"], told["state"]) == (4, 4, 0, "done")
    head, *lines = out.splitlines()[:-1]
    assert head.startswith("Model") and "Decode tokens/s" in head and len(lines) == 4
    assert "100.0 (100.0–100.0)" in lines[0] and "50 ms" in lines[0]
    assert "4 measurements: about" in err.splitlines()[0]
    assert len(document.from_json(file.read_bytes())) == 4


def test_the_preset_prints_the_columns_of_llama_bench(run: Run, work: FakeWork, tmp_path: Path):
    file = tmp_path / "out.json"
    code, out, _ = run(
        *("bench", "--models", "paddock-neox", "--precisions", "int8", "--preset", "llama-bench"),
        *("--speculation", "4x2", "--json", str(file)),
    )
    assert code == 0
    head, _, *lines, _ = out.splitlines()
    assert head == "| model | size | params | backend | threads | test | t/s |"
    assert ["pp512" in lines[0], "tg128" in lines[1]] == [True, True]
    assert [row["n_prompt"] for row in json.loads(file.read_text())] == [512, 0]
    assert {job.speculation.text for job in work.jobs} == {"on: 4 tokens, 2-grams"}


def test_default_models_are_the_demo_models(run: Run, work: FakeWork):
    code, out, _ = run("bench", "--new-tokens", "4")
    assert (code, summary(out)["rows"]) == (0, 12)
    assert {job.spec.model for job in work.jobs} == {"paddock-neox", "paddock-llama"}
    assert {job.spec.precision for job in work.jobs} == {"int8", "int4", "fp16"}


def test_a_failed_row_shows_its_reason(run: Run, work: FakeWork):
    def fail(job):
        if job.spec.precision == "int4":
            raise GenerationError("The process was killed by signal 9.")

    work.before = fail
    code, out, err = run("bench", *SHORT)
    assert code == 1 and summary(out)["failed"] == 2
    assert out.count("failed: The process was killed by signal 9.") == 2
    assert "--resume" in err


def test_ctrl_c_in_this_process(run: Run, work: FakeWork, monkeypatch: pytest.MonkeyPatch):
    stopped, original = threading.Event(), Sweep.wait

    def wait(self: Sweep, timeout: float | None = None) -> bool:
        if len(work.jobs) == 2 and not stopped.is_set():
            stopped.set()
            raise KeyboardInterrupt
        return original(self, timeout)

    def hold(job):
        if len(work.jobs) == 2:
            assert stopped.wait(PATIENCE_S)
            raise StoppedError("Stopped.")

    work.before = hold
    monkeypatch.setattr(Sweep, "wait", wait)
    code, out, err = run("bench", *SHORT, "--rounds", "1")
    told = summary(out)
    assert code == 1 and (told["state"], told["done"]) == ("cancelled", 2)
    work.before = lambda job: None
    assert f"--resume {told['sweep']}" in err
    code, out, _ = run("bench", "--resume", told["sweep"])
    assert (code, summary(out)["done"], summary(out)["sweep"]) == (0, 4, told["sweep"])


PLANNED = (
    ("--models", "paddock-neox"),
    ("--random-weights", "neox-410m"),
    ("--precisions", "int8"),
    ("--devices", "CPU"),
    ("--runtimes", "genai"),
    ("--prompt-tokens", "32"),
    ("--new-tokens", "128"),
    ("--repeat", "5"),
    ("--rounds", "0"),
    ("--quality",),
    ("--keep",),
)


@pytest.mark.parametrize("option", PLANNED, ids=lambda option: option[0])
def test_resume_rejects_options_of_the_plan(option, run: Run, work: FakeWork):
    for beside in ((), ("--ray", "auto")):
        code, _, err = run("bench", "--resume", "abc", *option, *beside)
        assert code == 2 and f"Leave out {option[0]}, or" in err and err.count("\n") == 1
    assert not work.jobs


def test_resume_accepts_another_memory_limit(run: Run, work: FakeWork):
    work.before = lambda job: (_ for _ in ()).throw(NotEnoughMemoryError("Raise the limit."))
    _, out, _ = run("bench", *SHORT, "--memory-limit", "1GB")
    sweep = summary(out)["sweep"]
    assert {job.memory_limit_bytes for job in work.jobs} == {10**9}
    work.jobs.clear()
    code, _, err = run("bench", "--resume", sweep, "--memory-limit", "1kB")
    assert code == 2 and "memory limit must be" in err and not work.jobs
    work.before = lambda job: None
    code, out, _ = run("bench", "--resume", sweep, "--memory-limit", "8GB")
    assert (code, summary(out)["done"]) == (0, 4)
    assert {job.memory_limit_bytes for job in work.jobs} == {8 * 10**9}


def test_list_shows_what_can_be_resumed(run: Run, work: FakeWork):
    _, first, _ = run("bench", *SHORT)
    work.before = lambda job: (_ for _ in ()).throw(GenerationError("It broke."))
    _, second, _ = run("bench", *SHORT)
    code, out, err = run("bench", "--list")
    lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 2)
    assert lines[0].startswith(summary(second)["sweep"]) and "4 missing" in lines[0]
    assert lines[1].startswith(summary(first)["sweep"]) and "missing" not in lines[1]
    assert "paddock-neox" in lines[0]


def test_a_second_benchmark_is_refused(run: Run, work: FakeWork, home: Path):
    with BenchmarkLock(Settings(home=home)).acquire():
        code, out, err = run("bench", *SHORT)
    assert (code, out) == (1, "")
    assert "already running" in err and not work.jobs


MISTAKES = {
    "unknown model": ("--models", "no such model"),
    "unknown shape": ("--random-weights", "neox-411m"),
    "unknown precision": ("--precisions", "int3"),
    "unknown runtime": ("--runtimes", "onnx"),
    "prompt that is no number": ("--prompt-tokens", "32,many"),
    "no new tokens": ("--new-tokens", "0"),
    "no repeats": ("--repeat", "0"),
    "a memory limit that is none": ("--memory-limit", "much"),
    "a tiny memory limit": ("--memory-limit", "1kB"),
    "PyTorch compressed": ("--runtimes", "pytorch", "--precisions", "int8"),
    "a file in no folder": ("--json", "/no/such/folder/out.json"),
    "a folder as a file": ("--csv", "."),
    "nothing to resume": ("--resume", "abc"),
    "parts of no suite": ("--parts", "embedded"),
    "quick without the suite": ("--quick",),
    "a suite that writes no file": ("--suite", "speed", "--json", "out.json"),
    "a suite of chosen models": ("--suite", "speed", "--models", "paddock-neox"),
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, run: Run, work: FakeWork):
    code, out, err = run("bench", *arguments)
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1 and err.endswith(".\n") and "Traceback" not in err
    assert not work.jobs


def test_file_that_cannot_be_written_loses_no_measurement(run: Run, work: FakeWork, tmp_path: Path):
    file = tmp_path / "out.json"
    work.before = lambda job: file.mkdir(exist_ok=True)
    code, out, err = run("bench", *SHORT, "--json", str(file))
    assert summary(out)["done"] == 4 and "could not be written" in err
    assert code == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("512 MiB", 512 * 2**20), ("1.5gib", 3 * 2**29), ("1000", 1000)],
)
def test_sizes(text: str, size: int):
    assert byte_count(text) == size


@pytest.mark.parametrize("text", ["", "GB", "8 apples", "1..5GB", "-8GB", "8e999GB"])
def test_invalid_sizes(text: str):
    with pytest.raises(argparse.ArgumentTypeError):
        byte_count(text)


# delete --random-weights


def test_random_weights_are_deleted(run: Run, home: Path):
    folder = checkpoint_folder(Settings(home=home), "neox-410m")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"0" * 2_000_000)
    code, out, _ = run("delete", "--random-weights", "--yes")
    assert code == 0 and re.search(r"2\.0 MB were freed", out)
    assert not folder.exists()
    code, out, _ = run("delete", "--random-weights", "--yes")
    assert code == 0 and "no random weights" in out


@pytest.mark.parametrize("arguments", [(), ("paddock-neox", "--random-weights")])
def test_delete_requires_either_model_or_random_weights(arguments: tuple[str, ...], run: Run):
    code, out, err = run("delete", *arguments, "--yes")
    assert (code, out) == (2, "") and err.endswith(".\n")


# The engine


def test_measurements_and_runs_share_a_database(home: Path):
    engine = Engine(Settings(home=home))
    assert engine.measurements.database is engine.runs.database
    engine.close()


def test_an_installed_package_has_no_speed_suite(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("core.cli.bench.INSTALLED", True)
    code, out, err = run("bench", "--suite", "speed")
    assert (code, out) == (2, "") and "in a clone of the repository" in err
