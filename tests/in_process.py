"""Answers of tiny models within the test's own process, which costs no start of another one."""

from __future__ import annotations

from pathlib import Path

from core.catalogue import Precision
from core.catalogue.prompts import Turn
from core.db import Origin
from core.inference.answer import Answer
from core.inference.engine import Engine
from core.inference.request import GenerationRequest
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.spec import ModelSpec, RuntimeName, SamplingSettings
from core.settings import Settings
from tests.waiting import PATIENCE_S


def engine_in_process(home: Path) -> Engine:
    """An engine whose runtimes are no processes of their own."""
    settings = Settings(home=home, max_loaded_models=32, memory_reserve_mib=0)
    runtimes = {RuntimeName.GENAI: GenAIRuntime(), RuntimeName.OPTIMUM: OptimumRuntime()}
    return Engine(settings, runtimes)


def converted(engine: Engine, folder: Path, precision: Precision = Precision.FP32) -> Path:
    """Convert a checkpoint, so that the engine need not do that in a child process."""
    engine.store.ensure(engine.store.resolve(str(folder)), precision)
    return folder


def greedy_answer(
    engine: Engine,
    folder: Path,
    instruction: str = "Where does the river go?",
    *,
    precision: Precision = Precision.FP32,
    runtime: str = "genai",
    prompt_format: str | None = None,
    earlier: tuple[Turn, ...] = (),
    new_tokens: int = 8,
) -> Answer:
    """The greedy answer of a model that :func:`converted` has converted."""
    sampling = SamplingSettings(max_new_tokens=new_tokens, greedy=True)
    request = GenerationRequest(
        instruction, sampling=sampling, prompt_format=prompt_format, earlier=earlier
    )
    spec = ModelSpec(str(folder), precision, "CPU", RuntimeName(runtime))
    job = engine.answer(engine.handle(spec), request, origin=Origin.CLI)
    assert job.wait(PATIENCE_S) and job.answer is not None
    return job.answer
