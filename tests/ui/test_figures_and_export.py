"""The line of figures below an answer, and exported answers."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from core.catalogue import Precision
from core.errors import GenerationError
from core.hardware.devices import ProcessMemory
from core.inference.answer import Answer, StopReason
from core.inference.conversations import Details, Exchange
from core.inference.timing import measure
from core.runtimes.base import Conditions
from core.runtimes.pool import LoadFacts
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.ui.compare.columns import figures_line
from core.ui.instruct.export import to_json, to_markdown

SPEC = ModelSpec("paddock-neox", Precision.INT4, "AUTO")
ANSWER = Answer(
    text="Quiet ``` and $x$.",
    token_ids=(5, 6, 0),
    token_times_ms=(100.0, 150.0, 200.0),
    stop_reason=StopReason.STOP_MARKER,
    seed=7,
    prompt_format="dolly",
    timings=measure(1.0, 2.0, 2.25, 40, (2.1, 2.15, 2.2)),
    conditions=Conditions("f32", "u8", ("CPU",), 2, {}),
    facts=LoadFacts(1.5, ProcessMemory(3 * 2**20, 2**20, 4 * 2**20)),
)
EXCHANGE = Exchange(
    id="1",
    asked_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    instruction="Why <b>rain</b>?",
    context="A ~~~ passage",
    details=Details(SPEC, "Paddock NeoX", SamplingSettings(seed=7)),
    answer=ANSWER,
)


def line(answer: Answer) -> str:
    """Return the line of figures without emphasis."""
    return figures_line(answer).replace("**", "")


def test_line_has_the_most_important_figures() -> None:
    assert line(ANSWER) == "20.0 tokens/s · 3 tokens · TTFT 100 ms · ended: stop marker"
    cut = replace(ANSWER, stop_reason=StopReason.LENGTH)
    assert line(cut) == "20.0 tokens/s · TTFT 100 ms · cut off at 3 tokens"
    assert line(replace(ANSWER, contended=True)).endswith("measured while busy")


def test_unknown_figures_are_omitted() -> None:
    one = replace(ANSWER, timings=measure(1.0, 2.0, 2.25, 40, (2.1,)))
    assert line(one).startswith("1 token · TTFT")
    none = replace(ANSWER, timings=measure(1.0, 2.0, 2.0, 40, ()), stop_reason=StopReason.CANCELLED)
    assert line(none) == "0 tokens · ended: cancelled"
    failed = Answer("", (), (), StopReason.ERROR, None, error=GenerationError("It failed."))
    assert line(failed) == "ended: error"


def test_weights_are_named_if_the_precision_is_not_specific_enough() -> None:
    entry = replace(EXCHANGE, answer=replace(ANSWER, weights="INT4 from Q4_1"))
    assert json.loads(to_json([entry]))[0]["weights"] == "INT4 from Q4_1"
    assert "- Model: Paddock NeoX · INT4 from Q4_1\n" in to_markdown([entry])


def test_json_export_has_request_answer_and_conditions() -> None:
    (entry,) = json.loads(to_json([EXCHANGE]))
    assert (entry["instruction"], entry["context"]) == ("Why <b>rain</b>?", "A ~~~ passage")
    assert entry["answer"]["text"] == ANSWER.text
    assert round(entry["answer"]["decode_tokens_per_s"], 6) == 20
    assert entry["answer"]["execution_precision"] == "f32"
    assert entry["sampling"]["seed"] == 7
    assert entry["asked_at"] == "2026-01-02T03:04:05+00:00"


def test_markdown_export_is_inert_and_complete() -> None:
    from markdown_it import MarkdownIt

    failed = replace(
        ANSWER, stop_reason=StopReason.ERROR, error=GenerationError("It failed."), text=""
    )
    text = to_markdown([EXCHANGE, replace(EXCHANGE, answer=failed)])
    fences = [token.content for token in MarkdownIt().parse(text) if token.type == "fence"]
    assert fences[:3] == ["Why <b>rain</b>?\n", "A ~~~ passage\n", "Quiet ``` and $x$.\n"]
    assert "- Decode: 20.0 tokens/s" in text
    assert "- Error: It failed." in text
