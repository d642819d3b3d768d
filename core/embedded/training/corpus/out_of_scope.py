"""Out-of-scope instructions, and the refusals that answer them."""

from __future__ import annotations

import re

from core.embedded.tasks import Check
from core.embedded.training.corpus.example import Example
from core.embedded.training.corpus.made_up import made_up_instruction, made_up_text, made_up_title
from core.embedded.training.corpus.names import Names
from core.embedded.training.corpus.source import Source, Split
from core.embedded.training.corpus.text import an, data, upper_first

WIDE_SHARE = 0.4
"""Share of instructions composed from the wide vocabulary instead of a family's wordings."""
MADE_UP_SHARE = 0.35
"""Share of instructions with a made-up text or name, often a long one."""


def out_of_scope(source: Source) -> Example:
    """Generate an instruction that the models should decline."""
    rows = data("out_of_scope")
    if source.training and source.chance(MADE_UP_SHARE):
        instruction, context = _made_up(source)
        answer = source.choice(rows["refusals"]["texts"])
        return Example("out_of_scope", instruction, context, answer, Check(refusal=True), "made up")
    if source.training and source.chance(WIDE_SHARE):
        instruction, context = _wide(source)
        answer = source.choice(rows["refusals"]["texts"])
        return Example("out_of_scope", instruction, context, answer, Check(refusal=True), "wide")
    families = [
        family for family in rows["family"] if family.get("held_out", False) != source.training
    ]
    family = source.random.choices(families, [family.get("weight", 1) for family in families])[0]
    wording = source.choice(family["asks"])
    instruction = upper_first(_filled(source, wording))
    context = ""
    if family.get("passage", False):
        context = _passage(source)
    elif "inputs" in family:
        context = _filled(source, source.choice(family["inputs"]))
    answer = source.choice(rows["refusals"]["texts"])
    return Example("out_of_scope", instruction, context, answer, Check(refusal=True), wording)


def _passage(source: Source) -> str:
    """Return an out-of-scope text, or sometimes a passage of a kind that the models know."""
    from core.embedded.training.corpus.passages import draw_meeting, draw_passage

    if source.chance(0.3):
        return draw_passage(source).text
    if source.chance(0.1):
        return draw_meeting(source)[0]
    return _filled(source, source.choice(data("out_of_scope")["passages"]["texts"]))


def _filled(source: Source, template: str) -> str:
    slots = data("out_of_scope")["slots"]
    drawn = source.random

    def slot(match: re.Match[str]) -> str:
        name = match.group(1)
        numbers = {"n0": (50, 900), "n1": (11, 999), "n2": (3, 99), "d1": (2, 12), "d2": (2, 60)}
        if name in numbers:
            return str(drawn.randint(*numbers[name]))
        if name == "d0":
            return drawn.choice(
                [
                    "two",
                    "three",
                    "four",
                    "five",
                    "six",
                    "seven",
                    "ten",
                    "3",
                    "4",
                    "5",
                    "6",
                    "8",
                    "10",
                ]
            )
        if name == "op":
            return drawn.choice(["+", "-", "*", "/", "plus", "times", "minus", "divided by", "x"])
        if name == "letter":
            return drawn.choice("ABCDEFGHJKLMNPRST")
        if name == "name":
            return Names(source).person() if source.chance(0.5) else Names(source).first()
        return drawn.choice(slots[name])

    return re.sub(r"\{([a-z][a-z0-9]*)\}", slot, template)


def _made_up(source: Source) -> tuple[str, str]:
    """Return an instruction, and a made-up text, a made-up name or nothing as its context."""
    if source.chance(0.25):
        return made_up_instruction(source), made_up_title(source) if source.chance(0.6) else ""
    instruction = made_up_instruction(source) if source.chance(0.4) else _wide(source)[0]
    return instruction, made_up_title(source) if source.chance(0.3) else made_up_text(source)


def _wide(source: Source) -> tuple[str, str]:
    """Return one to four sentences from the wide vocabulary, and a text or nothing as context."""
    rows = {name: text.split("|") for name, text in data("wide").items()}
    context = ""
    if source.chance(0.4):
        count = source.random.choice([1, 1, 2, 3, 4, 6])
        context = " ".join(
            _wide_filled(source, source.choice(rows["sentences"])) for _ in range(count)
        )
    if context and source.chance(0.35):
        return _wide_filled(source, source.choice(rows["known"])), context
    parts = [source.choice(rows["tasks"])]
    if source.chance(0.35):
        parts.insert(0, source.choice(rows["setups"]))
    for _ in range(source.random.choice([0, 0, 0, 1, 1, 2])):
        parts.append(source.choice(rows["constraints"]))
    if source.chance(0.1):
        parts.append(source.choice(rows["tasks"]))
    return upper_first(" ".join(_wide_filled(source, part) for part in parts)), context


def _wide_filled(source: Source, template: str) -> str:
    rows = {name: text.split("|") for name, text in data("wide").items()}

    def slot(match: re.Match[str]) -> str:
        kind = match.group(1)
        if kind == "num":
            return str(source.random.randint(2, 300))
        if kind == "year":
            return str(source.random.randint(1400, 2030))
        if kind in "vV":
            verb = source.choice(rows["verbs"])
            return upper_first(verb) if kind == "V" else verb
        if kind == "a":
            return source.choice(rows["adjectives"])
        noun = source.choice(rows["nouns"])
        if kind == "p":
            return noun
        article = source.choice(["the ", "this ", "my ", "", "some "])
        noun = an(noun) if source.chance(0.5) else article + noun
        return upper_first(noun) if kind == "N" else noun

    return re.sub(r"\{(num|year|[vVapnN])\d?\}", slot, template)


def wordings_of(split: Split) -> set[str]:
    """Return all wordings of out-of-scope instructions of a split."""
    return {
        ask
        for family in data("out_of_scope")["family"]
        if family.get("held_out", False) == (split is Split.HELD_OUT)
        for ask in family["asks"]
    }
