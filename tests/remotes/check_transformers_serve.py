"""A real foreign server as a remote: ``transformers serve`` with a tiny model, offline.

It needs requirements-checks.txt, takes a minute to start, and is run by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.db import Origin
from core.inference.answer import Answer, StopReason
from core.inference.engine import Engine
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.settings import Settings
from tests.remotes.scripted_server import free_port

START_S = 120.0


@pytest.fixture(scope="module")
def url(
    checkpoints: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Base URL of the running server."""
    folder = checkpoints("llama", with_chat_template=True)
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    (log.parent / "hub").mkdir()  # it scans the hub's cache for models
    command = ["-m", "transformers.cli.transformers", "serve", str(folder)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, *command, *options],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_S
        while "Uvicorn running" not in log.read_text():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def engine(tmp_path: Path, url: str) -> Iterator[Engine]:
    """An engine with this server as its remote."""
    made = Engine(Settings(home=tmp_path / "home"))
    made.add_remote("foreign", url)
    yield made
    made.close()


def ask(engine: Engine, **sampling: object) -> Answer:
    spec = ModelSpec.of_remote("remote:foreign/tiny")
    request = GenerationRequest("Name a colour.", sampling=SamplingSettings(**sampling))
    job = engine.answer(engine.handle(spec), request, origin=Origin.CLI)
    assert job.wait(60)
    assert job.answer is not None
    return job.answer


def test_answer_is_streamed_and_counted(engine: Engine):
    first, again = (ask(engine, max_new_tokens=12, seed=3) for _ in range(2))
    assert first.error is None
    assert first.stop_reason is StopReason.LENGTH
    assert first.text == again.text
    assert (first.timings.new_tokens, first.timings.prompt_tokens) == (
        12,
        again.timings.prompt_tokens,
    )
    assert first.timings.prompt_tokens > 0
    assert first.timings.decode_tokens_per_s > 0
    assert len(set(first.token_times_ms)) > 1


def test_rejected_parameters_are_left_out(engine: Engine):
    ended = ask(engine, max_new_tokens=4, top_k=5, repetition_penalty=1.2)
    assert ended.error is None
    assert ended.timings.new_tokens == 4
    assert "without top-k and the repetition penalty" in ended.conditions.note


def test_answer_can_be_cancelled(engine: Engine):
    spec = ModelSpec.of_remote("remote:foreign/tiny")
    request = GenerationRequest("Go on.", sampling=SamplingSettings(max_new_tokens=1000))
    job = engine.answer(engine.handle(spec), request, origin=Origin.CLI)
    deadline = time.monotonic() + 60
    while not job.text:
        assert time.monotonic() < deadline and not job.done
        time.sleep(0.01)
    began = time.monotonic()
    job.cancel()
    assert job.wait(10)
    assert time.monotonic() - began < 1.0
    assert job.answer.stop_reason is StopReason.CANCELLED
