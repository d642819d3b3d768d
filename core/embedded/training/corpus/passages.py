"""Passages about invented people, places and things, and instructions about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from core.embedded.tasks import Check
from core.embedded.training.corpus.example import Example
from core.embedded.training.corpus.names import Names
from core.embedded.training.corpus.source import Source, held_out_wordings
from core.embedded.training.corpus.text import an, data, fill, joined, lower_first, upper_first

CLAIM_SHARE = 0.05
"""Share of closed questions that ask whether a statement is true."""
LABEL_SHARE = 0.35
"""Share of closed questions that name the fact by its label, like an extraction request."""
UNKNOWN_SHARE = 0.03
"""Share of closed questions that no passage answers."""
RENAMED_SHARE = 0.35
"""Share of passages with another noun for their entity, in domains that have one."""
PAIR_SHARE = 0.06
"""Share of passages about two entities of one kind."""
LONG_SHARE = 0.01
"""Share of passages that consist of several, so that long contexts occur."""


@dataclass(frozen=True)
class Fact:
    """One fact of a passage."""

    row: dict[str, Any]
    value: str

    @property
    def full(self) -> str:
        """The value; professions with their article."""
        return an(self.value) if self.row["value"] == "trade" else self.value


@dataclass(frozen=True)
class Entity:
    """The subject of a passage or of a part of it."""

    domain: dict[str, Any]
    bare: str
    name: str
    """Name with article, as inside a sentence: ``the Copper Kettle``."""
    pronoun: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Passage:
    """A text and the entities in it."""

    text: str
    entities: tuple[Entity, ...]


@cache
def _renamed(key: str, noun: str) -> dict[str, Any]:
    """Return a domain with its noun replaced: a bakery instead of a café."""
    domain = next(row for row in data("passages")["domain"] if row["key"] == key)
    own = domain["noun"]
    text = json.dumps(domain, ensure_ascii=False)
    text = text.replace(own, noun).replace(own.capitalize(), noun.capitalize())
    return {**json.loads(text), "key": key}


def _domain(source: Source, domain: dict[str, Any]) -> dict[str, Any]:
    if "also" in domain and source.chance(RENAMED_SHARE):
        return _renamed(domain["key"], source.choice(domain["also"]))
    return domain


def draw_entity(source: Source, domain: dict[str, Any], fewest: int = 3, most: int = 5) -> Entity:
    """Return an invented entity with some of its domain's facts, in the order of the passage."""
    names = Names(source)
    pronoun = "it"
    if domain["key"] == "person":
        female = source.chance(0.5)
        pronoun = "she" if female else "he"
        bare = names.person(female)
    else:
        bare = getattr(names, domain["name"])()
    if "suffix" in domain:
        bare = f"{bare} {domain['suffix']}"
    count = source.random.randint(fewest, min(most, len(domain["fact"])))
    rows = source.random.sample(domain["fact"], count)
    rows.sort(key=lambda row: domain["fact"].index(row) + source.random.gauss(0, 1.5))
    if domain["key"] in {"cafe", "company", "river", "festival"} and source.chance(0.7):
        rows.sort(key=lambda row: domain["fact"].index(row) != 0)
    used: set[str] = set()
    facts = []
    for row in rows:
        value = getattr(names, row["value"])()
        while value in used:
            value = getattr(names, row["value"])()
        used.add(value)
        facts.append(Fact(row, value))
    name = f"the {bare}" if "article" in domain else bare
    return Entity(domain, bare, name, pronoun, tuple(facts))


def _reference(source: Source, entity: Entity) -> str:
    form = source.choice(entity.domain["refs"])
    if form == "first":
        return entity.bare.split()[0]
    return entity.pronoun if form == "pronoun" else form


def _sentence(source: Source, entity: Entity, facts: tuple[Fact, ...], subject: str) -> str:
    if len(facts) == 1:
        wordings = facts[0].row["says"]
    else:
        keys = [fact.row["key"] for fact in facts]
        wordings = next(pair["says"] for pair in entity.domain["pair"] if pair["keys"] == keys)
    template = source.choice(wordings)
    if subject in {"she", "he", "it"} and not _subject_only(template):
        subject = entity.name if entity.domain["key"] != "person" else entity.bare.split()[0]
    said = fill(
        template,
        S=subject,
        p=entity.pronoun,
        v=facts[0].value,
        av=facts[0].full,
        v1=facts[0].full,
        v2=facts[-1].full,
        animal=an(Names(source).animal()),
    )
    return upper_first(said)


def _subject_only(template: str) -> bool:
    """Return whether a subject pronoun is grammatical for every {S} of the template."""
    before, _, after = template.partition("{S}")
    if "{S}" in after or after.startswith("'s"):
        return False
    words = before.lower().split()
    if words and words[-1] in {"of", "to", "by", "on", "at", "for", "founded", "from", "through"}:
        return False
    return not (
        words
        and words[-1]
        in {"wrote", "designed", "leads", "teaches", "value", "organises", "opened", "where"}
    )


def _describe(source: Source, entity: Entity, always_named: bool = False) -> list[str]:
    sentences = []
    for index, facts in enumerate(_group_facts(source, entity)):
        subject = entity.name
        if index and not always_named:
            subject = _reference(source, entity)
        elif index and entity.domain["key"] == "person":
            subject = entity.bare.split()[0]
        told = _sentence(source, entity, facts, subject)
        if index == 0 and entity.bare.split()[-1] not in told:
            told = f"{upper_first(entity.name)} is {entity.domain['kind']}. {told}"
        sentences.append(told)
    return sentences


def _group_facts(source: Source, entity: Entity) -> list[tuple[Fact, ...]]:
    """Return the facts of each sentence; some sentences have two."""
    by_key = {fact.row["key"]: fact for fact in entity.facts}
    told: list[tuple[Fact, ...]] = []
    done: set[str] = set()
    pairs = source.random.sample(entity.domain["pair"], len(entity.domain["pair"]))
    for fact in entity.facts:
        key = fact.row["key"]
        if key in done:
            continue
        keys = next(
            (
                pair["keys"]
                for pair in pairs
                if key in pair["keys"]
                and set(pair["keys"]) <= set(by_key)
                and not done & set(pair["keys"])
            ),
            None,
        )
        group = tuple(keys) if keys and source.chance(0.5) else (key,)
        done.update(group)
        told.append(tuple(by_key[name] for name in group))
    return told


def draw_passage(source: Source, domain: dict[str, Any] | None = None) -> Passage:
    """Return a passage about one entity, or about two of the same kind."""
    if domain is None:
        domains = data("passages")["domain"]
        weights = [3 if row["key"] == "person" else 1 for row in domains]
        domain = source.random.choices(domains, weights)[0]
    if source.chance(LONG_SHARE):
        return _long_passage(source)
    domain = _domain(source, domain)
    if source.chance(PAIR_SHARE):
        entities = tuple(draw_entity(source, domain, 2, 3) for _ in range(2))
        sentences = [line for one in entities for line in _describe(source, one, always_named=True)]
    else:
        entities = (draw_entity(source, domain),)
        sentences = _describe(source, entities[0])
        for _ in range(source.random.choice([0, 0, 0, 1])):
            filler = source.choice(domain["fillers"])
            if filler not in sentences:
                sentences.insert(source.random.randint(1, len(sentences)), filler)
    return Passage(" ".join(sentences), entities)


def _long_passage(source: Source) -> Passage:
    """Return three to five passages about different entities as one."""
    count = source.random.randint(3, 5)
    domains = source.random.sample(data("passages")["domain"], count)
    entities = tuple(draw_entity(source, domain) for domain in domains)
    texts = (" ".join(_describe(source, one)) for one in entities)
    return Passage(("\n\n" if source.chance(0.5) else " ").join(texts), entities)


def _question_with_name(source: Source, entity: Entity, wording: str) -> str:
    """Fill a question with the entity's name, or sometimes with a shorter reference."""
    name = entity.name
    if "noun" in entity.domain and source.chance(0.3):
        name = f"the {entity.domain['noun']}"
    elif entity.domain["key"] == "person" and source.chance(0.3):
        name = entity.bare.split()[0]
    return fill(wording, N=name)


def closed_qa(source: Source) -> Example:
    """Generate a question that the passage answers (rarely: does not answer)."""
    wordings = data("passages")["wordings"]
    passage = draw_passage(source)
    entity = source.choice(passage.entities)
    named = len(passage.entities) > 1
    if source.chance(CLAIM_SHARE):
        return _claim(source, passage, entity)
    row: dict[str, Any] = {"key": "unknown"}
    if not named and source.chance(UNKNOWN_SHARE):
        wording = source.wording(wordings["unknown_asks"])
        question = fill(wording, N=entity.name)
        answer = source.choice(wordings["unknown"])
        check = Check(needs=(("does not",),))
    else:
        fact = source.choice(entity.facts)
        row = fact.row
        wording = _wording_for(source, row)
        question = (
            fill(wording, N=entity.name) if named else _question_with_name(source, entity, wording)
        )
        answer = upper_first(
            fill(source.choice(fact.row["answers"]), N=entity.name, v=fact.value, av=fact.full)
        )
        others = (other.value for one in passage.entities for other in one.facts)
        check = Check(
            needs=((fact.value,),),
            forbids=tuple(v for v in others if v.lower() not in answer.lower()),
        )
    asked = fill(source.wording(wordings["question"]), q=question, lq=lower_first(question))
    return Example(
        "closed_qa",
        asked,
        passage.text,
        answer,
        check,
        f"{wording} [{entity.domain['key']}.{row['key']}]",
        _values(passage),
    )


def _wording_for(source: Source, row: dict[str, Any]) -> str:
    """Return a question for a fact: one of its own, or a general one with the fact's label."""
    if not source.chance(LABEL_SHARE):
        return source.wording(row["asks"])
    while True:
        general = source.wording(data("passages")["wordings"]["label_asks"])
        wording = fill(general, l=source.choice(row["labels"]))
        if not source.training or wording not in held_out_wordings(row["asks"]):
            return wording


def _claim(source: Source, passage: Passage, entity: Entity) -> Example:
    """Generate a question whether a statement is true; the answer repeats the passage."""
    fact = source.choice(entity.facts)
    template = source.choice(fact.row["answers"])

    def stated(value: Fact) -> str:
        return fill(template, N=entity.name, v=value.value, av=value.full)

    true = source.chance(0.5)
    other = Fact(fact.row, fact.value)
    while not true and other.value == fact.value:
        other = Fact(fact.row, getattr(Names(source), fact.row["value"])())
    said = stated(fact if true else other).removesuffix(".")
    wording = source.wording(data("passages")["wordings"]["claim"])
    answer = upper_first(stated(fact))
    check = Check(needs=((fact.value,),), forbids=() if true else (other.value,))
    return Example(
        "closed_qa", fill(wording, s=said), passage.text, answer, check, wording, _values(passage)
    )


def _values(passage: Passage) -> tuple[str, ...]:
    return tuple(one.bare for one in passage.entities)


def extraction(source: Source) -> Example:
    """Generate a request to list facts, people, towns or years of a passage."""
    kind = source.random.choices(["facts", "persons", "towns", "years"], [6, 2, 1, 0.7])[0]
    if kind == "facts":
        return _extract_facts(source)
    wordings = data("passages")["wordings"][kind]
    if kind == "persons" and source.chance(0.5):
        passage_text, people, _ = draw_meeting(source)
        return _extracted(source.wording(wordings), passage_text, people, people)
    wanted = {"persons": {"person"}, "towns": {"town"}, "years": {"year"}}[kind]
    for _ in range(200):
        passage = draw_passage(source)
        found = [
            fact.value
            for one in passage.entities
            for fact in one.facts
            if fact.row["value"] in wanted
        ]
        if kind == "persons":
            found += [one.bare for one in passage.entities if one.domain["key"] == "person"]
        found.sort(key=passage.text.find)
        if found:
            return _extracted(source.wording(wordings), passage.text, found, _values(passage))
    raise RuntimeError(f"no passage with {kind} was drawn")


def _extracted(wording: str, text: str, found: list[str], values: Any) -> Example:
    lines = tuple(f"- {item}" for item in dict.fromkeys(found))
    return Example(
        "information_extraction",
        wording,
        text,
        "\n".join(lines),
        Check(lines=lines),
        wording,
        tuple(values),
    )


def _extract_facts(source: Source) -> Example:
    passage = draw_passage(source)
    while len(passage.entities) > 1:
        passage = draw_passage(source)
    entity = passage.entities[0]
    count = source.random.randint(2, min(3, len(entity.facts)))
    facts = source.random.sample(entity.facts, count)
    if source.chance(0.6):
        facts.sort(key=entity.facts.index)
    pairs = [(source.choice(fact.row["labels"]), fact.value) for fact in facts]
    if source.chance(0.35):
        noun = entity.domain.get("noun", "name")
        plain = noun in entity.domain.get("also", ()) or source.chance(0.5)
        pairs.insert(0, ("name" if plain else noun, entity.bare))
    articles = source.chance(0.6)
    asked = [
        f"the {label}" if articles and index else label for index, (label, _) in enumerate(pairs)
    ]
    wording = source.wording(data("passages")["wordings"]["extract"])
    if not articles:
        asked = [label for label, _ in pairs]
    lines = tuple(f"- {upper_first(label)}: {value}" for label, value in pairs)
    return Example(
        "information_extraction",
        fill(wording, list=joined(asked)),
        passage.text,
        "\n".join(lines),
        Check(lines=lines),
        wording,
        (entity.bare,),
    )


def summary(source: Source) -> Example:
    """Generate a request to summarize a passage in one sentence."""
    passage = draw_passage(source)
    while len(passage.entities) > 1 or len(passage.entities[0].facts) < 4:
        passage = draw_passage(source)
    entity = passage.entities[0]
    order = entity.domain["fact"]
    facts = sorted(entity.facts, key=lambda fact: order.index(fact.row))[
        : 2 if len(passage.text.split()) < 30 else 3
    ]
    briefs = [fill(fact.row["brief"], v=fact.value, av=fact.full) for fact in facts]
    if entity.domain["key"] == "person":
        answer = f"{entity.name} {joined(briefs)}."
    else:
        answer = f"{upper_first(entity.name)} is {entity.domain['kind']} that {joined(briefs)}."
    wording = source.wording(data("passages")["wordings"]["summary"])
    values = [fact.value for fact in entity.facts]
    check = Check(
        needs=((entity.bare,), *((value,) for value in values)),
        enough=3,
        words=(6, len(passage.text.split())),
        said_in=passage.text,
    )
    return Example("summarization", wording, passage.text, answer, check, wording, (entity.bare,))


def draw_meeting(source: Source) -> tuple[str, list[str], list[tuple[str, str, str, str]]]:
    """Return a text about who did what, its people in order, and the deeds.

    A deed is (person, verb in the past, verb in the base form, object).
    """
    rows = data("passages")["meeting"]
    names = Names(source)
    count = source.random.randint(2, 4)
    objects = source.random.sample(rows["objects"], count)
    people: list[str] = []
    deeds = []
    sentences = []
    for index in range(count):
        person = names.person()
        while any(person.split()[0] == one.split()[0] for one in people):
            person = names.person()
        past, base = source.choice(rows["verbs"]).split("|")
        said = f"{person} {past} {objects[index]}."
        frame = source.choice(rows["openings"] if index == 0 else rows["links"])
        sentences.append(fill(frame, s=said, day=names.day()))
        people.append(person)
        deeds.append((person, past, base, objects[index]))
    return " ".join(sentences), people, deeds


def meeting_qa(source: Source) -> Example:
    """Generate a question who did something, or what a person did."""
    rows = data("passages")["meeting"]
    text, people, deeds = draw_meeting(source)
    person, past, base, thing = source.choice(deeds)
    about_person = source.chance(0.5)
    wording = source.wording(rows["who" if about_person else "what"])
    question = fill(wording, past=past, base=base, o=thing, n=person)
    others = [one for one in people if one != person]
    other_things = [deed[3] for deed in deeds if deed[3] != thing]
    check = Check(
        needs=((person,), (thing,)),
        forbids=tuple(others if about_person else other_things),
    )
    asked = fill(
        source.wording(data("passages")["wordings"]["question"]),
        q=question,
        lq=lower_first(question),
    )
    answer = f"{person} {past} {thing}."
    return Example("closed_qa", asked, text, answer, check, wording, tuple(people))
