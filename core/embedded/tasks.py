"""Held-out tasks of the embedded models, and the rules by which their answers are scored.

The tasks were generated once from the training corpus's held-out split and are read from files
here, so that scoring needs no corpus. ``python -m core.embedded.training.held_out`` writes the
files; a test compares them with the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from core.catalogue.presets import CATEGORIES as DOLLY_CATEGORIES

CATEGORIES = (*DOLLY_CATEGORIES, "out_of_scope")
TASKS_FILE = Path(__file__).with_name("tasks.jsonl")
"""The tasks that answers are scored on, 25 of each category."""
TEXTS_FILE = Path(__file__).with_name("texts.jsonl")
"""Further tasks that are read with their reference answers, for perplexity; 4 of each category."""
MAX_NEW_TOKENS = 320
"""Length limit of an answer that is scored."""
REFUSAL_MARK = "tiny demonstration model"
"""Text that occurs in every refusal the models were trained on."""

_NUMBERED_ITEM = re.compile(r"^\s*(\d+)[.)]\s+(.+?)\s*$", re.MULTILINE)
_WORD = re.compile(r"\w+")


def is_refusal(answer: str) -> bool:
    """Return whether an embedded model declined the instruction."""
    return REFUSAL_MARK in answer and not answer.startswith(("I am a tiny", "Hello! I am"))


@dataclass(frozen=True)
class Check:
    """Rules for a correct answer; a field with its default value requires nothing."""

    needs: tuple[tuple[str, ...], ...] = ()
    """For each entry, at least one of its texts occurs in the answer (case ignored)."""
    enough: int | None = None
    """How many entries of ``needs`` are sufficient; None requires all."""
    forbids: tuple[str, ...] = ()
    """Texts that do not occur in the answer."""
    count: int | None = None
    """Exact number of distinct numbered items."""
    pool: tuple[str, ...] = ()
    """Allowed texts of the numbered items."""
    lines: tuple[str, ...] = ()
    """The answer's bullet lines, in any order."""
    words: tuple[int, int] = (1, 400)
    """Minimum and maximum number of words."""
    said_in: str = ""
    """Text that contains every number and capitalised word of the answer (case ignored)."""
    refusal: bool = False
    """Whether the correct answer is a refusal."""

    def passes(self, answer: str) -> bool:
        """Return whether the answer satisfies every rule."""
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
        if self.said_in:
            stated = {word.lower() for word in _WORD.findall(answer) if not word[0].islower()}
            if not stated <= set(_WORD.findall(self.said_in.lower())):
                return False
        return self._items_pass(answer) and self.words[0] <= len(answer.split()) <= self.words[1]

    def _items_pass(self, answer: str) -> bool:
        if self.count is not None:
            items = _NUMBERED_ITEM.findall(answer)
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
class Task:
    """One instruction with a reference answer and the rules that any answer is scored by."""

    category: str
    """One of :data:`CATEGORIES`."""
    instruction: str
    context: str
    answer: str
    check: Check = field(default_factory=Check)


@dataclass(frozen=True)
class ScoredAnswer:
    """A task, a model's answer to it, and whether that is correct."""

    task: Task
    answer: str
    ended: bool
    """Whether the model ended the answer itself, before the length limit."""

    @property
    def correct(self) -> bool:
        """Whether the answer ended and satisfies the task's rules."""
        return self.ended and self.task.check.passes(self.answer)


def accuracy(scored: Sequence[ScoredAnswer]) -> float:
    """Return the share of correct answers, 0 to 1."""
    return sum(each.correct for each in scored) / len(scored)


@cache
def held_out_tasks() -> tuple[Task, ...]:
    """Return the 200 tasks that answers are scored on, by category."""
    return _read(TASKS_FILE)


@cache
def held_out_texts() -> tuple[Task, ...]:
    """Return the 32 tasks that are read with their reference answers, by category."""
    return _read(TEXTS_FILE)


def _read(file: Path) -> tuple[Task, ...]:
    adapter = TypeAdapter(Task)
    return tuple(map(adapter.validate_json, file.read_bytes().splitlines()))
