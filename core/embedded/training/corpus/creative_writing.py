"""Creative writing: verses, stories, letters, short messages, recipes.

Both splits share subjects, heroes and things; wordings and combinations (an adjective with a noun,
a hero with a found thing) are held out.
"""

from __future__ import annotations

from core.embedded.tasks import Check
from core.embedded.training.corpus.example import Example
from core.embedded.training.corpus.names import Names
from core.embedded.training.corpus.source import Source, held_out_value
from core.embedded.training.corpus.text import an, data, fill, upper_first


def creative_writing(source: Source) -> Example:
    """Generate a task of a random form."""
    forms = [_haiku, _poem, _story, _letter, _thanks, _birthday, _tweet, _slogan, _recipe]
    return source.random.choices(forms, [2.5, 2.5, 4, 2, 1, 1, 2, 1, 3])[0](source)


def _example(
    wording: str, asked: str, answer: str, needs: list[str], fewest: int, *values: str
) -> Example:
    check = Check(needs=tuple((need,) for need in needs), words=(fewest, 300))
    return Example("creative_writing", asked, "", answer, check, wording, values)


def _verse(source: Source, form: str, fewest: int) -> Example:
    rows = data("writing")
    known = rows[form]["known"]
    wording = source.wording(rows[form]["asks"])
    if source.chance(0.5):
        subject = source.choice(list(known))
        answer = source.choice(known[subject])
        needs: list[str] = []
    else:
        subject = _subject(source)
        answer = fill(source.choice(rows[form]["generic"]), x=subject, X=upper_first(subject))
        needs = [subject]
    return _example(wording, fill(wording, x=subject), answer, needs, fewest, subject)


def _combined(source: Source, pattern: str, first: str, second: str) -> str:
    """Fill a pattern with two words; the combination is held out or not."""
    parts = data("writing")["parts"]
    return source.value(
        lambda: fill(pattern, a=source.choice(parts[first]), b=source.choice(parts[second]))
    )


def _subject(source: Source) -> str:
    if source.chance(0.5):
        return source.choice(data("writing")["subjects"]["things"])
    return _combined(source, "the {a} {b}", "adjectives", "nouns")


def _haiku(source: Source) -> Example:
    return _verse(source, "haiku", 8)


def _poem(source: Source) -> Example:
    return _verse(source, "poem", 18)


def _story(source: Source) -> Example:
    rows = data("writing")["story"]
    while True:
        hero = source.choice(rows["heroes"]) if source.chance(0.7) else _any_hero(source)
        thing = source.choice(rows["things"])
        meeting = f"{hero} and {thing}"
        if held_out_value(meeting) != source.training:
            break
    name = Names(source).first() if source.chance(0.6) else Names(source).pet()
    form = source.random.choices(["asks", "asks_plain", "asks_hero"], [5, 2, 2])[0]
    wording = source.wording(rows[form])
    asked = fill(wording, h=hero, n=name, t=thing)
    slots = {"h": hero, "n": name, "t": thing}
    first, *rest = (
        fill(source.choice(rows[part]), **slots)
        for part in ("begin", "find", "doubt", "act", "turn", "end")
    )
    answer = "\n\n".join(
        [f"{upper_first(first)} {rest[0]}", f"{rest[1]} {rest[2]}", f"{rest[3]} {rest[4]}"]
    )
    needs = [hero.split(maxsplit=1)[1]]
    needs += [name] if form != "asks_hero" else []
    needs += [thing] if form == "asks" else []
    return _example(wording, asked, answer, needs, 90, meeting)


def _any_hero(source: Source) -> str:
    """Return an animal, a profession or a tool from the groups of the classification tasks."""
    rows = data("groups")["groups"]
    group = source.choice(["mammal", "bird", "fish", "insect", "reptile", "profession", "tool"])
    return an(source.choice(rows[group].split(", ")))


def _letter(source: Source) -> Example:
    rows = data("writing")["letter"]
    relation = source.choice(rows["relations"])
    named = source.chance(0.25)
    wording = source.wording(rows["asks_named" if named else "asks"])
    name = Names(source).first()
    greeting = f"My dear {name}," if named else f"My dear {relation},"
    parts = [
        source.choice(rows[part]) for part in ("opening", "memory", "quality", "promise", "closing")
    ]
    answer = "\n\n".join(
        [greeting, f"{parts[0]}", f"{parts[1]}", f"{parts[2]} {parts[3]}", parts[4]]
    )
    asked = fill(wording, r=relation, n=name)
    return _example(wording, asked, answer, [greeting[:-1]], 90, *([name] if named else []))


def _thanks(source: Source) -> Example:
    rows = data("writing")["thanks"]
    name = Names(source).first()
    reason = source.choice(rows["reasons"])
    wording = source.wording(rows["asks"])
    answer = fill(source.choice(rows["answers"]), n=name, x=reason)
    return _example(
        wording, fill(wording, n=name, x=reason), answer, [name, reason], 20, name, reason
    )


def _birthday(source: Source) -> Example:
    rows = data("writing")["birthday"]
    name = Names(source).first()
    wording = source.wording(rows["asks"])
    return _example(
        wording,
        fill(wording, n=name),
        fill(source.choice(rows["answers"]), n=name),
        [name],
        15,
        name,
    )


def _tweet(source: Source) -> Example:
    rows = data("writing")["tweet"]
    if source.chance(0.5):
        wording = source.wording(rows["openvino_asks"])
        return _example(wording, wording, source.choice(rows["openvino"]), ["OpenVINO", "#"], 15)
    topic = _combined(source, "our {a} {b}", "events_are", "events")
    if source.chance(0.5):
        topic = source.choice(rows["topics"])
    wording = source.wording(rows["asks"])
    answer = fill(source.choice(rows["answers"]), x=topic)
    return _example(wording, fill(wording, x=topic), answer, [topic, "#"], 10, topic)


def _slogan(source: Source) -> Example:
    rows = data("writing")["slogan"]
    topic = _combined(source, "a {a} {b}", "shops_are", "shops")
    if source.chance(0.5):
        topic = source.choice(rows["topics"])
    wording = source.wording(rows["asks"])
    answer = fill(source.choice(rows["answers"]), x=topic, X=upper_first(topic))
    return _example(wording, fill(wording, x=topic), answer, [topic], 3, topic)


def _recipe(source: Source) -> Example:
    rows = data("writing")["recipe"]
    wording = source.wording(rows["asks"])
    if source.chance(0.35):
        dish = source.choice(list(rows["known"]))
        needs = [dish.removeprefix("an ").removeprefix("a ").rstrip("s")]
        return _example(
            wording, fill(wording, x=dish), source.choice(rows["known"][dish]), needs, 30
        )
    topping = source.value(lambda: " and ".join(source.random.sample(rows["toppings"], 2)))
    if source.chance(0.6):
        topping = "pineapple" if source.chance(0.4) else source.choice(rows["toppings"])
    dish = fill(source.choice(rows["pizza_names"]), x=topping)
    answer = fill(source.choice(rows["pizza"]), x=topping)
    return _example(
        wording, fill(wording, x=dish), answer, [topping, "pizza", "dough"], 80, topping
    )
