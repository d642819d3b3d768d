"""The command line, in this process and in a child process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.__main__ import main
from core.catalogue import Precision, catalogue
from core.db import Origin, RunState
from core.inference.engine import Engine
from core.inference.job import Job
from core.runtimes.spec import ModelSpec
from core.runtimes.subprocess_runtime import ProcessModel
from core.settings import CHECKOUT
from tests.waiting import PATIENCE_S, eventually

SpecOf = Callable[..., ModelSpec]

KEYS = [
    "text",
    "thinking",
    "tokens",
    "prompt_tokens",
    "ttft_ms",
    "tpot_ms",
    "tokens_per_s",
    "draft_tokens",
    "accepted_tokens",
    "stop_reason",
    "load_s",
    "memory",
    "conditions",
]


@pytest.fixture
def model(spec_of: SpecOf, shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny model in INT8 in the home folder of this test."""
    monkeypatch.setenv("PADDOCK_HOME", str(shared_home))
    return spec_of("llama", Precision.INT8).model


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    """Run a command in this process; return exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return call


def generate(model: str, *more: str) -> tuple[str, ...]:
    short = ("--max-new-tokens", "12", "--prompt-format", "dolly", "--device", "CPU")
    return ("generate", model, "Why?", *short, *more)


def process(*arguments: str, **options: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | options.pop("environment", {})
    return subprocess.Popen(
        [sys.executable, "-m", "core", *arguments],
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )


def assert_one_sentence(stderr: str) -> None:
    assert stderr.count("\n") == 1 and stderr.endswith(".\n"), stderr
    assert "Traceback" not in stderr


# generate


def test_json_output_has_these_keys(model: str, run):
    code, out, err = run(*generate(model, "--json", "--seed", "4", "--context", "It rains."))
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert list(answer) == KEYS
    assert 1 < answer["tokens"] <= 12 and answer["prompt_tokens"] > 10
    assert answer["ttft_ms"] > 0
    assert answer["tokens_per_s"] == pytest.approx(1000 / answer["tpot_ms"])
    assert answer["stop_reason"] in ("length", "end of text", "stop marker")
    assert answer["load_s"] > 0 and answer["memory"]["private_bytes"] >= 0
    conditions = answer["conditions"]
    assert conditions["precision"] == "int8" and conditions["device"] == "CPU"
    assert conditions["devices_used"] == ["CPU"]
    assert (conditions["seed"], conditions["greedy"]) == (4, False)
    assert conditions["execution_precision"] == "f32"
    again = json.loads(run(*generate(model, "--json", "--seed", "4", "--context", "It rains."))[1])
    assert again["text"] == answer["text"]


@pytest.mark.parametrize("how", [("--greedy",), ("--temperature", "0"), ("--temperature", "0.0")])
def test_temperature_zero_means_greedy(how: tuple[str, ...], model: str, run):
    expected = json.loads(run(*generate(model, "--json", "--greedy"))[1])
    code, out, _ = run(*generate(model, "--json", *how))
    answer = json.loads(out)
    assert code == 0 and answer["text"] == expected["text"]
    assert (answer["conditions"]["seed"], answer["conditions"]["greedy"]) == (None, True)


def test_temperature_zero_with_a_seed_is_still_greedy(model: str, run):
    code, out, _ = run(*generate(model, "--json", "--temperature", "0", "--seed", "7"))
    assert code == 0
    assert json.loads(out)["conditions"]["greedy"] is True


def test_answer_goes_to_stdout_and_timings_to_stderr(model: str, run):
    expected = json.loads(run(*generate(model, "--json", "--greedy"))[1])
    code, out, err = run(*generate(model, "--greedy"))
    assert code == 0
    assert out.strip() == expected["text"]
    assert err.count("\n") == 1
    assert "tokens/s" in err and "first token after" in err and expected["stop_reason"] in err


def test_answers_of_the_command_line_are_recorded(model: str, run, engine: Engine):
    before = engine.runs.count(origin=Origin.CLI)
    run(*generate(model, "--greedy"))
    (row,) = engine.runs.recent(1, origin=Origin.CLI)
    assert engine.runs.count(origin=Origin.CLI) == before + 1
    assert row.state is RunState.DONE and row.start.greedy and row.start.seed is None


MISTAKES = {
    "no command": (),
    "unknown command": ("cook",),
    "no instruction": ("generate", "MODEL"),
    "empty instruction": ("generate", "MODEL", "  "),
    "control character": ("generate", "MODEL", "a\x01b"),
    "surrogate": ("generate", "MODEL", "a\udc80b"),
    "unknown model": ("generate", "no-such-model", "Why?"),
    "unknown precision": ("generate", "MODEL", "Why?", "--precision", "int3"),
    "unknown device": ("generate", "MODEL", "Why?", "--device", "TPU"),
    "a device that is not there": ("generate", "MODEL", "Why?", "--device", "NPU"),
    "unknown format": ("generate", "MODEL", "Why?", "--prompt-format", "markdown"),
    "no format": ("generate", "MODEL", "Why?"),
    "temperature": ("generate", "MODEL", "Why?", "--temperature", "9"),
    "temperature below zero": ("generate", "MODEL", "Why?", "--temperature", "-1"),
    "not a number": ("generate", "MODEL", "Why?", "--top-p", "nan"),
    "not a whole number": ("generate", "MODEL", "Why?", "--top-k", "2.5"),
    "new tokens": ("generate", "MODEL", "Why?", "--max-new-tokens", "0"),
    "seed": ("generate", "MODEL", "Why?", "--seed", "-1"),
    "seed and greedy": ("generate", "MODEL", "Why?", "--seed", "1", "--greedy"),
    "long": ("generate", "MODEL", "a" * 100_000, "--prompt-format", "plain"),
    "convert nothing": ("convert",),
    "convert unknown": ("convert", "no-such-model"),
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES.keys())
def test_usage_error_is_one_line_with_exit_code_2(arguments, model: str, run):
    code, out, err = run(*(model if part == "MODEL" else part for part in arguments))
    assert (code, out) == (2, "")
    assert_one_sentence(err)


def test_unknown_option_is_named(model: str, run):
    code, _, err = run("generate", model, "Why?", "--max-tokens", "3")
    assert code == 2 and "--max-tokens" in err and "--help" in err


def test_unreachable_hub_exits_with_1(run):
    code, out, err = run("generate", "org/name", "Why?")
    assert (code, out) == (1, "")
    assert_one_sentence(err)


def test_damaged_model_fails_with_exit_code_1(model: str, run, engine: Engine):
    from core.store import resolve

    stored = engine.store.get(resolve(model), Precision.INT8)
    weights = stored.folder / "openvino_model.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    try:
        code, out, err = run(*generate(model))
    finally:
        weights.write_bytes(content)
    assert (code, out) == (1, "")
    assert_one_sentence(err)
    assert "openvino_model.bin" in err


def test_failure_during_generation_keeps_the_text(model: str, run, monkeypatch: pytest.MonkeyPatch):
    original = ProcessModel.generate

    def fail_late(self, request, on_token):
        count = 0

        def failing(token: int) -> bool:
            nonlocal count
            count += 1
            if count > 6:
                raise RuntimeError("it broke")
            return on_token(token)

        original(self, request, failing)

    monkeypatch.setattr(ProcessModel, "generate", fail_late)
    code, out, err = run(*generate(model, "--greedy"))
    assert code == 1 and out.strip()
    assert out.endswith("\n")
    assert_sentence_ends(err)


def assert_sentence_ends(stderr: str) -> None:
    last = stderr.splitlines()[-1]  # the log of the failure may precede it
    assert "it broke" in last and last.endswith(".")


def test_ctrl_c_stops_the_answer_and_keeps_the_text(model: str, run, monkeypatch, engine):
    jobs: list[Job] = []
    wait = Job.wait

    def interrupted_once(self: Job, timeout_s: float | None = None) -> bool:
        if self not in jobs and len(self._ids) > 2:
            jobs.append(self)
            raise KeyboardInterrupt
        return wait(self, timeout_s)

    original = ProcessModel.generate

    def slow(self, request, on_token):
        pause = threading.Event()
        original(self, request, lambda token: not pause.wait(0.01) and on_token(token))

    monkeypatch.setattr(Job, "wait", interrupted_once)
    monkeypatch.setattr(ProcessModel, "generate", slow)
    code, out, _ = run(*generate(model, "--json", "--max-new-tokens", "900"))
    answer = json.loads(out)
    assert code == 1 and answer["stop_reason"] == "cancelled"
    assert 2 < answer["tokens"] < 900
    (row,) = engine.runs.recent(1, origin=Origin.CLI)
    assert row.state is RunState.DONE and row.result.stop_reason == "cancelled"


# convert, models, doctor


@pytest.mark.long
def test_a_model_not_on_disk_is_converted_first_and_only_to_that_precision(
    checkpoints, tmp_path: Path
):
    """In a child process: only the answer on stdout, and nothing on stderr."""
    home = tmp_path / "home"
    folder = checkpoints("phi")
    child = process(
        *generate(str(folder), "--json", "--greedy", "--precision", "INT4"),
        environment={"PADDOCK_HOME": str(home)},
    )
    out, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, err) == (0, "")
    assert list(json.loads(out)) == KEYS
    (key,) = [path for path in (home / "models").iterdir() if path.name != ".work"]
    assert [path.name for path in key.iterdir()] == ["int4"]


def test_convert_prints_the_manifest_and_converts_once(model: str, run):
    code, out, err = run("convert", model, "--precision", "int8", "--json")
    assert (code, err) == (0, "")
    manifest = json.loads(out)
    assert manifest["precision"] == "int8" and manifest["architecture"] == "llama"
    code, out, _ = run("convert", model)
    assert code == 0 and out.count("\n") == 1
    assert "in INT8" in out and "peak" in out


def test_models_lists_the_catalogue_and_stored_models(model: str, run):
    code, out, err = run("models", "--json")
    assert (code, err) == (0, "")
    rows = {row["key"]: row for row in json.loads(out)}
    assert list(rows)[: len(catalogue())] == list(catalogue())
    for key, known in catalogue().items():
        assert rows[key]["parameters"] == known.parameters
        assert known.embedded or rows[key]["on_disk"] == {}
    mine = [row for row in rows.values() if row["source"] == "yours"]
    assert any(row["on_disk"].get("int8", 0) > 0 for row in mine)

    code, out, err = run("models")
    assert (code, err) == (0, "")
    for key in catalogue():
        assert key in out
    assert "2.78 B" in out and "not on disk" in out


def test_doctor_runs(run):
    code, out, _ = run("doctor", "--json")
    assert code in (0, 1)
    assert isinstance(json.loads(out), dict)
    code, out, _ = run("doctor")
    assert code in (0, 1) and "CPU" in out


def test_help(run):
    with pytest.raises(SystemExit) as ended:
        run("generate", "--help")
    assert ended.value.code == 0


# Environment


@pytest.mark.parametrize("name", ["PADDOCK_MAX_QUEUE", "PADDOCK_MAX_LOADED_MODELS"])
def test_invalid_setting_is_named(name: str, run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "abc")
    code, out, err = run("models")
    assert (code, out) == (2, "")
    assert_one_sentence(err)
    assert name in err and "'abc'" in err


def test_usage_error_prints_no_traceback():
    child = process("generate", "paddock-neox", "\t", environment={"PADDOCK_MAX_QUEUE": "3"})
    out, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, out) == (2, "")
    assert_one_sentence(err)


def test_closed_pipe_before_output():
    child = process("models", "--json", bufsize=1)
    child.stdout.close()
    assert child.wait(PATIENCE_S) in (0, 1)  # 0 if everything was written before
    assert child.stderr.read() == ""


def test_terminal_encoding_without_all_characters(tmp_path: Path):
    child = process("models", environment={"PYTHONIOENCODING": "ascii"})
    _, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, err) == (0, "")


LONG = ("--max-new-tokens", "1000", "--seed", "3", "--temperature", "5", "--top-p", "1")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_in_a_terminal(model: str, engine: Engine):
    def interrupted() -> str:  # on a busy machine the answer may end before
        child = process(*generate(model), *LONG)
        assert child.stdout.read(1)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=PATIENCE_S)
        return err if child.returncode == 1 else ""

    err = eventually(interrupted)
    assert "Traceback" not in err and "cancelled" in err
    (row,) = engine.runs.recent(1, origin=Origin.CLI)
    assert row.state is RunState.DONE and row.result.stop_reason == "cancelled"


def test_closed_pipe_during_generation(model: str, engine: Engine):
    def closed() -> bool:  # on a busy machine the answer may end before
        child = process(*generate(model), *LONG)
        assert child.stdout.read(1)
        child.stdout.close()
        code = child.wait(PATIENCE_S)
        assert child.stderr.read() == ""
        return code == 1

    eventually(closed)
    (row,) = engine.runs.recent(1, origin=Origin.CLI)
    assert row.state is RunState.DONE and row.result.stop_reason == "cancelled"
