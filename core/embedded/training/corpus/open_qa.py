"""Open questions on a fixed list of topics."""

from __future__ import annotations

from core.embedded.tasks import Check
from core.embedded.training.corpus.example import Example
from core.embedded.training.corpus.source import Source
from core.embedded.training.corpus.text import data, fill, lower_first, upper_first


def open_qa(source: Source) -> Example:
    """Generate a question about a topic or a capital."""
    rows = data("topics")
    if source.chance(0.2):
        return _capital(source)
    topic = source.choice(rows["topic"])
    wordings = rows["wordings"]
    if "questions" in topic:
        wording = source.wording(topic["questions"])
        question = wording
    else:
        wording = source.wording(wordings["terms"])
        question = fill(wording, t=source.choice(topic["terms"]))
        wording = f"{wording} [{topic['key']}]"
    question = _with_phrases(source, question)
    check = Check(
        needs=tuple(tuple(filter(None, need.split("/"))) for need in topic["needs"]),
        words=(10, 300),
    )
    answer = source.choice(topic["answers"])
    return Example("open_qa", question, "", answer, check, wording)


def _with_phrases(source: Source, question: str) -> str:
    wordings = data("topics")["wordings"]
    if source.chance(0.15):
        before = source.choice(wordings["before"])
        question = before + (lower_first(question) if before[-2] in ",:" else question)
    if source.chance(0.12):
        question += source.choice(wordings["after"])
    return question


def _capital(source: Source) -> Example:
    rows = data("topics")
    country, capital = source.choice(list(rows["capitals"].items()))
    wording = source.wording(rows["wordings"]["capital"])
    question = upper_first(fill(wording, c=country))
    answer = upper_first(
        fill(source.choice(rows["wordings"]["capital_answers"]), c=country, v=capital)
    )
    return Example(
        "open_qa",
        _with_phrases(source, question),
        "",
        answer,
        Check(needs=((capital,), (country,))),
        f"{wording} [capital]",
    )
