"""Made-up texts unlike the other training texts, up to the context length.

Made-up words between common ones, other alphabets, tables, code, records and lists, like the texts
that users paste with out-of-scope instructions. All of it is random, nothing is quoted.
"""

from __future__ import annotations

import re
from functools import cache

from core.embedded.training.corpus.source import Source
from core.embedded.training.corpus.text import data, upper_first

SHORTEST, LONGEST = 60, 1300
"""Range of characters of a text. The longest with its instruction and the refusal just fits the
context length, as made-up words have about two characters per token."""
OTHER_ALPHABET_DIVISOR = 4
"""A text in another alphabet is shorter by this factor, since each letter is several tokens."""


def made_up_instruction(source: Source) -> str:
    """Return an instruction about something that does not exist."""
    return upper_first(_filled(source, source.choice(data("made_up")["leads"])))


def made_up_title(source: Source) -> str:
    """Return a few words, such as a product name."""
    return _filled(source, source.choice(data("made_up")["titles"]))


def made_up_text(source: Source) -> str:
    """Return a text of one kind, or of a mixture of kinds."""
    rows = data("made_up")
    length = source.random.randint(SHORTEST, LONGEST)
    if source.chance(0.06):
        return _other_alphabet(source, length // OTHER_ALPHABET_DIVISOR)
    kinds = source.random.choices(["prose", "rows", "code", "mixed"], [9, 4, 3, 2])[0]
    parts: list[str] = []
    used = 0
    few = source.random.sample(rows["rows"], 3)
    while used < length:
        kind = source.choice(["prose", "rows", "code"]) if kinds == "mixed" else kinds
        options = {"prose": rows["sentences"], "rows": few, "code": rows["code"]}[kind]
        part = _filled(source, source.choice(options))
        if kind == "prose":
            part += " " if source.chance(0.85) else "\n\n"
        else:
            part += "\n"
        parts.append(part)
        used += len(part)
    return "".join(parts)[:length].strip()


@cache
def _options(name: str) -> list[str]:
    return data("made_up")[name].split("|")


@cache
def _wide(name: str) -> list[str]:
    return data("wide")[name].split("|")


def _word(source: Source) -> str:
    """Return a random word, or one from the wide vocabulary with or without a random ending."""
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


def _filled(source: Source, template: str) -> str:
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
    letters = source.choice(data("made_up")["alphabets"])
    words = []
    while sum(map(len, words)) < length:
        words.append("".join(source.random.choices(letters, k=source.random.randint(1, 9))))
    return " ".join(words)[:length]
