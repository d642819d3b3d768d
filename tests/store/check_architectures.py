"""Exported architectures give the answers of transformers, on both runtimes.

Run by name, because every architecture is exported and loaded twice. Others are in
test_genai_check.py, those that cannot be exported in test_model_kinds.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.catalogue import Precision
from core.runtimes.base import LoadedModel
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.spec import ExecutionHints, ModelSpec, SamplingSettings, TokenRequest
from core.settings import Settings
from core.store import ModelStore, resolve
from core.store.genai_check import GenAIOutcome, compare_runtimes
from tests.store.test_genai_check import FALCON, PHI3_LONGROPE, checkpoint, config_of

SPEC = ModelSpec("mine", Precision.FP32, "CPU", hints=ExecutionHints("f32", "f32", None, 0))
PROMPT = tuple(3 + (31 * at * at + 7 * at) % 300 for at in range(60))
NEW = 24

GROUPED = {"num_key_value_heads": 2, "head_dim": 16}
WINDOW = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
GEMMA = {"query_pre_attn_scalar": 16}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(Settings(home=tmp_path_factory.mktemp("home")))


def answer_of(model: LoadedModel) -> list[int]:
    """Return the ids after the prompt; the model is unloaded."""
    answer: list[int] = []
    request = TokenRequest(PROMPT, SamplingSettings(max_new_tokens=NEW, greedy=True))
    try:
        model.generate(request, lambda token: answer.append(int(token)) or True)
    finally:
        model.close()
    return answer


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        pytest.param("starcoder2", {"num_key_value_heads": 2, "sliding_window": 16}, id="window"),
        pytest.param("gemma", GROUPED, id="gemma"),
        pytest.param("gemma2", GROUPED | GEMMA | {"sliding_window": 16}, id="gemma2"),
        pytest.param("gemma3_text", GROUPED | GEMMA | WINDOW, id="gemma3_text"),
        pytest.param("glm", GROUPED, id="glm"),
        pytest.param("exaone4", GROUPED | WINDOW, id="exaone4"),
    ],
)
def test_greedy_ids_are_those_of_transformers(
    kind: str, changes: dict[str, Any], store: ModelStore, tmp_path: Path
) -> None:
    import torch

    model = checkpoint(tmp_path / kind, kind, **changes)
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    wanted = found[0, len(PROMPT) :].tolist()
    stored = store.ensure(resolve(str(tmp_path / kind)), Precision.FP32)
    for runtime in (GenAIRuntime(), OptimumRuntime()):
        runtime.prepare(stored.folder)
        assert answer_of(runtime.load(stored.folder, SPEC)) == wanted


@pytest.mark.parametrize(
    ("kind", "changes", "outcome"),
    [
        ("falcon", FALCON | {"alibi": True, "bias": True}, GenAIOutcome.DIFFERS),
        ("phi3", PHI3_LONGROPE, GenAIOutcome.DIFFERS),
        ("qwen2", {"num_key_value_heads": 2}, GenAIOutcome.EXACT),
        ("qwen3", {"num_key_value_heads": 2, "head_dim": 32}, GenAIOutcome.EXACT),
        ("phi3", {"num_key_value_heads": 2, "sliding_window": 2047}, GenAIOutcome.EXACT),
        ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4}, GenAIOutcome.EXACT),
        ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}, GenAIOutcome.EXACT),
    ],
)
def test_each_architecture_has_the_expected_outcome(
    kind: str, changes: dict[str, Any], outcome: GenAIOutcome
) -> None:
    assert compare_runtimes(config_of(kind, **changes)).outcome == outcome
