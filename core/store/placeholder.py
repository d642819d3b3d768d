"""Stands in for the embedded models until their weights are trained: random weights, right shape.

It exists so that everything downstream can run; it is removed together with its one caller once
``core/demo/<key>/`` holds weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from core.catalogue import CatalogueModel
from core.catalogue.shapes import transformers_config

_END_OF_TEXT = "<|endoftext|>"
_SPECIAL_TOKENS = ["### End", "### Instruction:", "### Response:"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def build(row: CatalogueModel, folder: Path) -> Path:
    """Build the stand-in for ``row`` in ``folder``, or leave it be where it is already built."""
    if (folder / "model.safetensors").is_file():
        return folder
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    _write_tokenizer(beside, with_template=row.prompt_format == "chat")
    _write_model(row, beside)
    beside.rename(folder)
    return folder


def _write_tokenizer(folder: Path, *, with_template: bool) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[_END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([__doc__ or ""], trainer)
    tokenizer.add_special_tokens(_SPECIAL_TOKENS)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), _END_OF_TEXT),
        "extra_special_tokens": _SPECIAL_TOKENS,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    if with_template:
        settings["chat_template"] = _CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _write_model(row: CatalogueModel, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = transformers_config(row.architecture, row.shape)
    config = AutoConfig.for_model(
        settings.pop("model_type"),
        **settings,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
