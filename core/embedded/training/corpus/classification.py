"""Classification: items into groups, the sentiment of a review, the kind of a message."""

from __future__ import annotations

from core.embedded.tasks import Check
from core.embedded.training.corpus.example import Example
from core.embedded.training.corpus.source import Source, held_out_value
from core.embedded.training.corpus.text import an, data, fill, joined, upper_first

MASS = {"furniture", "clothing"}


def _groups() -> dict[str, list[str]]:
    return {name: items.split(", ") for name, items in data("groups")["groups"].items()}


def _singular(group: str) -> str:
    return group if group in MASS else an(group)


def _plural(group: str) -> str:
    return data("groups")["plural"].get(group, f"{group}s")


def item_set(items: list[str]) -> str:
    """Return the name of a set of items, independent of their order; some are held out."""
    return ", ".join(sorted(items))


def _draw_items(source: Source, groups: list[str], count: int) -> list[tuple[str, str]]:
    """Return (item, group) pairs: each group at least once, no item that belongs to two groups."""
    rows = _groups()
    while True:
        chosen = list(groups) + [source.choice(groups) for _ in range(count - len(groups))]
        source.random.shuffle(chosen)
        pairs: list[tuple[str, str]] = []
        for group in chosen:
            options = [
                item
                for item in rows[group]
                if item not in {pair[0] for pair in pairs}
                and not any(item.lower() in map(str.lower, rows[g]) for g in groups if g != group)
            ]
            if options:
                pairs.append((source.choice(options), group))
        if held_out_value(item_set([item for item, _ in pairs])) != source.training:
            return pairs


def classification(source: Source) -> Example:
    """Generate a classification task of a random kind."""
    kinds = [_each, _single, _which, _sentiment, _ticket, _topic]
    return source.random.choices(kinds, [6, 2.5, 2.5, 2.5, 1, 1])[0](source)


def _draw_groups(source: Source, number: int = 2) -> list[str]:
    return source.random.sample(list(_groups()), number)


def _each(source: Source) -> Example:
    number = 3 if source.chance(0.25) else 2
    groups = _draw_groups(source, number)
    pairs = _draw_items(source, groups, source.random.randint(max(3, number), 6))
    items = [item for item, _ in pairs]
    slots = {}
    for letter, group in zip("abc", groups, strict=False):
        slots[letter] = _singular(group) if source.chance(0.75) else group
        slots[letter + "s"] = _plural(group)
    wording = source.wording(data("groups")["wordings"]["each3" if number == 3 else "each"])
    listed = ", ".join(items) if source.chance(0.75) else joined(items)
    lines = tuple(f"- {item}: {group}" for item, group in pairs)
    return Example(
        "classification",
        fill(wording, items=listed, **slots),
        "",
        "\n".join(lines),
        Check(lines=lines),
        wording,
        (item_set(items),),
    )


def _single(source: Source) -> Example:
    rows = _groups()
    while True:
        groups = _draw_groups(source)
        group = source.choice(groups)
        item = source.choice(rows[group])
        other = next(name for name in groups if name != group)
        key = item_set([item, group, other])
        if item not in rows[other] and held_out_value(key) != source.training:
            break
    wording = source.wording(data("groups")["wordings"]["single"])
    named = (
        item
        if item[0].isupper() or group in {"drink", "sport", "metal", "spice", "colour"}
        else an(item)
    )
    if group in {"school subject", "clothing"}:
        named = item
    asked = fill(
        wording,
        an_item=named,
        item=item,
        a=_singular(groups[0]),
        b=_singular(groups[1]),
        **{"as": _plural(groups[0]), "bs": _plural(groups[1])},
    )
    answer = (
        f"{upper_first(item)} is {_singular(group)}."
        if named == item
        else f"{upper_first(named)} is {_singular(group)}."
    )
    check = Check(needs=((f"is {_singular(group)}",),), forbids=(f"is {_singular(other)}",))
    return Example("classification", asked, "", answer, check, wording, (key,))


def _which(source: Source) -> Example:
    """Generate a question which items belong to a group; the answer names the group of each."""
    groups = _draw_groups(source)
    pairs = _draw_items(source, groups, source.random.randint(3, 5))
    wanted = groups[0]
    items = [item for item, _ in pairs]
    wording = source.wording(data("groups")["wordings"]["which"])
    asked = fill(wording, items=", ".join(items), **{"as": _plural(wanted)})
    lines = tuple(f"- {item}: {group}" for item, group in pairs)
    return Example(
        "classification",
        asked,
        "",
        "\n".join(lines),
        Check(lines=lines),
        wording,
        (item_set(items),),
    )


def _sentences(source: Source, text: str, fewest: int, most: int) -> list[str]:
    options = text.split("|")
    while True:
        drawn = source.random.sample(options, source.random.randint(fewest, most))
        if held_out_value(item_set(drawn)) != source.training:
            return drawn


def _place_text(source: Source, wording: str, text: str) -> tuple[str, str]:
    """Return instruction and context; sometimes the text is part of the instruction."""
    if source.chance(0.3):
        return f"{wording} {text}" if source.chance(0.6) else f'{wording} "{text}"', ""
    return wording, text


def _sentiment(source: Source) -> Example:
    rows = data("groups")
    mood = source.choice(["positive", "negative"])
    product = source.choice(rows["sentiment"]["products"].split(", "))
    lines = _sentences(source, rows["sentiment"][mood], 2, 4)
    key = item_set(lines)
    if source.chance(0.7):
        lines.insert(0, fill(source.choice(rows["sentiment"]["starts"].split("|")), p=product))
    wording = source.wording(rows["wordings"]["sentiment"])
    asked, context = _place_text(source, wording, " ".join(lines))
    end = "the customer is happy" if mood == "positive" else "the customer is unhappy"
    answer = source.choice(
        [f"The sentiment of this review is {mood}: {end}.", f"This review is {mood}, since {end}."]
    )
    other = "negative" if mood == "positive" else "positive"
    check = Check(needs=((mood,),), forbids=(other,))
    return Example("classification", asked, context, answer, check, wording, (key,))


def _ticket(source: Source) -> Example:
    kind = source.choice(list(data("groups")["ticket"]))
    return _labelled(source, "ticket", kind, f"This message is about {kind}.")


def _topic(source: Source) -> Example:
    kind = source.choice(list(data("groups")["topic"]))
    return _labelled(source, "topic", kind, f"This text is about {kind}.")


def _labelled(source: Source, task: str, kind: str, answer: str) -> Example:
    rows = data("groups")
    lines = _sentences(source, rows[task][kind], 1, 3)
    wording = source.wording(rows["wordings"][task])
    asked, context = _place_text(source, wording, " ".join(lines))
    others = tuple(other for other in rows[task] if other != kind)
    check = Check(needs=((kind,),), forbids=others)
    return Example("classification", asked, context, answer, check, wording, (item_set(lines),))
