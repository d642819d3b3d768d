"""The model card describes the training and shows the scores."""

from __future__ import annotations

import pytest

from core.embedded.training.build import read_json
from core.embedded.training.card import card, history, table
from core.embedded.training.models import EMBEDDED_MODELS

RECORD = {"step": 900, "tokens": 3_600_000, "seed": 5, "loss": 0.0712, "seconds": 1200.0}


def test_history_of_a_run_from_scratch() -> None:
    text = history(RECORD).replace("\n", " ")
    assert "900 steps, 3.6 million tokens" in text and "20 minutes" in text
    assert "several runs" not in text


def test_history_of_continued_training() -> None:
    text = history({**RECORD, "first_step": 500, "first_tokens": 2_000_000})
    assert "several runs" in text
    assert max(map(len, text.splitlines())) <= 100
    text = text.replace("\n", " ")
    assert "3.6 million tokens" in text and "1.6 million of them" in text


def test_history_of_averaged_weights() -> None:
    points = [{"seed": 4, "step": 700, "tokens": 2_900_000}, RECORD]
    text = history({**RECORD, "averaged": points}).replace("\n", " ")
    assert "the mean" in text and "after 2.9 (seed 4) and 3.6 (seed 5) million tokens" in text


@pytest.mark.parametrize("key", list(EMBEDDED_MODELS))
def test_the_cards_in_the_repository_show_the_scores_beside_them(key: str) -> None:
    model = EMBEDDED_MODELS[key]
    results = read_json(model.folder / "scores.json")
    text = (model.folder / "README.md").read_text(encoding="utf-8")
    assert table(results) in text
    assert history(read_json(model.folder / "training.json")) in text
    assert card(model, results, 100, "").split("## Scores")[0] == text.split("## Scores")[0]
