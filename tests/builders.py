"""Builders of tiny checkpoints with random weights, for tests that need a real model at no cost.

A checkpoint built here is an ordinary Hugging Face folder (``config.json``, weights,
``tokenizer.json``, ``tokenizer_config.json``, ``generation_config.json``): everything that works
on a released model works on it, in a fraction of a second. Equal arguments give equal bytes. Its
special tokens are unlikely: hardly an answer ends before it is as long as it may be.
"""

from __future__ import annotations

import json
import struct
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


THINKS, ANSWERS = "THINK:", "PLAIN:"
"""Ends of the prompts of :func:`thinking_checkpoint`."""
THINKING_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    f"{{% if enable_thinking is false %}}{ANSWERS}{{% else %}}{THINKS}{{% endif %}}"
)


def thinking_checkpoint(
    folder: Path, markers: tuple[Sequence[str], Sequence[str]], *, special: bool = False
) -> Path:
    """Build a model that always writes the same thoughts and the same answer: the next token
    depends on the latest one alone.

    The thoughts are `` Rain begins as vapour.``, the answer is ``Clouds hold it!``.

    Args:
        folder: created where it does not exist.
        markers: tokens of the opening and of the closing marker.
        special: whether the markers are special tokens, whose text a decoder drops.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    opened, closed = markers
    answer = ["Clouds", " hold", " it", "!"]
    chain = [THINKS, *opened, " Rain", " begins", " as", " vapour", ".", *closed, *answer]
    words = [THINKS, ANSWERS, *chain[1:]]
    ids = {*opened, *closed} if special else set()
    vocabulary = tiny_tokenizer(
        folder,
        special_tokens=tuple(word for word in words if word in ids),
        words=tuple(word for word in words if word not in ids),
        chat_template=THINKING_TEMPLATE,
    )
    config = tiny_config("llama", vocabulary=vocabulary, hidden=128, layers=1, positions=1024)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    follows = [*zip(chain, [*chain[1:], END_OF_TEXT], strict=True), (ANSWERS, answer[0])]
    with torch.no_grad():
        for layer in model.model.layers:  # it adds nothing to the embedding of the latest token
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        output = model.lm_head.weight.zero_()
        for before, after in follows:
            before, after = map(tokenizer.token_to_id, (before, after))
            output[after] += 10 * torch.nn.functional.normalize(
                model.model.embed_tokens.weight[before], dim=0
            )
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model.save_pretrained(folder)
    return folder


def sentencepiece_model(path: Path, *, unigram: bool = False) -> None:
    """Write a SentencePiece model of bytes, letters and a few syllables.

    It is put together by hand: the package and transformers each have a class for the format, and
    protobuf does not take both in one process.
    """

    def varint(value: int) -> bytes:
        low, rest = value & 0x7F, value >> 7
        return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])

    def number(field: int, value: int) -> bytes:
        return varint(field << 3) + varint(value)

    def message(field: int, content: bytes) -> bytes:
        return varint(field << 3 | 2) + varint(len(content)) + content

    def piece(text: str, score: float, kind: int) -> bytes:
        score_field = varint(2 << 3 | 5) + struct.pack("<f", score)
        return message(1, message(1, text.encode()) + score_field + number(3, kind))

    ordinary = ["▁", *map(chr, range(33, 127)), "▁t", "▁th", "▁the", "in", "er", "▁r"]
    content = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3)
    content += b"".join(piece(f"<0x{byte:02X}>", 0, 6) for byte in range(256))
    for at, text in enumerate(ordinary):
        content += piece(text, -1 if unigram and len(text) > 1 else -at, 1)
    ids = number(40, 0) + number(41, 1) + number(42, 2)
    content += message(2, number(3, 1 if unigram else 2) + number(35, 1) + ids)
    content += message(3, number(3, 1) + number(4, 0) + number(5, 1))  # a space is put before
    path.write_bytes(content)


def edit_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file, which is made where there is none; None removes one."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content = {name: value for name, value in (content | changes).items() if value is not None}
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
