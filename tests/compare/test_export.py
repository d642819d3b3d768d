"""Exports of a comparison: complete, reproducible, and without active content."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from core.compare.export import to_csv, to_html, to_json, to_markdown
from core.compare.match import Match
from core.compare.report import MatchReport, describe
from core.compare.setup import Mode, Setup
from core.inference.answer import Answer, StopReason
from core.inference.request import GenerationRequest
from core.settings import Settings
from core.store import ModelStore
from tests.compare.answers import answer, report
from tests.compare.conftest import GREEDY, PATIENCE_S, USER, OutOfOrder, Stable, spec

HOSTILE = (
    "<script>alert(1)</script>",
    "</style></title></textarea><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<svg/onload=alert(1)>",
    "&lt;b&gt; &amp; &#60;i&#62; &quot;",
    "<!-- --> <![CDATA[ x ]]> <?php ?>",
    "javascript:alert(1) [x](javascript:alert(1)) ![x](http://evil/x.png)",
    "<http://evil> https://evil www.evil.example",
    "```\nout\n```\n<b>x</b>",
    "````text\n````\n# heading",
    "` `` ``` a`b",
    "| a | b |\n|---|---|\n| c | d |",
    "# heading\n\n---\n\n1. list\n    code",
    "\n\n\n<div>\n\n</div>",
    "a\rb\r\nc\x0bd\x0ce\x85f\u2028g\u2029h",
    "\x00\x01\x1b[31m\x7f\x9f\ufffe",
    "\u202eevil\u202c \u2066x\u2069 \ufeff",
    "\ud800 half \udfff",
    "𝕏 👩‍👩‍👧‍👦 ́́́",
    "</polyline></svg><text>",
    "\\",
    "{{ x }} ${x} <%= x %>",
    " ",
)
TAGS = re.compile(
    r"html|head|meta|title|style|body|h[123]|p|br|div|section|span|bdi|table|thead|tbody|t[rhd]|"
    r"d[ldt]|figure|figcaption|svg|g|line|text|polyline|circle|del|ins"
)
ATTRIBUTES = re.compile(
    r"lang|charset|http-equiv|content|name|class|dir|viewbox|role|aria-label|[xy][12]?|"
    r"text-anchor|points|c[xy]|r"
)


class Reader(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.other: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    unknown_decl = handle_pi = handle_comment

    @property
    def structure(self) -> list[str]:
        """The tags without those of the diff, whose number depends on the words."""
        return [tag for tag in self.tags if tag not in ("del", "ins")]

    @property
    def text(self) -> str:
        return "".join(self.texts)


def filled_with(text: str) -> MatchReport:
    """Return a report in which every untrusted field has this text."""
    failed = answer(text, reason=StopReason.ERROR, error=OutOfOrder(text), prompt_format=text)
    return report(
        [answer(f"{text} the first", prompt_format=text), failed],
        titles=(text, f"{text} too"),
        instruction=text,
        context=text,
        errors=(None, text),
        verdict=text,
    )


def shown(text: str) -> str:
    """Return the text as shown on a page: unified line ends, invalid characters replaced."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


# HTML


@pytest.mark.parametrize("text", HOSTILE, ids=repr)
def test_hostile_text_is_escaped_in_html(text: str):
    page = to_html(filled_with(text))
    page.encode("utf-8")
    read, harmless = Reader(page), Reader(to_html(filled_with("Plain words.")))
    assert read.structure == harmless.structure and read.attributes == harmless.attributes
    assert read.other == []
    assert read.text.count(shown(text)) >= 6


@settings(max_examples=60)
@given(st.text(), st.sampled_from(HOSTILE), st.text())
def test_any_text_is_escaped_in_html(before: str, hostile: str, after: str):
    text = before + hostile + after
    read = Reader(to_html(filled_with(text)))
    assert read.structure == Reader(to_html(filled_with("Plain words."))).structure
    assert shown(text) in read.text


def test_html_has_no_scripts_and_no_external_resources():
    page = to_html(filled_with("Plain words."))
    read = Reader(page)
    assert all(TAGS.fullmatch(tag) for tag in read.tags)
    assert all(ATTRIBUTES.fullmatch(name) for name in read.attributes)
    assert "url(" not in page and "@import" not in page and "://" not in page
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page


def test_html_contains_all_results():
    fast = answer("The cat sleeps.", (1, 2, 3, 4, 0), gap_s=0.01)
    slow = answer("The cat eats.", (1, 2, 9, 4, 0), gap_s=0.02, contended=True)
    found = report(
        [fast, slow], instruction="What now?", context="It rains.", verdict="A is better: shorter."
    )
    page = to_html(found)
    text = Reader(page).text
    for part in (
        "What now?",
        "It rains.",
        "The cat sleeps.",
        "The cat eats.",
        "A is better: shorter.",
        "Paddock NeoX · INT8 · AUTO → CPU · GenAI",
        "2026-01-02 03:04:05 UTC",
        "seed 7",
        "100.0 tokens/s",
        "A: 2.00 × as fast",
        "Time to first token",
        "The answers diverge at token 3",
        "2 tokens of 5 are the same as in the reference (40%)",
        "Measured while busy: other work ran at the same time",
        "executed in f32",
        "KV cache in u8",
        "2 threads",
        "a processor",
        "openvino 2026.4.1",
        "growth of the app's process",
    ):
        assert part in text, part
    assert '<del class="A">sleeps</del>' in page and '<ins class="B">eats</ins>' in page
    assert page.count("<polyline") == 2
    assert "host," not in text  # an exported page does not name the machine


def test_measured_while_busy_is_shown_only_if_busy():
    calm = to_html(report([answer(), answer(gap_s=0.02)]))
    assert "measured while busy" not in calm.lower()
    marked = to_html(report([answer(contended=True), answer(gap_s=0.02)]))
    assert marked.count("(measured while busy)") == 3 and "Measured while busy:" in marked


def test_medians_are_labelled():
    found = report([answer(), answer(gap_s=0.02)], again=8)
    for text in (to_markdown(found), to_html(found)):
        assert "medians of several answers (9 of A, 9 of B)" in text
        assert text.count("medians of 9") == 2
    assert [side["figures"]["timed_answers"] for side in json.loads(to_json(found))["sides"]] == [
        9,
        9,
    ]
    once = report([answer(), answer(gap_s=0.02)])
    assert "medians" not in to_markdown(once) and "medians" not in to_html(once)


def test_sides_with_the_cores_apart_are_named():
    found = report([answer(), answer(gap_s=0.02), answer(gap_s=0.03)], apart=(1, 2))
    for text in (to_markdown(found), to_html(found)):
        assert "(measured while busy)" in text and "other work ran" not in text
        assert "during the answers of B and C, this machine" in text
        assert text.count("cores apart") >= 2
    document = json.loads(to_json(found))
    assert document["contended"] and document["comparison"][0]["contended"]
    assert [side["figures"]["cores_apart"] for side in document["sides"]] == [False, True, True]
    assert [side["figures"]["contended"] for side in document["sides"]] == [False] * 3


def test_an_answer_from_another_token_is_named():
    found = report([answer(), answer(gap_s=0.02)])
    first, second = found.sides
    second = replace(second, request=replace(second.request, continues="It was"))
    found = replace(found, sides=(first, second))
    for text in (to_markdown(found), to_html(found)):
        assert "The answer of B was continued from another token" in text
    assert [side["continues"] for side in json.loads(to_json(found))["sides"]] == ["", "It was"]


@pytest.mark.parametrize(
    "answers",
    [
        [None, None],
        [Answer("", (), (), StopReason.CANCELLED, None), None],
        [answer(ids=(0,)), answer()],
        [answer(), answer(), None, answer("Other words here.", (1, 9))],
    ],
)
def test_incomplete_comparisons(answers: list[Answer | None]):
    found = report(answers, mode=Mode.RACE)
    missing = answers.count(None)
    for written in (to_html(found), to_markdown(found)):
        assert written.count("Not started.") == missing
    assert to_json(found).count('"figures": null') == missing
    assert Reader(to_html(found)).tags.count("section") == len(answers)


# Markdown


def rendered(text: str) -> Iterator[str]:
    """Yield the token types of a Markdown text."""
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        yield token.type
        yield from (child.type for child in token.children or [])


@pytest.mark.parametrize("text", HOSTILE, ids=repr)
def test_hostile_text_is_code_in_markdown(text: str):
    written = to_markdown(filled_with(text))
    written.encode("utf-8")
    harmless = to_markdown(filled_with("Plain words."))
    assert list(rendered(written)) == list(rendered(harmless))
    assert not {"html_block", "html_inline", "link_open", "image"} & set(rendered(written))


def test_markdown_contains_all_results():
    found = report(
        [answer("The cat sleeps.", gap_s=0.01), answer("The cat eats.", (1, 9, 0), gap_s=0.02)],
        context="It rains.",
    )
    written = to_markdown(found)
    for part in (
        "Why?",
        "It rains.",
        "The cat sleeps.",
        "The cat eats.",
        "seed 7",
        "diverge at token 2",
    ):
        assert part in written
    assert re.search(r"^\| Decode rate \|.*\| \*\*A\*\*: 2\.00 × as fast \|$", written, re.M)


# JSON


def test_json_contains_unrounded_figures():
    found = report([answer(gap_s=0.01), answer(gap_s=0.02, contended=True)], verdict="A is better.")
    document = json.loads(to_json(found))
    side = document["sides"][0]
    assert side["figures"]["ttft_ms"] == found.sides[0].figures.ttft_ms
    assert side["figures"]["memory_private_bytes"] == 300 * 2**20
    assert len(side["token_times_ms"]) == side["figures"]["new_tokens"] == 4
    assert document["contended"] and document["verdict"] == "A is better."
    rate = document["comparison"][0]
    assert (rate["measure"], rate["winner"], rate["contended"]) == (
        "decode_tokens_per_s",
        "A",
        True,
    )
    assert document["pairs"][0]["divergence"]["index"] is None
    assert document["versions"] == {"openvino": "2026.4.1"}


@pytest.mark.parametrize("text", HOSTILE, ids=repr)
def test_json_keeps_any_text(text: str):
    written = to_json(filled_with(text))
    written.encode("utf-8")
    expected = re.sub(r"[\ud800-\udfff]", "\ufffd", text)
    assert json.loads(written)["instruction"] == expected


# A real comparison


def test_exports_of_a_comparison_are_reproducible(stable: Stable, tmp_path: Path):
    stable.add("one", "The cat is playing.")
    stable.failures["two"] = OutOfOrder("It is closed; open it.")
    stable.add("three", "The cat is in the garden.")
    names = ("one", "two", "three")
    setup = Setup(
        tuple(map(spec, names)), GenerationRequest("Why?", "It rains.", GREEDY), Mode.FAIR
    )
    match = Match(setup, stable, USER)
    assert match.wait(PATIENCE_S)
    store = ModelStore(Settings(home=tmp_path))
    for write in (to_html, to_json, to_markdown):
        assert write(describe(match, store)) == write(describe(match, store))
    found = describe(match, store, verdict="B is better.")
    assert [side.title for side in found.sides] == list(names)
    assert found.sides[1].error == "It is closed; open it." and found.sides[1].figures is None
    assert found.pairs == (), "they are different models"
    page = Reader(to_html(found)).text
    assert "It is closed; open it." in page and "The cat is in the garden." in page
    assert "B is better." in page


# Lists


def test_a_list_is_exported_whole():
    reports = [report([answer("Rain."), answer("=cmd")]), report([answer("Sun."), None])]
    table = to_csv(*reports)
    assert table.encode().startswith(b"\xef\xbb\xbf"), "spreadsheets read it as UTF-8"
    rows = list(csv.DictReader(io.StringIO(table.removeprefix("\ufeff"))))
    assert [(row["number"], row["side"]) for row in rows] == [
        ("1", "A"),
        ("1", "B"),
        ("2", "A"),
        ("2", "B"),
    ]
    assert [row["answer"] for row in rows] == ["Rain.", "'=cmd", "Sun.", ""]
    assert rows[3]["tokens"] == ""
    assert [len(each["sides"]) for each in json.loads(to_json(*reports, as_list=True))] == [2, 2]
    assert to_markdown(*reports).count("## Instruction") == 2
    html = to_html(*reports)
    assert html.count("<h2>Instruction</h2>") == 2 and html.count("</html>") == 1
