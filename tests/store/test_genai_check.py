"""Models with wrong results in OpenVINO GenAI are detected, and run by Optimum instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.catalogue import EMBEDDED_DIR, Precision
from core.runtimes.base import LoadedModel
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.spec import ExecutionHints, ModelSpec, SamplingSettings, TokenRequest
from core.runtimes.subprocess_runtime import SubprocessRuntime
from core.settings import Settings
from core.store import ModelStore, StoredModel, resolve
from core.store.genai_check import (
    KNOWN_EXACT,
    architecture_key,
    compare_runtimes,
    scaled_down_config,
)
from core.store.manifest import GenAICheck, GenAIOutcome, write_manifest
from core.store.weights import read_weights
from tests.builders import ARCHITECTURES, tiny_config, tiny_tokenizer

SPEC = ModelSpec("mine", Precision.FP32, "CPU", hints=ExecutionHints("f32", "f32", None, 0))
PROMPT = tuple(3 + (31 * at * at + 7 * at) % 300 for at in range(40))

MPT = {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 512, "expansion_ratio": 2}
FALCON = {"multi_query": False, "parallel_attn": False, "new_decoder_architecture": False}
GPT_NEO = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 512}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [1.0 + 0.5 * at for at in range(8)],
    "original_max_position_embeddings": 24,
    "factor": 8.0,
}
PHI3_LONGROPE = {
    "num_key_value_heads": 2,
    "sliding_window": None,
    "original_max_position_embeddings": 24,
    "rope_parameters": LONGROPE | {"partial_rotary_factor": 1.0},
}


def config_of(kind: str, **changes: Any) -> dict[str, Any]:
    """A configuration as in ``config.json``."""
    from transformers import AutoConfig

    usual: dict[str, Any] = {"initializer_range": 0.2, "tie_word_embeddings": False}
    if kind not in ("mpt", "gpt2", "bloom", "gpt_neo", "xglm"):
        usual |= {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        usual |= {"intermediate_size": 128, "max_position_embeddings": 512}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    made = AutoConfig.for_model(kind, **{**usual, **ids, "vocab_size": 384, **changes})
    return json.loads(made.to_json_string())


def checkpoint(folder: Path, kind: str, **changes: Any) -> Any:
    """Write a checkpoint with random weights to ``folder``, and return the model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    folder.mkdir(parents=True)
    vocabulary = tiny_tokenizer(folder, special_tokens=())
    config = AutoConfig.for_model(**config_of(kind, vocab_size=vocabulary, **changes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model.save_pretrained(folder)
    return model


def ids_of(model: LoadedModel, new: int = 24) -> list[int]:
    ids: list[int] = []
    request = TokenRequest(PROMPT, SamplingSettings(max_new_tokens=new, greedy=True))
    model.generate(request, lambda token_id: ids.append(int(token_id)) or True)
    return ids


def read_anew(model: Any, prompt: tuple[int, ...], new: int) -> list[int]:
    """The greedy continuation by ``transformers`` without a KV cache."""
    import torch

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        for _ in range(new):
            logits = model(input_ids=ids, use_cache=False).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids[0, len(prompt) :].tolist()


# Outcomes of the check


@pytest.mark.parametrize(
    ("kind", "changes", "outcome"),
    [
        ("mpt", MPT, GenAIOutcome.DIFFERS),
        ("gpt_neo", GPT_NEO | {"attention_types": [[["global", "local"], 1]]}, "differs"),
        ("llama", {"rope_parameters": LONGROPE}, GenAIOutcome.DIFFERS),
        ("xglm", {"d_model": 64, "num_layers": 2, "attention_heads": 4}, GenAIOutcome.REFUSED),
        ("olmoe", {"num_experts": 4}, GenAIOutcome.UNCHECKED),
        ("falcon", FALCON | {"alibi": False}, GenAIOutcome.EXACT),
        ("gpt_neo", GPT_NEO | {"attention_types": [[["global"], 2]]}, GenAIOutcome.EXACT),
        ("mistral", {"num_key_value_heads": 2, "sliding_window": 4096}, GenAIOutcome.EXACT),
        ("bloom", {"hidden_size": 96, "n_layer": 2, "n_head": 6}, GenAIOutcome.EXACT),
    ],
)
def test_each_architecture_has_the_expected_outcome(kind, changes, outcome):
    """More are in ``check_architectures.py``."""
    assert compare_runtimes(config_of(kind, **changes)).outcome == outcome


SMOLLM2 = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "tie_word_embeddings": True,
}
"""Configuration that is converted from the GGUF file of SmolLM2 135M Instruct."""


@pytest.mark.parametrize("name", ["paddock-neox", "paddock-llama", "smollm2", *ARCHITECTURES])
def test_models_that_come_with_paddock_are_known_to_be_exact(name: str):
    if name == "smollm2":
        config = SMOLLM2
    elif (folder := EMBEDDED_DIR / name).is_dir():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    else:
        config = json.loads(tiny_config(name, vocabulary=384).to_json_string())
    assert architecture_key(config) in KNOWN_EXACT, (
        f"add {architecture_key(config)} where the next line holds"
    )
    assert compare_runtimes(config).outcome is GenAIOutcome.EXACT


# The scaled-down configuration


def test_models_that_only_differ_in_size_share_a_check():
    small = config_of("llama", num_key_value_heads=2)
    large = config_of(
        "llama",
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
        max_position_embeddings=8192,
        vocab_size=128256,
        rms_norm_eps=1e-5,
    )
    assert scaled_down_config(small) == scaled_down_config(large)
    assert architecture_key(small) != architecture_key(large | {"attention_bias": True})


def test_a_scaled_down_configuration_has_a_layer_of_each_kind_and_a_short_window():
    kinds = ["full_attention", "full_attention", "full_attention", "sliding_attention"] * 4
    scaled = scaled_down_config(
        {"num_hidden_layers": 16, "layer_types": kinds, "sliding_window": 4096}
    )
    assert scaled["num_hidden_layers"] == 2
    assert scaled["layer_types"] == ["full_attention", "sliding_attention"]
    assert scaled["sliding_window"] == 16


def test_the_number_of_heads_stays_a_power_of_two_or_not():
    assert scaled_down_config({"num_attention_heads": 32})["num_attention_heads"] == 4
    assert scaled_down_config({"num_attention_heads": 71})["num_attention_heads"] == 6


# Use of the result


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def mpt(home: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredModel, Any]:
    """MPT in the store, and its checkpoint in ``transformers``."""
    folder = tmp_path_factory.mktemp("mpt") / "mpt"
    model = checkpoint(folder, "mpt", **MPT)
    return ModelStore(home).ensure(resolve(str(folder)), Precision.FP32), model


@pytest.mark.parametrize("runtime", [GenAIRuntime, SubprocessRuntime])
def test_optimum_runs_models_with_wrong_results_in_genai_and_reports_it(mpt, runtime):
    stored, model = mpt
    made = runtime()
    loaded = made.load(stored.folder, SPEC)
    try:
        assert loaded.conditions.runtime == "optimum"
        assert loaded.conditions.note == stored.manifest.genai.reason
        assert "gives wrong results for this architecture" in loaded.conditions.note
        assert ids_of(loaded) == read_anew(model, PROMPT, 24)
    finally:
        loaded.close()
        if isinstance(made, SubprocessRuntime):
            made.close()


def test_without_the_check_genai_gives_wrong_answers(mpt, tmp_path):
    stored, model = mpt
    folder = shutil.copytree(stored.folder, tmp_path / "copy")
    write_manifest(folder, stored.manifest.model_copy(update={"genai": None}))
    loaded = GenAIRuntime().load(folder, SPEC)
    try:
        assert loaded.conditions.runtime is None
        assert ids_of(loaded) != read_anew(model, PROMPT, 24)
    finally:
        loaded.close()


# States


@pytest.fixture(scope="module")
def with_a_counter(
    home: Settings, spec_of: Callable[..., ModelSpec], engine, tmp_path_factory
) -> StoredModel:
    """A Llama IR with a state that grows with each step and changes the logits."""
    import numpy as np
    import openvino
    from openvino import opset13 as ops
    from openvino.op import util

    spec = spec_of("llama")
    stored = engine.store.get(resolve(spec.model), Precision.FP32)
    folder = shutil.copytree(stored.folder, tmp_path_factory.mktemp("counter") / "ir")
    (folder / "paddock.json").unlink()
    (folder / "openvino_model.xml").unlink()
    (folder / "openvino_model.bin").unlink()
    model = openvino.Core().read_model(stored.folder / "openvino_model.xml")
    info = util.VariableInfo()
    info.data_shape, info.data_type = openvino.PartialShape([1, 1, 1]), openvino.Type.f32
    info.variable_id = "recurrent.0"
    variable = util.Variable(info)
    read = ops.read_value(ops.constant(np.zeros((1, 1, 1), np.float32)), variable)
    grown = ops.add(read, ops.constant(np.ones((1, 1, 1), np.float32)))
    result = model.get_results()[0]
    logits = result.input_value(0)
    size = logits.get_partial_shape()[2].get_length()
    bend = np.random.default_rng(0).normal(size=(1, 1, size)).astype(np.float32)
    bent = ops.add(logits, ops.multiply(grown, ops.constant(bend)))
    names = logits.get_names()
    result.input(0).replace_source_output(bent.output(0))
    logits.set_names(set())
    bent.output(0).set_names(names)
    model.add_sinks([ops.assign(grown, variable)])
    model.add_variables([variable])
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    return ModelStore(home).ensure(resolve(str(folder)), Precision.FP32)


def test_a_model_with_another_state_is_run_by_optimum(with_a_counter):
    stored = with_a_counter
    assert stored.manifest.genai.outcome is GenAIOutcome.STATE
    loaded = GenAIRuntime().load(stored.folder, SPEC)
    alone = OptimumRuntime().load(stored.folder, SPEC)
    try:
        assert loaded.conditions.runtime == "optimum"
        assert "recurrent.0" in loaded.conditions.note
        first, second = ids_of(loaded), ids_of(loaded)
        assert first == second == ids_of(alone)
    finally:
        loaded.close()
        alone.close()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_kv_cache_is_not_another_state(architecture, engine, spec_of):
    spec = spec_of(architecture)
    assert (
        read_weights(engine.store.get(resolve(spec.model), spec.precision).folder).other_states
        == ()
    )


# Optimum


def test_optimum_computes_the_cache_again_when_longrope_switches(home, tmp_path):
    model = checkpoint(tmp_path / "phi3", "phi3", **PHI3_LONGROPE)
    stored = ModelStore(home).ensure(resolve(str(tmp_path / "phi3")), Precision.FP32)
    loaded = GenAIRuntime().load(stored.folder, SPEC)
    short = PROMPT[:12]
    try:
        ids: list[int] = []
        request = TokenRequest(short, SamplingSettings(max_new_tokens=30, greedy=True))
        loaded.generate(request, lambda token_id: ids.append(int(token_id)) or True)
        assert loaded.conditions.runtime == "optimum"
        assert ids == read_anew(model, short, 30)
    finally:
        loaded.close()


# Other refusals


def test_what_genai_refuses_at_its_load_is_run_by_optimum(home, tmp_path):
    checkpoint(tmp_path / "xglm", "xglm", d_model=64, num_layers=2, attention_heads=4, ffn_dim=128)
    stored = ModelStore(home).ensure(resolve(str(tmp_path / "xglm")), Precision.FP32)
    unknown = GenAICheck(outcome=GenAIOutcome.UNCHECKED)
    write_manifest(stored.folder, stored.manifest.model_copy(update={"genai": unknown}))
    loaded = GenAIRuntime().load(stored.folder, SPEC)
    try:
        assert loaded.conditions.runtime == "optimum"
        assert "GenAI cannot run this model" in loaded.conditions.note
        assert len(ids_of(loaded, 4)) == 4
    finally:
        loaded.close()
