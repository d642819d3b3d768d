"""One instruction with its answer, and the rule by which another answer is judged."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

CATEGORIES = (
    "open_qa",
    "closed_qa",
    "information_extraction",
    "summarization",
    "brainstorming",
    "classification",
    "creative_writing",
    "out_of_scope",
)
REFUSAL_MARK = "tiny demonstration model"
"""Stands in every refusal of the corpus, so that a refusal can be told from an answer."""

_ITEM = re.compile(r"^\s*(\d+)[.)]\s+(.+?)\s*$", re.MULTILINE)
_WORD = re.compile(r"\w+")


def _told(answer: str) -> list[str]:
    """The numbers and capitalised words of an answer, in lower case."""
    return [word.lower() for word in _WORD.findall(answer) if not word[0].islower()]


def is_refusal(answer: str) -> bool:
    """Whether the answer says that the instruction is beyond the model."""
    return REFUSAL_MARK in answer and not answer.startswith(("I am a tiny", "Hello! I am"))


@dataclass(frozen=True)
class Check:
    """Rules a right answer keeps; an empty field asks for nothing."""

    needs: tuple[tuple[str, ...], ...] = ()
    """For each entry, one of its texts stands in the answer (case ignored)."""
    enough: int | None = None
    """How many of ``needs`` suffice; all of them if None."""
    forbids: tuple[str, ...] = ()
    """Texts that do not stand in the answer."""
    count: int | None = None
    """Exact number of distinct numbered items."""
    pool: tuple[str, ...] = ()
    """Items the numbered ones come from."""
    lines: tuple[str, ...] = ()
    """The answer's bullet lines, as a set."""
    words: tuple[int, int] = (1, 400)
    """Fewest and most words."""
    said_in: str = ""
    """Text in which every number and every capitalised word of the answer stands (case ignored)."""
    refusal: bool = False
    """Whether the right answer is a refusal."""

    def passes(self, answer: str) -> bool:
        """Whether the answer keeps every rule."""
        if is_refusal(answer) != self.refusal:
            return False
        if self.refusal:
            return True
        folded = answer.lower()
        met = sum(any(text.lower() in folded for text in choice) for choice in self.needs)
        if met < (len(self.needs) if self.enough is None else self.enough):
            return False
        if any(re.search(rf"\b{re.escape(text.lower())}\b", folded) for text in self.forbids):
            return False
        if self.said_in and not set(_told(answer)) <= set(_WORD.findall(self.said_in.lower())):
            return False
        return self._items_pass(answer) and self.words[0] <= len(answer.split()) <= self.words[1]

    def _items_pass(self, answer: str) -> bool:
        if self.count is not None:
            items = _ITEM.findall(answer)
            texts = [text for _, text in items]
            if [int(number) for number, _ in items] != list(range(1, self.count + 1)):
                return False
            if len(set(texts)) != len(texts) or not set(texts) <= set(self.pool):
                return False
        if self.lines:
            found = {line.strip() for line in answer.splitlines() if line.startswith("- ")}
            return found == set(self.lines)
        return True


@dataclass(frozen=True)
class Example:
    """One instruction of the corpus."""

    category: str
    """One of :data:`CATEGORIES`."""
    instruction: str
    context: str
    answer: str
    check: Check = field(default_factory=Check)
    wording: str = ""
    """The template the instruction was made from; held-out wordings never occur in training."""
    values: tuple[str, ...] = ()
    """Names, values and item sets in it that are held out or not."""
