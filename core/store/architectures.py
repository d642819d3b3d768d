"""The architectures that the pinned Optimum Intel exports with the pinned transformers.

Pages and the command line ask for each model that they look up, and importing Optimum's own list
takes seconds. ``tests/store/test_architectures.py`` compares the two.
"""

from __future__ import annotations

from importlib import metadata

WITHOUT_VERSION_LIMIT = frozenset({"exaone4", "gemma", "gemma2", "gemma3_text", "glm"})
"""Architectures that Optimum only refuses for the version of transformers. Exported nevertheless,
their greedy answers are those of transformers; :mod:`core.store.genai_check` checks GenAI's."""

EXPORTED = WITHOUT_VERSION_LIMIT | {
    *("afmoe", "arcee", "biogpt", "bloom", "codegen", "cohere", "cohere2", "falcon", "glm4"),
    *("gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese", "gpt_oss", "gptj"),
    *("granite", "granitemoe", "hunyuan_v1_dense", "llama", "mistral", "mixtral", "mpt", "olmo"),
    *("olmo2", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3"),
    *("qwen3_moe", "smollm3", "stablelm", "starcoder2", "xglm"),
}
"""``model_type`` of the decoder-only language models that can be exported."""


def known_to_transformers(model_type: str) -> bool:
    """Return whether transformers has this architecture, so that no custom code is needed."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return model_type in CONFIG_MAPPING_NAMES


def cannot_export(model_type: str) -> str:
    """Return why a checkpoint of an architecture outside :data:`EXPORTED` cannot be exported."""
    if known_to_transformers(model_type):
        return f"Optimum Intel {metadata.version('optimum-intel')} cannot export to OpenVINO"
    return f"transformers {metadata.version('transformers')} does not have"
