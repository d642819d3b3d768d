"""Untrained networks copy from their context."""

from __future__ import annotations

import pytest
import torch

from core.embedded.training.build import VOCABULARY, build_model
from core.embedded.training.models import EMBEDDED_MODELS


class NoTokenizer:
    """Has the ids of special tokens only."""

    bos_token_id = eos_token_id = pad_token_id = 0


@pytest.mark.parametrize("key", list(EMBEDDED_MODELS))
def test_an_untrained_network_continues_repeated_random_tokens(key: str) -> None:
    network = build_model(EMBEDDED_MODELS[key], NoTokenizer(), seed=1)
    pattern = torch.randint(4, VOCABULARY, (8, 20), generator=torch.Generator().manual_seed(2))
    ids = pattern.repeat(1, 3)
    with torch.no_grad():
        predicted = network(ids).logits.argmax(-1)
    right = (predicted[:, 20:-1] == ids[:, 21:]).float().mean()
    assert right > 0.6
