"""The context length is read from ``config.json`` under each architecture's name for it."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from core.store.checkpoint import context_length

DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}


@pytest.mark.parametrize(
    ("model_type", "settings", "wanted"),
    [
        ("gpt2", {"n_positions": 64}, 64),
        ("opt", {"max_position_embeddings": 64}, 64),
        ("llama", {"max_position_embeddings": 64, "rope_parameters": DYNAMIC}, 64),
        ("bloom", {}, None),
        pytest.param(
            "mpt",
            {"max_seq_len": 64},
            64,
        ),
    ],
)
def test_the_context_length_is_read(
    model_type: str, settings: dict[str, Any], wanted: int | None
) -> None:
    assert context_length(AutoConfig.for_model(model_type, **settings).to_dict()) == wanted
