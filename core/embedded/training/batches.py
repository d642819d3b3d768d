"""Tokenized training batches with loss weights."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from core.embedded.training.build import CONTEXT_LENGTH
from core.embedded.training.corpus import Example, Split, examples
from core.embedded.training.models import EmbeddedModel, prompt_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

NEWLINE = "Ċ"
"""A line break in the vocabulary of a byte-level tokenizer."""
CHUNK = 4096
"""Examples that are generated and sorted by length at a time."""
PROMPT_WEIGHT = 0.2
"""Loss weight of the counted tokens of the user's text; a token of an answer of
:data:`REFERENCE_ANSWER` tokens has 1."""
PROMPT_STRIDE = 4
"""Only every fourth token of the user's text counts, as the output layer is a quarter of the
computation."""
REFERENCE_ANSWER = 36
"""Length of an answer whose tokens have loss weight 1. The weight grows with the inverse square
root of the length: a fact copied from a passage is harder to learn than a memorized story."""
VALUE_WEIGHT = 2.0
"""Factor on tokens that a correct answer must contain: the requested value, an item's group."""
DECISION_WEIGHT = 3.0
"""Factor on the end token and on line breaks: one token decides whether a list continues, and so
whether it has the requested number of items."""


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences that start at position 0."""

    ids: Tensor
    """(sequences, length) token ids."""
    weights: Tensor
    """(sequences, length) loss weights of the tokens as targets; 0 for padding."""


@dataclass(frozen=True)
class Encoded:
    """An example as token ids, including the end token."""

    ids: list[int]
    user: int
    """Index of the first token of the user's text."""
    answer: int
    """Index of the first token of the answer."""
    values: list[int]
    """Indexes of the tokens that a correct answer must contain."""


def encoded(
    model: EmbeddedModel, tokenizer: PreTrainedTokenizerFast, chunk: list[Example]
) -> list[Encoded]:
    """Tokenize examples, truncated to the context length."""
    introduction = prompt_text(model, "\0", "").split("\0")[0]
    start = len(tokenizer(introduction, add_special_tokens=False).input_ids)
    end = tokenizer.convert_tokens_to_ids(model.end_token)
    prompts = tokenizer(
        [prompt_text(model, each.instruction, each.context) for each in chunk],
        add_special_tokens=False,
    ).input_ids
    answers = tokenizer(
        [each.answer for each in chunk], add_special_tokens=False, return_offsets_mapping=True
    )
    rows = []
    for index, (example, prompt) in enumerate(zip(chunk, prompts, strict=True)):
        first = len(prompt)
        spans = value_spans(example)
        values = [
            first + place
            for place, (left, right) in enumerate(answers.offset_mapping[index])
            if any(left < stop and right > begin for begin, stop in spans)
            and first + place < CONTEXT_LENGTH
        ]
        ids = (prompt + answers.input_ids[index] + [end])[:CONTEXT_LENGTH]
        rows.append(Encoded(ids, start, first, values))
    return rows


def value_spans(example: Example) -> list[tuple[int, int]]:
    """Return the (start, end) character offsets of what the check requires in an answer."""
    required = [text for choice in example.check.needs for text in choice]
    required += [line.split(": ")[-1].removeprefix("- ") for line in example.check.lines]
    folded = example.answer.lower()
    spans = []
    for text in required:
        begin = folded.rfind(text.lower()) if text else -1
        if begin >= 0:
            spans.append((begin, begin + len(text)))
    return spans


def _decision_ids(model: EmbeddedModel, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    breaks = [id for token, id in tokenizer.get_vocab().items() if NEWLINE in token]
    return [tokenizer.convert_tokens_to_ids(model.end_token), *breaks]


def chunk_batches(
    model: EmbeddedModel,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    index: int,
    batch_tokens: int,
) -> Iterator[Batch]:
    """Yield the batches of one chunk of the corpus, deterministic for a seed and index."""
    import torch

    decisions = torch.tensor(_decision_ids(model, tokenizer))
    chunk = list(islice(examples(seed * 1_000_003 + index, Split.TRAIN), CHUNK))
    rows = sorted(encoded(model, tokenizer, chunk), key=lambda row: len(row.ids))
    groups: list[list[Encoded]] = [[]]
    for row in rows:
        if groups[-1] and len(row.ids) * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
        groups[-1].append(row)
    random.Random(f"{seed}/{index}").shuffle(groups)
    for group in groups:
        length = max(len(row.ids) for row in group)
        length = -(-length // 8) * 8
        ids = torch.zeros(len(group), length, dtype=torch.long)
        weights = torch.zeros(len(group), length)
        for place, row in enumerate(group):
            count = len(row.ids)
            ids[place, :count] = torch.tensor(row.ids)
            weights[place, row.user : row.answer : PROMPT_STRIDE] = PROMPT_WEIGHT
            weights[place, row.answer : count] = (REFERENCE_ANSWER / (count - row.answer)) ** 0.5
            weights[place, row.values] *= VALUE_WEIGHT
            deciding = torch.isin(ids[place], decisions)
            deciding[: row.answer] = False
            weights[place, deciding] *= DECISION_WEIGHT
        yield Batch(ids, weights)
