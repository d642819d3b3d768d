"""Tests of loading the model used last at start-up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.db import Origin
from core.inference.engine import Engine
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.settings import Settings
from tests.waiting import PATIENCE_S


@pytest.fixture
def fresh(tmp_path: Path) -> Engine:
    engine = Engine(Settings(home=tmp_path / "home", memory_reserve_mib=0))
    yield engine
    engine.close()


def answered(engine: Engine, spec: ModelSpec) -> None:
    request = GenerationRequest(
        "Where?", sampling=SamplingSettings(max_new_tokens=2), prompt_format="dolly"
    )
    job = engine.answer(engine.handle(spec), request, origin=Origin.INSTRUCT)
    assert job.wait(PATIENCE_S) and job.answer.error is None


def test_model_of_the_latest_answer_is_loaded(engine: Engine, spec_of):
    first, last = spec_of("llama", Precision.INT8), spec_of("gpt_neox", Precision.INT8)
    answered(engine, first)
    answered(engine, last)
    last = engine.named(last)
    assert engine.last_used() == last
    engine.pool.unload(last)
    engine.warm(last)
    assert engine.pool.is_loaded(replace(last, prefix_cache=True)), "as Instruct runs it"


def test_nothing_is_loaded_without_a_stored_model_used_last(
    fresh: Engine, engine: Engine, spec_of, monkeypatch: pytest.MonkeyPatch
):
    assert fresh.last_used() is None
    answered(engine, spec_of("llama", Precision.INT8))
    monkeypatch.setattr(engine.store, "get", lambda source, precision: None)
    assert engine.last_used() is None
    fresh.warm(ModelSpec("no such model", Precision.INT8, "CPU"))
    assert fresh.pool.loaded() == ()
