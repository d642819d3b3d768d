"""Texts unlike anything the models know, up to the length they can read.

Made-up words between common ones, other alphabets, tables, code, records and lists: what people
paste when they ask for something that is out of reach. All of it is drawn, nothing is quoted.
"""

from __future__ import annotations

import re
from functools import cache

from core.embedded.training.corpus.source import Source
from core.embedded.training.corpus.text import data, upper_first

SHORTEST, LONGEST = 60, 1300
"""Characters of a long text. The longest with its instruction and the refusal is just below what
the models read (``POSITIONS``), at some two characters to a token of a made-up word."""
BYTES_EACH = 4
"""Times that a text in another alphabet is shorter, since each of its letters is several tokens."""


def strange_ask(source: Source) -> str:
    """An instruction about something that does not exist."""
    return upper_first(_made(source, source.choice(data("strange")["leads"])))


def strange_title(source: Source) -> str:
    """A few words, such as the name of a thing."""
    return _made(source, source.choice(data("strange")["titles"]))


def strange_text(source: Source) -> str:
    """A text of one kind, or of several after each other."""
    rows = data("strange")
    length = source.random.randint(SHORTEST, LONGEST)
    if source.chance(0.06):
        return _other_alphabet(source, length // BYTES_EACH)
    kinds = source.random.choices(["prose", "rows", "code", "mixed"], [9, 4, 3, 2])[0]
    parts: list[str] = []
    used = 0
    few = source.random.sample(rows["rows"], 3)
    while used < length:
        kind = source.choice(["prose", "rows", "code"]) if kinds == "mixed" else kinds
        options = {"prose": rows["sentences"], "rows": few, "code": rows["code"]}[kind]
        part = _made(source, source.choice(options))
        if kind == "prose":
            part += " " if source.chance(0.85) else "\n\n"
        else:
            part += "\n"
        parts.append(part)
        used += len(part)
    return "".join(parts)[:length].strip()


@cache
def _options(name: str) -> list[str]:
    return data("strange")[name].split("|")


@cache
def _wide(name: str) -> list[str]:
    return data("wide")[name].split("|")


def _word(source: Source) -> str:
    """A word that hardly ever exists, or one from the wide vocabulary, as often bent as not."""
    if source.chance(0.35):
        stem = source.choice(_wide(source.choice(["nouns", "adjectives", "verbs"])))
        return stem + source.choice(_options("tails")) if source.chance(0.5) else stem
    syllables = source.random.choice([1, 1, 2, 2, 3])
    made = "".join(
        source.choice(_options("begins"))
        + source.choice(_options("middles"))
        + (source.choice(_options("closes")) if last == syllables - 1 else "")
        for last in range(syllables)
    )
    return made + source.choice(_options("tails"))


def _made(source: Source, template: str) -> str:
    def slot(match: re.Match[str]) -> str:
        kind = match.group(1)
        if kind == "n":
            return str(source.random.randint(0, 10 ** source.random.randint(1, 4)))
        if kind in "fF":
            text = source.choice(_options("common"))
        elif kind in "vV":
            text = source.choice(_wide("verbs"))
        elif kind in "mMN":
            text = source.choice(_wide("nouns"))
        else:
            text = _word(source)
        return upper_first(text) if kind in "FVMNW" else text

    return re.sub(r"\{([nfFvVmMNwW])\}", slot, template)


def _other_alphabet(source: Source, length: int) -> str:
    letters = source.choice(data("strange")["alphabets"])
    words = []
    while sum(map(len, words)) < length:
        words.append("".join(source.random.choices(letters, k=source.random.randint(1, 9))))
    return " ".join(words)[:length]
