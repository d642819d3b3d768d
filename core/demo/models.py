"""What the two embedded models are: architecture, size, tokenizer, training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue.prompts import prompt_format
from core.demo.circuits import install
from core.demo.corpus import Split, examples
from core.demo.corpus.text import data

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

DEMO_DIR = Path(__file__).parent
TRAINING_DIR = DEMO_DIR / "training"
"""Checkpoints and logs; not part of the repository."""

VOCABULARY = 3072
"""Tokens of either tokenizer: small enough that the embeddings stay a minor part of the model."""
POSITIONS = 1024
"""Longest prompt and answer together, in tokens."""
TOKENIZER_EXAMPLES = 30_000
TOKENIZER_SEED = 7
PROMPT_REPEATS = 2000
"""Times the tokenizer reads Dolly's introduction, so that each of its words becomes one token."""

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Words with their leading blank, digits one by one (numbers can be copied digit by digit)."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}"
    "{{ '\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class DemoModel:
    """One embedded model."""

    key: str
    architecture: str
    sizes: dict[str, Any]
    """Arguments of the architecture's ``transformers`` configuration."""
    special_tokens: tuple[str, ...]
    """In the order of their ids, from 0."""
    end_token: str
    """What the answer is trained to end with."""
    training_tokens: int
    """Tokens read by a full training, prompts and padding included."""

    @property
    def folder(self) -> Path:
        """Where the weights lie in the repository."""
        return DEMO_DIR / self.key


NEOX = DemoModel(
    key="paddock-neox",
    architecture="gpt_neox",
    sizes={
        "hidden_size": 192,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "intermediate_size": 768,
        "rotary_pct": 0.5,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
    },
    special_tokens=("<|endoftext|>", "### End", "### Instruction:", "### Response:"),
    end_token="### End",
    training_tokens=24_000_000,
)
LLAMA = DemoModel(
    key="paddock-llama",
    architecture="llama",
    sizes={
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        "intermediate_size": 640,
        "tie_word_embeddings": False,
    },
    special_tokens=("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"),
    end_token="<|end|>",
    training_tokens=24_000_000,
)
DEMO_MODELS = {model.key: model for model in (NEOX, LLAMA)}


def build_tokenizer(model: DemoModel) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the corpus; the same every time."""
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
        model_max_length=POSITIONS,
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
    for options in data("foreign")["slots"].values():
        yield " ".join(options)


def build_model(model: DemoModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """The untrained network, float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        model.architecture,
        vocab_size=VOCABULARY,
        max_position_embeddings=POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **model.sizes,
    )
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    install(network)
    return network


def prompt_text(model: DemoModel, instruction: str, context: str) -> str:
    """The prompt exactly as Paddock builds it for the model."""
    if model.architecture == "gpt_neox":
        return prompt_format("dolly").render(instruction, context)
    content = prompt_format("chat").content(instruction, context)
    return f"<|user|>\n{content}<|end|>\n<|assistant|>\n"


def end_ids(model: DemoModel, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids that end an answer."""
    return sorted({tokenizer.convert_tokens_to_ids(model.end_token), tokenizer.eos_token_id})


def write_model(
    model: DemoModel,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
) -> None:
    """Weights as fp16 safetensors with configuration, generation defaults and tokenizer.

    The network is in half precision afterwards.
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
    """The JSON document in a file."""
    return json.loads(path.read_text(encoding="utf-8"))
