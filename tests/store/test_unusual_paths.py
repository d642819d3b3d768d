"""Folders whose names have spaces, letters of other scripts and characters with a meaning."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from core.catalogue import Precision
from core.settings import Settings
from core.store import resolve
from tests.in_process import engine_in_process, greedy_answer


def test_models_are_converted_and_answer_from_unusual_paths(
    checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    home, folder = tmp_path / "h öme 模型 #1?", tmp_path / "földer 模 %20 #2?"
    shutil.copytree(checkpoint_of("llama"), folder)
    engine = engine_in_process(home)
    try:
        for precision in (Precision.INT8, Precision.INT4):
            stored = engine.store.ensure(resolve(str(folder)), precision)
            assert engine.store.verify(stored, full=True).folder.is_relative_to(home)
        answers = [
            greedy_answer(
                engine, folder, precision=Precision.INT8, runtime=runtime, prompt_format="plain"
            )
            for runtime in ("genai", "optimum")
        ]
        assert [answer.error for answer in answers] == [None, None]
        assert answers[0].token_ids == answers[1].token_ids
        assert len(answers[0].token_ids) == 8
        assert {each.precision for each in engine.store.list()} == {Precision.INT8, Precision.INT4}
        assert Settings(home=home).models_dir.is_dir()
        engine.store.delete(stored)
        assert len(engine.store.list()) == 1
    finally:
        engine.close()
