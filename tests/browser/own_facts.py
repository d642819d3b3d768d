"""Instructions that only their own answer fits, for checks that many users get their own answers.

The embedded models copy name and year from the instruction, alone and in a batch. An answer sampled
in a batch is not compared with one sampled alone: the rounding of a batch changes a word now and
then, and every word after it.
"""

from __future__ import annotations

import html
import re

COUNT = 100
"""How many different instructions there are."""

_FIRST = ("Paula", "Zara", "Erik", "Judith", "Jakob", "Emma", "Isabel", "Daniel", "Olivia", "Ethan")
_LAST = ("Walquist", "Polima", "Renley", "Kelova", "Costa")
_JOBS = (
    *("carpenter", "postman", "baker", "teacher", "painter"),
    *("nurse", "farmer", "pilot", "dentist", "gardener"),
)
_TOWNS = ("Froholm", "Torhaven", "Belcliff", "Ulmarsh", "Lorbury")
_TAG = re.compile(r"<[^>]*>")
_WORD = re.compile(r"\w+")
_ANSWER = re.compile(r"Name (\w+ \w+) Job .*? Year of birth (\d+)")


def instruction(number: int) -> str:
    """Return the instruction of this number, from 0 to COUNT - 1."""
    name, job, town, year = _facts(number)
    return (
        "Extract the name, the job, the place of residence and the year of birth. "
        f"{name} works as a {job} in {town} and lives there. {name} came into the world in {year}."
    )


def answers_in(text: str) -> list[int]:
    """Return the numbers of the instructions whose answers occur in a text or HTML as drawn."""
    shown = html.unescape(_TAG.sub(" ", text))
    said = _ANSWER.findall(" ".join(_WORD.findall(shown)))
    return [n for n in range(COUNT) if (_facts(n)[0], str(_facts(n)[3])) in said]


def _facts(number: int) -> tuple[str, str, str, int]:
    name = f"{_FIRST[number % 10]} {_LAST[number // 10 % 5]}"
    job = _JOBS[(3 * number + number // 10) % 10]
    town = _TOWNS[(number + number // 10) % 5]
    return name, job, town, 1900 + number
