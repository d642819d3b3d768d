"""Folders whose names have spaces, letters of other scripts and special characters."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from core.catalogue import Precision
from core.store import resolve
from tests.in_process import engine_in_process, greedy_answer


def test_models_are_converted_and_answer_from_unusual_paths(
    checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    home, folder = tmp_path / "h öme 模型 #1?", tmp_path / "földer 模 %20 #2?"
    shutil.copytree(checkpoint_of("llama"), folder)
    engine = engine_in_process(home)
    try:
        stored = engine.store.ensure(resolve(str(folder)), Precision.INT8)
        assert engine.store.verify(stored, full=True).folder.is_relative_to(home)
        for runtime in ("genai", "optimum"):
            answer = greedy_answer(
                engine, folder, precision=Precision.INT8, runtime=runtime, prompt_format="plain"
            )
            assert answer.error is None, answer.error_sentence
            assert len(answer.token_ids) == 8
        engine.store.delete(stored)
        assert engine.store.list() == []
    finally:
        engine.close()
