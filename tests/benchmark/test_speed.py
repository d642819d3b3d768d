"""Rows of the speed suite, and its variants in their own processes."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path

import pytest

from core.benchmark.speed import browser, suite
from core.benchmark.speed.paired import PairedRun, Variant, in_turns
from core.benchmark.speed.rows import Row, accuracy_rows
from core.catalogue import Precision
from core.errors import GenerationError, StoppedError
from core.inference.engine import Engine
from core.runtimes.spec import ModelSpec
from core.settings import Settings
from core.store import resolve

ROWS = [
    Row(name="decode", limit=1.4, value=1.5, detail="3 against 2 tokens/s"),
    Row(name="first token", limit=1.1, at_most=True, value=1.2),
    Row(name="browser", limit=0.8, detail="no Chromium was found"),
]


def test_the_command_prints_rows_as_table_and_json(monkeypatch, capsys, tmp_path: Path):
    from core.__main__ import main

    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    monkeypatch.setattr(suite, "PARTS", {"all": lambda measured: ROWS})
    assert main(["bench", "--suite", "speed"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert "1.50" in lines[1] and "met" in lines[1] and "3 against 2" in lines[1]
    assert "≤ 1.1" in lines[2] and "not met" in lines[2]
    assert "not measured" in lines[3] and "no Chromium" in lines[3]
    assert json.loads(last) == {
        "rows": [
            {"name": "decode", "value": 1.5, "bar": "≥ 1.4", "met": True},
            {"name": "first token", "value": 1.2, "bar": "≤ 1.1", "met": False},
            {"name": "browser", "value": None, "bar": "≥ 0.8", "met": None},
        ]
    }


@pytest.fixture
def variants(engine: Engine, spec_of) -> list[Variant]:
    spec = spec_of("gpt_neox", Precision.INT8)
    stored = engine.store.get(resolve(spec.model), spec.precision)
    assert stored is not None
    return [
        Variant("paddock", stored.folder, ModelSpec(stored.key, spec.precision, "CPU")),
        Variant("notebook", stored.folder),
    ]


@pytest.mark.long
def test_variants_run_in_turns_with_the_requested_tokens(variants):
    with PairedRun(variants, threading.Event()) as paired:
        found = paired.medians(2, do="answer", prompt_tokens=20, new_tokens=12)
        assert found.keys() == {"paddock", "notebook"}
        for figures in found.values():
            assert figures["tokens"] == 12
            assert figures["ttft_ms"] > 0 and figures["tokens_per_s"] > 0
        ours = paired.processes["paddock"]
        together = ours.run(do="together", count=3, prompt_tokens=20, new_tokens=12)
        assert together["tokens"] == 36
        read = ours.run(do="perplexity", model="whatever")
        assert read["nll"] > 0 and read["tokens"] > 1000
        with pytest.raises(
            GenerationError, match=r"variant notebook ended \(AssertionError: the notebook"
        ):
            paired.processes["notebook"].run(do="perplexity", model="whatever")


def test_a_stopped_suite_ends_its_processes(variants):
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(StoppedError), PairedRun(variants[:1], stopped):
        pass


def test_without_a_browser_its_rows_are_not_measured(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(browser, "missing", lambda: "no Chromium was found")
    whole = suite.Suite(Settings(home=tmp_path), suite.QUICK, print, threading.Event())
    rows = [*browser.page_rows(whole), *browser.start_rows(whole)]
    assert len(rows) == 6 and {row.met for row in rows} == {None}
    assert all(row.detail == "no Chromium was found" for row in rows)


def test_answers_to_another_instruction_are_counted():
    own = ["The first answer, a long one.", "The second answer, a long one.", "yes", "no"]
    alone = {"accuracy": 0.80, "answers": own}
    fine = {"accuracy": 0.79, "answers": [own[0], "Another answer of length.", "no", "yes"]}
    lost, mixed = accuracy_rows("m", alone, fine)
    assert lost.value == pytest.approx(1.0) and lost.met
    assert mixed.value == 0 and mixed.met, "yes and no belong to nobody"
    swapped = {"accuracy": 0.5, "answers": [own[1], own[0], "yes", "no"]}
    lost, mixed = accuracy_rows("m", alone, swapped)
    assert not lost.met and mixed.value == 2 and not mixed.met


def test_turns_alternate_and_the_first_does_not_count():
    asked: list[tuple[str, int]] = []

    def ask(name: str, number: int) -> int:
        asked.append((name, number))
        return number

    assert in_turns(2, {name: partial(ask, name) for name in "ab"}) == {"a": [1, 2], "b": [1, 2]}
    assert asked == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]


def test_the_command_runs_the_named_parts(monkeypatch, capsys, tmp_path: Path):
    from core.__main__ import main

    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))
    monkeypatch.setattr(suite, "PARTS", {"one": lambda measured: ROWS[:1], "two": _fails})
    assert main(["bench", "--suite", "speed", "--parts", "one"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"][0]["met"] is True
    assert main(["bench", "--suite", "speed"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["met"] for row in rows] == [True, None]
    assert main(["bench", "--suite", "speed", "--parts", "three"]) == 2
    assert "one, two" in capsys.readouterr().err


def _fails(measured: suite.Suite) -> list[Row]:
    raise GenerationError("The process ended.")
