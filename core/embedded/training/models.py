"""The two embedded models: architecture, size, special tokens, prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import EMBEDDED_DIR
from core.catalogue.prompts import prompt_format

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class EmbeddedModel:
    """One embedded model."""

    key: str
    architecture: str
    sizes: dict[str, Any]
    """Arguments of the architecture's ``transformers`` configuration."""
    special_tokens: tuple[str, ...]
    """In the order of their ids, from 0."""
    end_token: str
    """Token that ends every answer in training."""
    training_tokens: int
    """Tokens of a full training run, prompts and padding included."""

    @property
    def folder(self) -> Path:
        """Folder with the weights, the tokenizer and the model card."""
        return EMBEDDED_DIR / self.key


NEOX = EmbeddedModel(
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
LLAMA = EmbeddedModel(
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
EMBEDDED_MODELS = {model.key: model for model in (NEOX, LLAMA)}


def prompt_text(model: EmbeddedModel, instruction: str, context: str) -> str:
    """Return the prompt exactly as Paddock builds it for the model."""
    if model.architecture == "gpt_neox":
        return prompt_format("dolly").render(instruction, context)
    content = prompt_format("chat").content(instruction, context)
    return f"<|user|>\n{content}<|end|>\n<|assistant|>\n"


def end_ids(model: EmbeddedModel, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the ids of the tokens that end an answer."""
    return sorted({tokenizer.convert_tokens_to_ids(model.end_token), tokenizer.eos_token_id})
