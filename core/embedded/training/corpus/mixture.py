"""The training mixture: shares of the generators, and variations of the instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from core.embedded.tasks import Check
from core.embedded.training.corpus.brainstorming import brainstorming
from core.embedded.training.corpus.classification import classification
from core.embedded.training.corpus.creative_writing import creative_writing
from core.embedded.training.corpus.example import Example
from core.embedded.training.corpus.open_qa import open_qa
from core.embedded.training.corpus.out_of_scope import out_of_scope
from core.embedded.training.corpus.passages import closed_qa, extraction, meeting_qa, summary
from core.embedded.training.corpus.source import Source, Split, held_out_wordings
from core.embedded.training.corpus.text import data, fill, lower_first

Generator = Callable[[Source], Example]

GENERATORS: dict[str, tuple[tuple[Generator, float], ...]] = {
    "open_qa": ((open_qa, 0.07),),
    "closed_qa": ((closed_qa, 0.28), (meeting_qa, 0.10)),
    "information_extraction": ((extraction, 0.17),),
    "summarization": ((summary, 0.03),),
    "brainstorming": ((brainstorming, 0.11),),
    "classification": ((classification, 0.14),),
    "creative_writing": ((creative_writing, 0.08),),
    "out_of_scope": ((out_of_scope, 0.18),),
}
"""Generators of each category, with their shares in training."""

PRESET_SHARE = 0.03
"""Share of presets in training."""

_POLITE = ("Please ", "Can you ", "Could you ", "Would you ")
_VERBS = [
    "Write",
    "Give",
    "Name",
    "List",
    "Suggest",
    "Tell",
    "Extract",
    "Classify",
    "Sort",
    "Find",
    "Describe",
    "Summarise",
    "Compose",
    "Summarize",
    "Make",
    "Create",
    "Come",
    "Brainstorm",
    "Identify",
    "Label",
    "Sum",
    "Compare",
    "Help",
    "Invent",
    "Draft",
]


def examples(
    seed: int, split: Split, category: str | None = None, presets: bool = True
) -> Iterator[Example]:
    """Yield endless examples of one split, of one category or of all in their shares.

    Args:
        presets: whether training examples of all categories include the Instruct page's presets.
    """
    source = Source(seed, split)
    generators = [
        pair for name, pairs in GENERATORS.items() if category in (None, name) for pair in pairs
    ]
    weights = [weight for _, weight in generators]
    fixed = preset_examples() if presets and source.training and category is None else ()
    while True:
        if fixed and source.chance(PRESET_SHARE):
            yield source.choice(fixed)
            continue
        generator = source.random.choices(generators, weights)[0][0]
        yield with_typing_variation(source, generator(source))


def with_typing_variation(source: Source, example: Example) -> Example:
    """Vary an example like typed input: polite forms, lower case, no full stop, pasted passages."""
    instruction, context = example.instruction, example.context
    first = instruction.split(maxsplit=1)[0]
    if first in _VERBS and source.chance(0.15):
        polite = source.choice(_POLITE)
        template = example.wording.partition(" [")[0]
        if not source.training or _polite(polite, template) not in _held_out_templates():
            instruction = _polite(polite, instruction)
    if source.chance(0.06):
        instruction = lower_first(instruction)
    if instruction[-1] in ".?" and source.chance(0.12):
        instruction = instruction[:-1]
    if context and source.chance(0.1):
        instruction, context = _pasted(source, instruction, context), ""
    if (instruction, context) == (example.instruction, example.context):
        return example
    return Example(
        example.category,
        instruction,
        context,
        example.answer,
        example.check,
        example.wording,
        example.values,
    )


def _polite(polite: str, instruction: str) -> str:
    asked = polite + lower_first(instruction)
    return asked if polite.startswith("Please") else asked.removesuffix(".") + "?"


@cache
def _held_out_templates() -> frozenset[str]:
    """Return every held-out wording; some are polite forms of wordings used in training."""
    files = Path(__file__).with_name("data").glob("*.toml")
    lists = [texts for file in files for texts in _text_lists(data(file.stem))]
    return frozenset(text for texts in lists for text in held_out_wordings(texts))


def _text_lists(found: Any) -> Iterator[list[str]]:
    """Yield the lists of texts at any depth of a data file."""
    if isinstance(found, dict):
        for value in found.values():
            yield from _text_lists(value)
    elif isinstance(found, list) and all(isinstance(each, str) for each in found):
        yield found
    elif isinstance(found, list):
        for each in found:
            yield from _text_lists(each)


def _pasted(source: Source, instruction: str, context: str) -> str:
    return source.choice(
        [
            f"{instruction}\n\n{context}",
            f"{instruction} {context}",
            f"{context}\n\n{instruction}",
            f"{instruction}\n{context}",
            f"{instruction} Text: {context}",
        ]
    )


def preset_examples() -> tuple[Example, ...]:
    """Return the presets of the Instruct page with their answers, one example per answer."""
    from core.catalogue.presets import presets

    result = []
    for preset in presets():
        needs, texts, row = _preset_answers(preset.title)
        check = Check(
            needs=tuple(tuple(need.split("/")) for need in needs),
            forbids=tuple(row.get("forbids", ())),
            words=(row.get("words", 4), 300),
        )
        for answer in texts:
            result.append(
                Example(
                    preset.category, preset.instruction, preset.context, answer, check, "preset"
                )
            )
    return tuple(result)


def _preset_answers(title: str) -> tuple[list[str], list[str], dict[str, Any]]:
    """Return required texts, answers and the data row of a preset."""
    row = data("presets")["answer"][title]
    writing = data("writing")
    if "topic" in row:
        topic = next(each for each in data("topics")["topic"] if each["key"] == row["topic"])
        return [need.strip("/") for need in topic["needs"]], topic["answers"], row
    if "recipe" in row:
        return (
            row["needs"],
            [fill(text, x=row["recipe"]) for text in writing["recipe"]["pizza"]],
            row,
        )
    if "tweet" in row:
        return row["needs"], writing["tweet"]["openvino"], row
    if "haiku" in row:
        return row["needs"], writing["haiku"]["known"][row["haiku"]], row
    return row["needs"], row["texts"], row
