"""The line of figures below an answer, and exported answers."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from core.catalogue import Precision
from core.errors import GenerationError
from core.hardware.devices import ProcessMemory
from core.inference.answer import Answer, StopReason
from core.inference.request import GenerationRequest
from core.inference.timing import measure
from core.runtimes.base import Conditions
from core.runtimes.pool import LoadFacts
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.ui.instruct.export import to_json, to_markdown
from core.ui.instruct.history import HistoryEntry
from core.ui.instruct.stream_view import figures_line

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
ENTRY = HistoryEntry(
    id="1",
    asked_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    request=GenerationRequest("Why <b>rain</b>?", "A ~~~ passage", SamplingSettings(seed=7)),
    spec=SPEC,
    title="Paddock NeoX",
    answer=ANSWER,
    run_id=None,
)


def line(answer: Answer, spec: ModelSpec = SPEC) -> str:
    """Return the line of figures without emphasis."""
    return figures_line(answer, spec, "Paddock NeoX").replace("**", "")


def test_line_has_all_figures() -> None:
    assert line(ANSWER) == (
        "TTFT 100 ms · 20.0 tokens/s · 3 tokens · ended: stop marker · memory 3.1 MB private + "
        "1.0 MB file-backed · Paddock NeoX · INT4 · AUTO → CPU · GenAI · seed 7"
    )


def test_unknown_figures_are_omitted() -> None:
    one = replace(ANSWER, timings=measure(1.0, 2.0, 2.25, 40, (2.1,)))
    assert "1 token ·" in line(one)
    assert "20.0" not in line(one)
    none = replace(ANSWER, timings=measure(1.0, 2.0, 2.0, 40, ()), stop_reason=StopReason.CANCELLED)
    assert line(none).startswith("0 tokens · ended: cancelled")
    failed = Answer("", (), (), StopReason.ERROR, None, error=GenerationError("It failed."))
    assert line(failed) == "ended: error · Paddock NeoX · INT4 · AUTO · GenAI"


def test_timings_measured_while_busy_are_marked() -> None:
    assert "measured while busy" in line(replace(ANSWER, contended=True))
    assert "measured while busy" not in line(ANSWER)


def test_cut_off_answer_states_the_number_of_tokens() -> None:
    assert "· 3 tokens · cut off at 3 tokens ·" in line(
        replace(ANSWER, stop_reason=StopReason.LENGTH)
    )


def test_weights_are_named_if_the_precision_is_not_specific_enough() -> None:
    answer = replace(ANSWER, weights="INT4 from Q4_1")
    assert "· Paddock NeoX · INT4 from Q4_1 · AUTO" in line(answer)
    entry = replace(ENTRY, answer=answer)
    assert json.loads(to_json([entry]))[0]["weights"] == "INT4 from Q4_1"
    assert "- Model: Paddock NeoX · INT4 from Q4_1 · AUTO" in to_markdown([entry])


def test_device_is_not_repeated_if_it_is_the_selected_one() -> None:
    assert "· CPU ·" in line(ANSWER, replace(SPEC, device="CPU"))


def test_json_export_has_request_answer_and_conditions() -> None:
    (entry,) = json.loads(to_json([ENTRY]))
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
    text = to_markdown([ENTRY, replace(ENTRY, answer=failed)])
    fences = [token.content for token in MarkdownIt().parse(text) if token.type == "fence"]
    assert fences[:3] == ["Why <b>rain</b>?\n", "A ~~~ passage\n", "Quiet ``` and $x$.\n"]
    assert "- Decode: 20.0 tokens/s" in text
    assert "- Error: It failed." in text
