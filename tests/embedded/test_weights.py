"""The weights in the repository: complete, small, half precision, with their special tokens."""

from __future__ import annotations

from typing import Any

import pytest

from core.catalogue import EMBEDDED_DIR, catalogue

KEYS = [key for key, row in catalogue().items() if row.embedded]
LARGEST = 20 * 1024 * 1024
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def tokenizer_of(key: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(EMBEDDED_DIR / key)


@pytest.mark.parametrize("key", KEYS)
def test_the_folder_is_complete_and_small(key: str) -> None:
    folder = EMBEDDED_DIR / key
    assert {path.name for path in folder.iterdir()} >= FILES
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LARGEST


@pytest.mark.parametrize("key", KEYS)
def test_weights_are_half_precision(key: str) -> None:
    from safetensors import safe_open

    with safe_open(EMBEDDED_DIR / key / "model.safetensors", "pt") as file:
        types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert types == {"F16"}


def test_dolly_tokens_and_end_of_text() -> None:
    tokenizer = tokenizer_of("paddock-neox")
    for text in ("### End", "### Instruction:", "### Response:"):
        assert len(tokenizer(text, add_special_tokens=False).input_ids) == 1
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert ids == {tokenizer.unk_token_id} == {0}


def test_llama_has_its_own_chat_template_and_end_token() -> None:
    tokenizer = tokenizer_of("paddock-llama")
    turns = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>\nHello<|end|>\n<|assistant|>\n"
    assert tokenizer.eos_token == "<|end|>"
