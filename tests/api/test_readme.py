"""The examples in docs/api.md, run unchanged except for the port."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.db import Origin, RunRecord
from tests.api.conftest import Served
from tests.readme import blocks
from tests.waiting import PATIENCE_S

DOCUMENT = "docs/api.md"
ADDRESS = "http://localhost:8501"
INSTRUCTION = "Name three advantages of being a cat."


def output_of(served: Served, folder: Path, shown: str, *run_by: str) -> str:
    """Output of a code block, run outside the checkout by a program that takes code as argument."""
    assert ADDRESS in shown
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    done = subprocess.run(
        [*run_by, shown.replace(ADDRESS, served.url)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def recorded(served: Served, count: int) -> list[RunRecord]:
    """The latest answers, oldest first; all came from the API."""
    runs = served.engine.runs.recent(count)[::-1]
    assert [run.start.origin for run in runs] == [Origin.API] * count
    return runs


def test_openai_example(served: Served, tmp_path: Path):
    [shown] = [code for code in blocks("python", DOCUMENT) if "from openai" in code]
    printed = output_of(served, tmp_path, shown, sys.executable, "-c")
    [run] = recorded(served, 1)
    assert (run.start.instruction, printed) == (INSTRUCTION, run.result.text)
    assert len(printed) > 20


def test_langchain_example(served: Served, tmp_path: Path):
    [shown] = [code for code in blocks("python", DOCUMENT) if "langchain_openai" in code]
    printed = output_of(served, tmp_path, shown, sys.executable, "-c")
    plain, about = recorded(served, 2)
    assert printed == f"{plain.result.text}\n{about.result.text}\n"
    assert plain.start.instruction == INSTRUCTION
    assert about.result.text == "The Orvel is 240 kilometres long."


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_example(served: Served, tmp_path: Path):
    [shown] = [code for code in blocks("sh", DOCUMENT) if code.startswith("curl")]
    reply = json.loads(output_of(served, tmp_path, shown, "bash", "-euc"))
    [run] = recorded(served, 1)
    assert reply["choices"][0]["message"]["content"] == run.result.text
    assert run.start.instruction == INSTRUCTION


def test_there_are_no_other_examples():
    assert len(blocks("python", DOCUMENT)) == 2 and len(blocks("sh", DOCUMENT)) == 1
