"""Build, initialise and write a model: tokenizer, untrained network, files in the repository."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue.prompts import prompt_format
from core.embedded.training.corpus import Split, examples
from core.embedded.training.corpus.text import data
from core.embedded.training.induction_heads import add_induction_heads
from core.embedded.training.models import EmbeddedModel, end_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 3072
"""Tokens of either tokenizer: small enough that the embeddings stay a minor part of the model."""
CONTEXT_LENGTH = 1024
"""Maximum tokens of prompt and answer together."""
TOKENIZER_EXAMPLES = 30_000
TOKENIZER_SEED = 7
PROMPT_REPEATS = 2000
"""Times the tokenizer reads Dolly's introduction, so that each of its words becomes one token."""

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Words with their leading space, digits one by one (numbers can be copied digit by digit)."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}"
    "{{ '\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def build_tokenizer(model: EmbeddedModel) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the corpus; the result is deterministic."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True, normalized=False) for text in model.special_tokens]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_texts(), trainer)
    if model.architecture == "gpt_neox":
        end_of_text = model.special_tokens[0]
        roles = {name: end_of_text for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        extra = {"extra_special_tokens": list(model.special_tokens[1:])}
    else:
        roles = {"eos_token": model.end_token, "pad_token": model.special_tokens[0]}
        extra = {
            "extra_special_tokens": list(model.special_tokens[2:]),
            "chat_template": CHAT_TEMPLATE,
        }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONTEXT_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **roles,
        **extra,
    )


def _tokenizer_texts() -> Iterable[str]:
    stream = examples(TOKENIZER_SEED, Split.TRAIN)
    for _ in range(TOKENIZER_EXAMPLES):
        example = next(stream)
        yield "\n\n".join((example.instruction, example.context, example.answer))
    for _ in range(PROMPT_REPEATS):
        yield prompt_format("dolly").render("instruction", "context").replace("### ", "")
    for options in data("out_of_scope")["slots"].values():
        yield " ".join(options)


def build_model(
    model: EmbeddedModel, tokenizer: PreTrainedTokenizerFast, seed: int
) -> PreTrainedModel:
    """Return the untrained network in float32, with induction heads."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        model.architecture,
        vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **model.sizes,
    )
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    add_induction_heads(network)
    return network


def write_model(
    model: EmbeddedModel,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
) -> None:
    """Write fp16 safetensors with configuration, generation defaults and tokenizer.

    Converts ``network`` itself to half precision.
    """
    from transformers import GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    network.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.8,
        top_p=0.92,
        top_k=0,
        max_new_tokens=256,
        eos_token_id=end_ids(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    network.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_json(path: Path) -> Any:
    """Return the JSON document in a file."""
    return json.loads(path.read_text(encoding="utf-8"))
