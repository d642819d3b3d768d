"""Conversations: stored answers, follow-ups, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from core.catalogue import Precision
from core.catalogue.chat_template import Role, Turn, without_oldest
from core.db import ExchangeRow, Holder, Origin
from core.db.columns import storable
from core.errors import GenerationError
from core.inference.answer import StopReason, Thinking
from core.inference.conversations import (
    Exchange,
    answer_from_json,
    answer_to_json,
    earlier_turns,
)
from core.inference.engine import ABANDONED_S, Engine
from core.inference.request import GenerationRequest, User
from core.inference.timing import measure
from core.runtimes.spec import ModelSpec, SamplingSettings
from tests.ui.test_figures_and_export import ANSWER, EXCHANGE
from tests.waiting import PATIENCE_S

U, A, S = Role.USER, Role.ASSISTANT, Role.SYSTEM


def exchange(number: int, text: str = "", **details: object) -> Exchange:
    return Exchange(
        str(number),
        datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        f"Question {number}?",
        "",
        replace(EXCHANGE.details, **details),
        replace(ANSWER, text=text or f"Answer {number}."),
    )


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        replace(ANSWER, thinking=Thinking("Hm.", 3, 0.5), dropped=2, contended=True),
        replace(ANSWER, stop_reason=StopReason.ERROR, error=GenerationError("It failed.")),
        replace(ANSWER, timings=None, conditions=None, facts=None, seed=None),
    ],
)
def test_answer_is_the_same_after_it_was_stored(answer) -> None:
    plain = json.loads(json.dumps(storable(answer_to_json(answer))))
    read = answer_from_json(plain)
    assert read.error_sentence == answer.error_sentence
    ids = {"token_times_ms": (), "error": None}
    assert replace(read, error=None) == replace(answer, **ids)


def test_accepted_guesses_are_known_after_an_answer_was_stored() -> None:
    stamps = (2.1, 2.1, 2.2)  # a step of two tokens, the first of them guessed, and one of one
    timings = measure(1.0, 2.0, 2.25, 40, stamps, draft_tokens=2)
    times = tuple(1000 * (each - 2) for each in stamps)
    answer = replace(ANSWER, token_times_ms=times, timings=timings)
    assert answer.accepted_guesses == [True, False, False]
    read = answer_from_json(json.loads(json.dumps(answer_to_json(answer))))
    assert read.accepted_guesses == [True, False, False]
    assert ANSWER.accepted_guesses == []


def test_follow_up_sends_earlier_exchanges_without_thoughts_and_replaced_answers() -> None:
    first = exchange(1)
    again = exchange(2, "Better\x12.", replaces="1")  # a control character, which no request has
    thinker = replace(exchange(3), answer=replace(ANSWER, text="4", thinking=Thinking("?", 1, 1.0)))
    interrupted = replace(exchange(4), answer=None)
    turns = earlier_turns([first, again, thinker, interrupted], "Be brief.")
    assert [(turn.role, turn.text) for turn in turns] == [
        (S, "Be brief."),
        (U, "Question 2?"),
        (A, "Better."),
        (U, "Question 3?"),
        (A, "4"),
    ]


def test_request_of_an_exchange_follows_its_own_settings() -> None:
    alone = exchange(2).request([exchange(1)])
    assert alone.earlier == () and alone.continues == ""
    follow_up = exchange(2, follow_up=True, prefix="Answer").request([exchange(1)])
    assert [turn.text for turn in follow_up.earlier] == ["Question 1?", "Answer 1."]
    assert follow_up.continues == "Answer"
    assert exchange(2, " two.", prefix="Answer").text == "Answer two."


def test_answer_that_the_context_length_ended_is_known_by_its_tokens() -> None:
    new = ANSWER.timings.new_tokens
    for stop_reason, most, full in (
        (StopReason.LENGTH, new + 1, True),
        (StopReason.LENGTH, new, False),
        (StopReason.END_OF_TEXT, new + 1, False),
    ):
        each = exchange(1, sampling=SamplingSettings(max_new_tokens=most))
        assert replace(each, answer=replace(ANSWER, stop_reason=stop_reason)).context_full == full


def test_oldest_exchange_is_dropped_first_and_the_system_prompt_last() -> None:
    turns = (Turn(S, "s"), Turn(U, "1"), Turn(A, "one"), Turn(U, "2"), Turn(A, "two"))
    assert [turn.text for turn in without_oldest(turns)] == ["s", "2", "two"]
    assert [turn.text for turn in without_oldest(without_oldest(turns))] == ["s"]
    assert without_oldest((Turn(S, "s"),)) == (Turn(S, "s"),)


class RunningJob:
    """Stand-in for a job that goes on until it is cancelled."""

    done = cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def test_answer_that_is_stored_after_its_exchange_was_read_is_found(engine: Engine) -> None:
    kept, me = engine.conversations, Holder("guest", "a reader")
    row = ExchangeRow("read-before", EXCHANGE.asked_at, "Why?", "", asdict(EXCHANGE.details))
    (before,) = kept.read(kept.store.add(None, row, me), me)
    assert before.answer is None
    kept.store.finish(before.id, run=None, text=ANSWER.text, answer=answer_to_json(ANSWER))
    (after,) = kept.with_answers([before])
    assert after.answer is not None and after.answer.text == ANSWER.text


def test_guest_without_an_open_page_for_a_minute_is_cancelled(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("core.inference.engine.time.monotonic", lambda: now)
    left, stays, program = RunningJob(), RunningJob(), RunningJob()
    jobs = {left: User(browser="left"), stays: User(browser="stays"), program: User()}
    monkeypatch.setattr(engine, "_jobs", jobs)
    engine.cancel_abandoned(["left", "stays"])
    now += ABANDONED_S - 1
    engine.cancel_abandoned(["stays"])
    assert not left.cancelled
    now += 1
    engine.cancel_abandoned(["stays"])
    assert left.cancelled and not stays.cancelled and not program.cancelled


@pytest.mark.usefixtures("convert_here")
def test_second_turn_takes_its_beginning_from_the_prefix_cache(engine: Engine) -> None:
    spec = ModelSpec("paddock-llama", Precision.INT8, "CPU", prefix_cache=True)
    sampling = SamplingSettings(max_new_tokens=4, greedy=True)
    history = (Turn(U, "A long story about a cat. " * 30), Turn(A, "Yes."))
    cached: list[int | None] = []
    for request in (
        GenerationRequest("Go on.", sampling=sampling, earlier=history),
        GenerationRequest("Go on!", sampling=sampling, earlier=history),
    ):
        job = engine.answer(engine.handle(spec), request, origin=Origin.CLI, recorded=False)
        assert job.wait(PATIENCE_S) and job.answer is not None and job.answer.timings is not None
        cached.append(job.answer.timings.cached_tokens)
    assert cached[0] == 0 and cached[1] is not None and cached[1] >= 32
    job = engine.answer(
        engine.handle(replace(spec, prefix_cache=False)), request, origin=Origin.CLI, recorded=False
    )
    assert job.wait(PATIENCE_S) and job.answer is not None and job.answer.timings is not None
    assert job.answer.timings.cached_tokens is None, "comparisons and benchmarks do without"
