"""Examples as batches of token ids."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from core.demo.corpus import Example, Split, examples
from core.demo.models import POSITIONS, DemoModel, prompt_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

NEWLINE = "Ċ"
"""A line break as byte-level tokenizers write it in their vocabulary."""
CHUNK = 4096
"""Examples drawn and sorted by length at a time."""
PROMPT_WEIGHT = 0.2
"""Loss weight of those of the person's tokens that count, relative to a middling answer's."""
PROMPT_STRIDE = 4
"""Of the person's tokens every fourth counts: the output layer is a quarter of the work."""
MIDDLE_ANSWER = 36
"""Tokens of an answer whose tokens weigh 1. Those of a shorter one weigh more, as the square root:
a fact copied from a passage is harder to learn than a story known by heart."""
DECISION_WEIGHT = 3.0
"""Factor on the end token and on line breaks: whether a list goes on is decided in one token, and
decides whether the requested count is kept."""


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences, all starting at position 0."""

    ids: Tensor
    """(sequences, length) token ids."""
    weights: Tensor
    """(sequences, length) loss weight of each token as a target; 0 for padding."""


def encoded(
    model: DemoModel, tokenizer: PreTrainedTokenizerFast, chunk: list[Example]
) -> list[tuple[list[int], int, int]]:
    """(ids, first token of the person's own, first token of the answer) of each example."""
    bare = prompt_text(model, "\0", "").split("\0")[0]
    start = len(tokenizer(bare, add_special_tokens=False).input_ids)
    end = tokenizer.convert_tokens_to_ids(model.end_token)
    prompts = tokenizer(
        [prompt_text(model, one.instruction, one.context) for one in chunk],
        add_special_tokens=False,
    ).input_ids
    answers = tokenizer([one.answer for one in chunk], add_special_tokens=False).input_ids
    return [
        ((prompt + answer + [end])[:POSITIONS], start, len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _decision_ids(model: DemoModel, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of the end token and of all tokens with a line break."""
    breaks = [id for token, id in tokenizer.get_vocab().items() if NEWLINE in token]
    return [tokenizer.convert_tokens_to_ids(model.end_token), *breaks]


def chunk_batches(
    model: DemoModel,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    index: int,
    batch_tokens: int,
) -> Iterator[Batch]:
    """The batches of one chunk of the corpus; the same for the same seed and index."""
    import torch

    decisions = torch.tensor(_decision_ids(model, tokenizer))
    chunk = list(islice(examples(seed * 1_000_003 + index, Split.TRAIN), CHUNK))
    rows = sorted(encoded(model, tokenizer, chunk), key=lambda row: len(row[0]))
    groups: list[list[tuple[list[int], int, int]]] = [[]]
    for row in rows:
        if groups[-1] and len(row[0]) * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
        groups[-1].append(row)
    random.Random(f"{seed}/{index}").shuffle(groups)
    for group in groups:
        length = max(len(ids) for ids, _, _ in group)
        length = -(-length // 8) * 8
        ids = torch.zeros(len(group), length, dtype=torch.long)
        weights = torch.zeros(len(group), length)
        for row, (tokens, person, answer) in enumerate(group):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            weights[row, person:answer:PROMPT_STRIDE] = PROMPT_WEIGHT
            weights[row, answer : len(tokens)] = (MIDDLE_ANSWER / (len(tokens) - answer)) ** 0.5
            deciding = torch.isin(ids[row], decisions)
            deciding[:answer] = False
            weights[row, deciding] *= DECISION_WEIGHT
        yield Batch(ids, weights)
