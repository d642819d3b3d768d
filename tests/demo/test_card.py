"""The model card says how its weights came about."""

from __future__ import annotations

import pytest

from core.demo.card import card, history, table
from core.demo.models import DEMO_MODELS, read_json

RECORD = {"step": 900, "tokens": 3_600_000, "seed": 5, "loss": 0.0712, "seconds": 1200.0}


def test_history_of_a_training_from_nothing() -> None:
    text = history(RECORD).replace("\n", " ")
    assert "900 steps, 3.6 million tokens" in text and "20 minutes" in text
    assert "longer history" not in text


def test_history_of_weights_that_were_trained_on() -> None:
    text = history({**RECORD, "first_step": 500, "first_tokens": 2_000_000})
    assert "longer history" in text
    assert max(map(len, text.splitlines())) <= 100
    told = text.replace("\n", " ")
    assert "3.6 million tokens" in told and "1.6 million of them" in told


def test_history_of_a_mean() -> None:
    points = [{"seed": 4, "step": 700, "tokens": 2_900_000}, RECORD]
    told = history({**RECORD, "averaged": points}).replace("\n", " ")
    assert "the mean" in told and "after 2.9 (seed 4) and 3.6 (seed 5) million tokens" in told


@pytest.mark.parametrize("key", list(DEMO_MODELS))
def test_the_cards_in_the_repository_show_the_scores_beside_them(key: str) -> None:
    model = DEMO_MODELS[key]
    results = read_json(model.folder / "scores.json")
    text = (model.folder / "README.md").read_text(encoding="utf-8")
    assert table(results) in text
    assert history(read_json(model.folder / "training.json")) in text
    assert card(model, results, 100, "").split("## Scores")[0] == text.split("## Scores")[0]
