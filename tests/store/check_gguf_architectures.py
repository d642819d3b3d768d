"""Every GGUF architecture that transformers dequantises answers as transformers does.

Converts a model for each, which takes minutes, and is therefore not collected: run
``python -m pytest`` with this file's name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.store import ModelStore
from tests.store.test_gguf_models import THROUGH_TRANSFORMERS, check_answers


@pytest.mark.parametrize("architecture", THROUGH_TRANSFORMERS)
def test_the_dequantised_weights_answer_as_transformers_does(
    architecture: str, tmp_path: Path, store: ModelStore
) -> None:
    check_answers(architecture, tmp_path, store)
