"""Builders of tiny checkpoints with random weights, for tests that need a real model at no cost.

A checkpoint built here is an ordinary Hugging Face folder (``config.json``, weights,
``tokenizer.json``, ``tokenizer_config.json``, ``generation_config.json``): everything that works
on a released model works on it, in a fraction of a second. Equal arguments give equal bytes. Its
special tokens are unlikely: hardly an answer ends before it is as long as it may be.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ARCHITECTURES = ("gpt_neox", "llama", "phi", "mistral")
"""``model_type`` of every architecture in the catalogue."""

DOLLY_SPECIAL_TOKENS = ("### End", "### Instruction:", "### Response:")
END_OF_TEXT = "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""A template in the manner of TinyLlama's; it begins without a bos token."""

_WORDS = (
    "Below is an instruction that describes a task. Write a response that appropriately completes"
    " the request. The cat is playing in the garden and the dog sleeps near the warm stove."
    " Instruct: Output: Input: Q: A: What are three good reasons to walk in the rain? First, it is"
    " quiet; second, the air is clean; third, nobody else is there. Where does the river go when"
    " it meets the sea, and why? Please name five animals, then sort them from small to large."
)


def tiny_tokenizer(
    folder: Path,
    *,
    vocabulary: int = 384,
    special_tokens: Sequence[str] = DOLLY_SPECIAL_TOKENS,
    words: Sequence[str] = (),
    chat_template: str | None = None,
) -> int:
    """Write a byte-level BPE tokenizer, as GPT-NeoX has it, into ``folder``.

    ``<|endoftext|>`` is id 0 and serves as bos, eos, pad and unk, as in Dolly; the special tokens
    come last, one id each. With ``special_tokens=()`` their text falls into several ordinary
    tokens, as with a base model.

    Args:
        folder: an existing folder.
        vocabulary: tokens learnt before the special ones; at least 257.
        special_tokens: texts that become one id each.
        words: texts that become one ordinary id each.
        chat_template: Jinja text, or None for a tokenizer without one.

    Returns:
        The number of ids, special tokens included.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_WORDS], trainer)
    tokenizer.add_special_tokens(list(special_tokens))
    tokenizer.add_tokens(list(words))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "extra_special_tokens": list(special_tokens),
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return tokenizer.get_vocab_size()


def tiny_config(
    architecture: str,
    *,
    vocabulary: int,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    intermediate: int = 128,
    positions: int = 256,
) -> Any:
    """Return a ``transformers`` configuration of one of :data:`ARCHITECTURES`.

    The details that distinguish the catalogue's models are kept: partial rotary for GPT-NeoX
    (0.25, parallel residual) and Phi (0.5: NeoX-sized heads are too small for 0.4), grouped
    key-value heads for Llama and Mistral, untied embeddings throughout.
    """
    from transformers import AutoConfig

    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "max_position_embeddings": positions,
        "initializer_range": 0.2,  # wide enough that greedy answers do not repeat one token
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    special: dict[str, dict[str, Any]] = {
        "gpt_neox": {"partial_rotary_factor": 0.25, "use_parallel_residual": True},
        "llama": {"num_key_value_heads": heads // 2},
        "phi": {"partial_rotary_factor": 0.5, "hidden_act": "gelu_new"},
        "mistral": {"num_key_value_heads": heads // 2, "sliding_window": None},
    }
    return AutoConfig.for_model(architecture, **common, **special[architecture])


def tiny_checkpoint(
    architecture: str,
    folder: Path,
    *,
    with_chat_template: bool = False,
    special_tokens: Sequence[str] = DOLLY_SPECIAL_TOKENS,
    with_tokenizer: bool = True,
    weights: str = "safetensors",
    dtype: str = "float32",
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    intermediate: int = 128,
    positions: int = 256,
    seed: int = 0,
) -> Path:
    """Build a checkpoint with random weights in ``folder`` and return the folder.

    Args:
        architecture: one of :data:`ARCHITECTURES`.
        folder: created where it does not exist.
        with_chat_template: whether the tokenizer carries :data:`CHAT_TEMPLATE`.
        special_tokens: see :func:`tiny_tokenizer`; ``()`` for a tokenizer that has none.
        with_tokenizer: False leaves the tokenizer's files out.
        weights: ``safetensors``, or ``bin`` for a ``pytorch_model.bin`` as Dolly's releases have.
        dtype: type of the stored weights, as ``torch`` names it.
        hidden: width of the model; a multiple of ``heads``.
        layers: number of blocks.
        heads: attention heads; Llama and Mistral get half as many key-value heads.
        intermediate: width of the feed-forward part.
        positions: longest sequence in tokens.
        seed: of the random weights.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = tiny_tokenizer(
        folder,
        special_tokens=special_tokens,
        chat_template=CHAT_TEMPLATE if with_chat_template else None,
    )
    if not with_tokenizer:
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    config = tiny_config(
        architecture,
        vocabulary=vocabulary,
        hidden=hidden,
        layers=layers,
        heads=heads,
        intermediate=intermediate,
        positions=positions,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype)).eval()
    quiet = [0, *range(vocabulary - len(special_tokens), vocabulary)]
    with torch.no_grad():
        model.get_output_embeddings().weight[quiet] *= 0.01
    model.config.dtype = getattr(torch, dtype)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model.save_pretrained(folder)
    if weights == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def scripted_checkpoint(
    folder: Path,
    script: Sequence[str],
    *,
    special_tokens: Sequence[str] = (),
    words: Sequence[str] = (),
    chat_template: str,
    end: str = END_OF_TEXT,
) -> Path:
    """Build a Llama checkpoint that says one text, whatever it is asked, and return the folder.

    Its next token depends on the last one alone, so no token may come twice in the script.

    Args:
        folder: created where it does not exist.
        script: the end of every prompt, then the texts that the model says.
        special_tokens: see :func:`tiny_tokenizer`.
        words: likewise.
        chat_template: Jinja text; what it renders ends with the first text of the script.
        end: token that ``generation_config.json`` names as the end of a text.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    size = tiny_tokenizer(
        folder, special_tokens=special_tokens, words=words, chat_template=chat_template
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [tokenizer.encode(script[0], add_special_tokens=False).ids[-1]]
    for text in script[1:]:
        ids += tokenizer.encode(text, add_special_tokens=False).ids
    assert len(set(ids)) == len(ids), "a token comes twice"
    model = AutoModelForCausalLM.from_config(tiny_config("llama", vocabulary=size)).eval()
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        for column, (token, following) in enumerate(itertools.pairwise(ids)):
            model.model.embed_tokens.weight[token, column] = 1.0
            model.lm_head.weight[following, column] = 1.0
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=tokenizer.token_to_id(end), pad_token_id=0
    )
    model.save_pretrained(folder)
    return folder


def sentencepiece_model(path: Path, *, unigram: bool = False) -> None:
    """Write a SentencePiece model of letters, bytes and a few syllables, 384 pieces at most."""
    from transformers.utils import sentencepiece_model_pb2_new as format_

    model = format_.ModelProto()

    def add(text: str, score: float, kind: int) -> None:
        piece = model.pieces.add()
        piece.piece, piece.score, piece.type = text, score, kind

    for text, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3)):
        add(text, 0.0, kind)
    for byte in range(256):
        add(f"<0x{byte:02X}>", 0.0, 6)
    ordinary = ["▁", *map(chr, range(33, 127)), "▁t", "▁th", "▁the", "in", "er", "▁r"]
    for at, text in enumerate(ordinary):
        add(text, -1.0 if unigram and len(text) > 1 else -float(at), 1)
    model.trainer_spec.model_type = 1 if unigram else 2
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = 0, 1, 2
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    path.write_bytes(model.SerializeToString())


def edit_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file, which is made where there is none; None removes one."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content = {name: value for name, value in (content | changes).items() if value is not None}
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
