"""Random choices for one split, which keep held-out names, values and wordings out of training."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")

HELD_OUT_SHARE = 8
"""One of this many values is held out."""
FEWEST_WORDINGS = 5
"""Both splits share a list of wordings that is shorter than this."""


class Split(StrEnum):
    """The two splits of the corpus."""

    TRAIN = "train"
    HELD_OUT = "held_out"


def held_out_value(text: str) -> bool:
    """Return whether a name, value or item set is held out."""
    return zlib.crc32(text.casefold().encode()) % HELD_OUT_SHARE == 0


def held_out_wordings(wordings: Sequence[T]) -> list[T]:
    """Return the held-out wordings of a list: every seventh, starting with the fourth."""
    if len(wordings) < FEWEST_WORDINGS:
        return []
    return [wording for index, wording in enumerate(wordings) if index % 7 == 3]


class Source:
    """A seeded stream of random choices for one split."""

    def __init__(self, seed: int | str, split: Split) -> None:
        self.random = random.Random(f"{seed}/{split}")
        self.split = split

    @property
    def training(self) -> bool:
        """Whether this source generates training examples."""
        return self.split is Split.TRAIN

    def choice(self, options: Sequence[T]) -> T:
        """Return any of the options; for values that both splits share."""
        return self.random.choice(options)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random.random() < probability

    def wording(self, wordings: Sequence[T]) -> T:
        """Return a wording that belongs to this split."""
        held_out = held_out_wordings(wordings)
        if not held_out:
            return self.choice(wordings)
        if not self.training:
            return self.choice(held_out)
        return self.choice([wording for wording in wordings if wording not in held_out])

    def value(self, make: Callable[[], str]) -> str:
        """Return a value from ``make`` that belongs to this split.

        Raises:
            RuntimeError: 1000 values from ``make`` belonged to the other split.
        """
        for _ in range(1000):
            text = make()
            if held_out_value(text) != self.training:
                return text
        raise RuntimeError(f"No {self.split} value like {text!r} was found in 1000 attempts.")
