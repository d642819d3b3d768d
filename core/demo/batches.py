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
VALUE_WEIGHT = 2.0
"""Factor on tokens of what a right answer must contain: the value asked for, an item's group."""
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


@dataclass(frozen=True)
class Encoded:
    """An example as token ids, end token included."""

    ids: list[int]
    person: int
    """Index of the first token of the person's own."""
    answer: int
    """Index of the first token of the answer."""
    values: list[int]
    """Indexes of the tokens of what a right answer must contain."""


def encoded(
    model: DemoModel, tokenizer: PreTrainedTokenizerFast, chunk: list[Example]
) -> list[Encoded]:
    """The examples as the model reads them, cut off after its last position."""
    bare = prompt_text(model, "\0", "").split("\0")[0]
    start = len(tokenizer(bare, add_special_tokens=False).input_ids)
    end = tokenizer.convert_tokens_to_ids(model.end_token)
    prompts = tokenizer(
        [prompt_text(model, one.instruction, one.context) for one in chunk],
        add_special_tokens=False,
    ).input_ids
    answers = tokenizer(
        [one.answer for one in chunk], add_special_tokens=False, return_offsets_mapping=True
    )
    rows = []
    for index, (example, prompt) in enumerate(zip(chunk, prompts, strict=True)):
        first = len(prompt)
        spans = value_spans(example)
        values = [
            first + place
            for place, (left, right) in enumerate(answers.offset_mapping[index])
            if any(left < stop and right > begin for begin, stop in spans)
            and first + place < POSITIONS
        ]
        ids = (prompt + answers.input_ids[index] + [end])[:POSITIONS]
        rows.append(Encoded(ids, start, first, values))
    return rows


def value_spans(example: Example) -> list[tuple[int, int]]:
    """Where in an answer stands what its check asks for, as (first, past the last) characters."""
    wanted = [text for choice in example.check.needs for text in choice]
    wanted += [line.split(": ")[-1].removeprefix("- ") for line in example.check.lines]
    folded = example.answer.lower()
    spans = []
    for text in wanted:
        begin = folded.rfind(text.lower()) if text else -1
        if begin >= 0:
            spans.append((begin, begin + len(text)))
    return spans


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
            weights[place, row.person : row.answer : PROMPT_STRIDE] = PROMPT_WEIGHT
            weights[place, row.answer : count] = (MIDDLE_ANSWER / (count - row.answer)) ** 0.5
            weights[place, row.values] *= VALUE_WEIGHT
            deciding = torch.isin(ids[place], decisions)
            deciding[: row.answer] = False
            weights[place, deciding] *= DECISION_WEIGHT
        yield Batch(ids, weights)
