"""Brainstorming with a requested count."""

from __future__ import annotations

from core.embedded.tasks import Check
from core.embedded.training.corpus.example import Example
from core.embedded.training.corpus.source import Source, held_out_value, held_out_wordings
from core.embedded.training.corpus.text import data, fill, upper_first

NOT_IDEAS = ("names", "advantages", "reasons", "benefits", "uses", "things", "questions", "good")
"""First words of phrases that take the number: "five names", not "five ideas for names"."""


def item_set(key: str, count: int) -> str:
    """Return the name of a pool with a count of ideas; some of these are held out."""
    return f"{key} × {count}"


def brainstorming(source: Source) -> Example:
    """Generate a request for a number of ideas from a pool."""
    rows = data("ideas")
    while True:
        pool = source.choice(rows["pool"])
        number = int(source.choice(list(rows["counts"])))
        if held_out_value(item_set(pool["key"], number)) != source.training:
            break
    count = source.choice(rows["counts"][str(number)])
    asks = [ask for ask in pool["asks"] if number > 1 or "{n} {" not in ask]
    if source.chance(0.5) and (source.training or held_out_wordings(asks)):
        wording = source.wording(asks)
        instruction = upper_first(fill(wording, n=count))
    else:
        phrase = source.choice(pool["phrases"])
        counted = phrase.split()[0] in NOT_IDEAS or phrase.split()[-1] == "names"
        wording = source.wording(
            rows["wordings"]["names" if counted and source.chance(0.8) else "many"]
        )
        instruction = upper_first(fill(wording, n=count, p=phrase))
    if number == 1:
        instruction = instruction.replace("ideas", "idea").replace("suggestions", "suggestion")
    ideas = _drawn(source, pool["ideas"], number)
    answer = "\n".join(f"{index}. {idea}" for index, idea in enumerate(ideas, 1))
    check = Check(count=number, pool=tuple(pool["ideas"]))
    return Example(
        "brainstorming",
        instruction,
        "",
        answer,
        check,
        f"{wording} [{pool['key']}]",
        (item_set(pool["key"], number),),
    )


def _drawn(source: Source, ideas: list[str], number: int) -> list[str]:
    """Return distinct ideas in the pool's circular order from a random start, with some gaps."""
    position = source.random.randrange(len(ideas))
    spare = len(ideas) - number
    drawn = []
    for _ in range(number):
        drawn.append(ideas[position % len(ideas)])
        position += 1
        if spare and source.chance(0.2):
            position += 1
            spare -= 1
    return drawn
