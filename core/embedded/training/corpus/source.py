"""Random choices that keep held-out names, values and wordings apart from training."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")

HELD_OUT_SHARE = 8
"""One value in so many is held out."""
FEWEST_WORDINGS = 5
"""A list of wordings shorter than this is shared by both splits."""


class Split(StrEnum):
    """What an example is for."""

    TRAIN = "train"
    HELD_OUT = "held_out"


def held_out_value(text: str) -> bool:
    """Whether a name, value or item set is kept out of training."""
    return zlib.crc32(text.casefold().encode()) % HELD_OUT_SHARE == 0


def held_out_wordings(wordings: Sequence[T]) -> list[T]:
    """The wordings of a list that training never sees: every seventh, from the fourth on."""
    if len(wordings) < FEWEST_WORDINGS:
        return []
    return [wording for index, wording in enumerate(wordings) if index % 7 == 3]


class Source:
    """A seeded stream of choices for one split."""

    def __init__(self, seed: int | str, split: Split) -> None:
        self.random = random.Random(f"{seed}/{split}")
        self.split = split

    @property
    def training(self) -> bool:
        """Whether this source makes training examples."""
        return self.split is Split.TRAIN

    def choice(self, options: Sequence[T]) -> T:
        """Any of the options; for things that both splits share."""
        return self.random.choice(options)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random.random() < probability

    def wording(self, wordings: Sequence[T]) -> T:
        """A wording that belongs to this split."""
        held_out = held_out_wordings(wordings)
        if not held_out:
            return self.choice(wordings)
        if not self.training:
            return self.choice(held_out)
        return self.choice([wording for wording in wordings if wording not in held_out])

    def value(self, make: Callable[[], str]) -> str:
        """A value made by ``make`` that belongs to this split.

        Raises:
            RuntimeError: ``make`` hardly ever gives one; its range is too small.
        """
        for _ in range(1000):
            text = make()
            if held_out_value(text) != self.training:
                return text
        raise RuntimeError(f"no {self.split} value like {text!r} was found")

    def of(self, options: Sequence[str]) -> str:
        """One of the options that belongs to this split."""
        return self.value(lambda: self.choice(options))
