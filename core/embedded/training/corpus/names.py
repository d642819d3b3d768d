"""Random names and values for passages; they refer to no real persons.

Most names are composed of two common parts, ``Hal`` and ``ford``, ``copper`` and ``kettle``, so
that a tiny model can copy them; combinations are held out. Some consist of random letters.
"""

from __future__ import annotations

from functools import cache

from core.embedded.training.corpus.source import Source
from core.embedded.training.corpus.text import data

KNOWN_SHARE = 0.5
"""Share of values from a list; the others are composed, so that there are many."""
LISTED_FIRST_NAMES = 0.9
"""Share of first names from a list."""
MIDDLE_SHARE = 0.06
"""Share of names with a syllable between their two parts."""
MADE_UP_SHARE = 0.06
"""Share of names of random letters, so that copying does not depend on known parts."""


@cache
def pool(name: str) -> list[str]:
    """Return a list of ``data/names.toml``; callers must not modify it."""
    return data("names")[name].split("|")


class Names:
    """Draws names and values for one source."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def _compound(self, ends: list[str]) -> str:
        choice = self.source.choice
        if self.source.chance(MADE_UP_SHARE):
            return self.made_up()
        middle = choice(pool("middles")) if self.source.chance(MIDDLE_SHARE) else ""
        return choice(pool("starts")) + middle + choice(ends)

    def made_up(self) -> str:
        """Return a capitalised word of random letters."""
        choice = self.source.choice
        while True:
            count = self.source.random.choice([1, 1, 2])
            parts = (choice(pool("onsets")) + choice(pool("vowels")) for _ in range(count))
            word = "".join(parts) + choice(pool("codas"))
            if not any(rude in word for rude in pool("rude")):
                return word.capitalize()

    def _combined(self, known: str, *parts: str) -> str:
        """Return a value of a list, or one word from each of several lists."""
        if self.source.chance(KNOWN_SHARE):
            return self.source.choice(pool(known))
        return self.source.value(lambda: " ".join(self.source.choice(pool(part)) for part in parts))

    def woman(self) -> str:
        """Return a woman's first name."""
        return self._first("female", ["a", "ia", "in", "is"])

    def man(self) -> str:
        """Return a man's first name."""
        return self._first("male", ["o", "us", "el", "or", "an"])

    def _first(self, names: str, ends: list[str]) -> str:
        if self.source.chance(LISTED_FIRST_NAMES):
            more = "_more" if self.source.chance(0.3) else ""
            return self.source.choice(pool(names + more))
        return self._compound(ends)

    def first(self) -> str:
        """Return a woman's or a man's first name."""
        return self.woman() if self.source.chance(0.5) else self.man()

    def _surname(self) -> str:
        if self.source.chance(0.15):
            return self.source.choice(pool("surnames"))
        return self._compound(pool("name_ends"))

    def person(self, female: bool | None = None) -> str:
        """Return a first name and a surname; the combination is held out or not."""
        if female is None:
            female = self.source.chance(0.5)
        first = self.woman if female else self.man
        return self.source.value(lambda: f"{first()} {self._surname()}")

    def town(self) -> str:
        if self.source.chance(0.12):
            return self.source.choice(pool("cities"))
        return self.invented_town()

    def invented_town(self) -> str:
        return self.source.value(lambda: self._compound(pool("town_ends")))

    def land(self) -> str:
        if self.source.chance(0.4):
            return self.source.choice(pool("lands"))
        return self.source.value(lambda: self._compound(["ia", "land", "mark", "ania"]))

    def hills(self) -> str:
        kind = self.source.choice(["Hills", "Mountains", "Forest", "Highlands", "Moors"])
        word = self.source.choice(pool("adjectives") if self.source.chance(0.7) else pool("starts"))
        return f"the {word} {kind}"

    def firm(self) -> str:
        return self.source.value(lambda: self._compound(pool("firm_ends")))

    def street(self) -> str:
        return self.source.value(
            lambda: (
                f"{self.source.choice(pool('streets'))} "
                f"{self.source.choice(['Street', 'Road', 'Lane', 'Square'])}"
            )
        )

    def sign(self) -> str:
        """Return the name of an inn, a book or a ship, without article: ``Copper Kettle``."""
        return self.source.value(
            lambda: f"{self.source.choice(pool('adjectives'))} {self.source.choice(pool('nouns'))}"
        )

    def trade(self) -> str:
        """Return a profession."""
        if self.source.chance(0.35):
            return self.source.choice(pool("trades"))
        return self.source.value(
            lambda: f"{self.source.choice(pool('fields'))} {self.source.choice(pool('roles'))}"
        )

    def hobby(self) -> str:
        return self._combined("hobbies", "pastimes", "pastime_things")

    def animal(self) -> str:
        return self.source.choice(pool("animals"))

    def pet(self) -> str:
        if self.source.chance(0.9):
            return self.source.choice(pool("pets"))
        return self.source.value(self.made_up)

    def food(self) -> str:
        return self._combined("foods", "stems", "dishes")

    def product(self) -> str:
        def make() -> str:
            kind = f"{self.source.choice(pool('kinds'))} " if self.source.chance(0.5) else ""
            return kind + self.source.choice(pool("products"))

        return self.source.value(make)

    def model(self) -> str:
        """Return the name of a product model, ``Swift 7``."""
        return self.source.value(
            lambda: f"{self._compound(pool('firm_ends'))} {self.source.random.randint(1, 99)}"
        )

    def year(self) -> str:
        return str(self.source.random.randint(1820, 2024))

    def date(self) -> str:
        return f"{self.source.random.randint(1, 28)} {self.source.choice(pool('months'))}"

    def day(self) -> str:
        return self.source.choice(pool("days"))

    def morning(self) -> str:
        return self.source.choice(
            ["7 am", "7.30 am", "8 am", "8.30 am", "9 am", "9.30 am", "10 am"]
        )

    def evening(self) -> str:
        return self.source.choice(
            ["4 pm", "5 pm", "5.30 pm", "6 pm", "6.30 pm", "7 pm", "8 pm", "9 pm"]
        )

    def price(self) -> str:
        return f"{self.source.random.randint(2, 95)} euros"

    def number(self, low: int, high: int) -> str:
        step = 10 if high > 200 else 1
        return str(self.source.random.randrange(low, high, step))

    def colour(self) -> str:
        return self.source.choice(pool("colours"))

    def phone(self) -> str:
        digits = self.source.random
        return f"0{digits.randint(100, 999)} {digits.randint(1000, 9999)}"

    def hundreds(self) -> str:
        return self.number(120, 990)

    def kilometres(self) -> str:
        return f"{self.number(40, 990)} kilometres"

    def metres(self) -> str:
        return f"{self.source.random.randint(20, 180)} metres"

    def centimetres(self) -> str:
        return f"{self.source.random.randint(5, 99)} centimetres"

    def lifetime(self) -> str:
        return f"{self.source.random.randint(3, 60)} years"

    def platform(self) -> str:
        return f"platform {self.source.random.randint(1, 24)}"

    def room(self) -> str:
        return f"room {self.source.random.randint(1, 99)}"

    def material(self) -> str:
        return self.source.choice(pool("materials"))

    def fish(self) -> str:
        return self.source.choice(["trout", "salmon", "pike", "carp", "eels", "perch"])

    def venue(self) -> str:
        if self.source.chance(0.5):
            return f"the {self.sign()}"
        return self.source.value(
            lambda: f"the {self.source.choice(pool('streets'))} {self.source.choice(pool('halls'))}"
        )

    def subject(self) -> str:
        return self.source.value(
            lambda: f"{self.source.choice(pool('courses'))} {self.source.choice(pool('subjects'))}"
        )

    def species(self) -> str:
        kind = self.source.choice(
            [
                "fox",
                "owl",
                "frog",
                "lizard",
                "mouse",
                "toad",
                "bear",
                "hare",
                "beetle",
                "crab",
                "otter",
            ]
        )
        return (
            self.source.value(lambda: self._compound(["a", "o", "el", "in", "or", "ia"]))
            + f" {kind}"
        )

    def feed(self) -> str:
        return self._combined("feeds", "feed_kinds", "feed_things")

    def nest(self) -> str:
        return self._combined("nests", "nest_kinds", "nest_things")
