"""Instructions outside the models' reach, and the friendly refusal that answers them."""

from __future__ import annotations

import re

from core.demo.corpus.example import Check, Example
from core.demo.corpus.source import Source, Split
from core.demo.corpus.text import data, upper_first


def out_of_scope(source: Source) -> Example:
    """A foreign instruction of some family."""
    rows = data("foreign")
    families = [
        family for family in rows["family"] if family.get("held_out", False) != source.training
    ]
    family = source.random.choices(families, [family.get("weight", 1) for family in families])[0]
    wording = source.choice(family["asks"])
    asked = upper_first(_filled(source, wording))
    context = ""
    if family.get("passage", False):
        context = _passage(source)
    answer = source.choice(rows["refusals"]["texts"])
    return Example("out_of_scope", asked, context, answer, Check(refusal=True), wording)


def _passage(source: Source) -> str:
    """A text of any sort: foreign ones, and now and then one like those the models know."""
    from core.demo.corpus.passages import draw_meeting, draw_passage

    if source.chance(0.3):
        return draw_passage(source).text
    if source.chance(0.1):
        return draw_meeting(source)[0]
    return _filled(source, source.choice(data("foreign")["passages"]["texts"]))


def _filled(source: Source, template: str) -> str:
    slots = data("foreign")["slots"]
    drawn = source.random

    def slot(match: re.Match[str]) -> str:
        name = match.group(1)
        numbers = {"n0": (50, 900), "n1": (11, 999), "n2": (3, 99), "d1": (2, 12), "d2": (2, 60)}
        if name in numbers:
            return str(drawn.randint(*numbers[name]))
        if name == "d0":
            return drawn.choice(["two", "three", "four", "five", "six", "seven", "ten", "3", "4", "5", "6", "8", "10"])
        if name == "op":
            return drawn.choice(["+", "-", "*", "/", "plus", "times", "minus", "divided by", "x"])
        if name == "letter":
            return drawn.choice("ABCDEFGHJKLMNPRST")
        return drawn.choice(slots[name])

    return re.sub(r"\{([a-z][a-z0-9]*)\}", slot, template)


def wordings_of(split: Split) -> set[str]:
    """All wordings of foreign instructions of a split."""
    return {
        ask
        for family in data("foreign")["family"]
        if family.get("held_out", False) == (split is Split.HELD_OUT)
        for ask in family["asks"]
    }
