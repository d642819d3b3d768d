"""Tokens of an answer with speculation: the accepted guesses are marked."""

from __future__ import annotations

import math
from dataclasses import replace

from streamlit.testing.v1 import AppTest

from core.inference.answer import Answer
from core.inference.answer_tokens import AnswerTokens
from core.inference.request import GenerationRequest
from core.inference.timing import measure
from core.inference.token_probabilities import TokenProbability
from core.runtimes.token_text import TokenText
from tests.ui.test_figures_and_export import ANSWER, SPEC
from tests.waiting import PATIENCE_S


def drawn(answer: Answer, words: tuple[str, ...]) -> AppTest:
    """Return an app with the tokens of an answer, all of them as likely as can be."""
    texts = [TokenText(number, word, word.encode()) for number, word in enumerate(words)]
    tokens = tuple(TokenProbability(text, math.log(0.99), ()) for text in texts)
    app = AppTest.from_string(
        "import streamlit as st\n"
        "from core.ui.widgets.tokens import draw_tokens\n"
        "state = st.session_state\n"
        "draw_tokens('key', state.spec, state.request, state.answer)",
        default_timeout=PATIENCE_S,
    )
    for name, value in {
        "answer_tokens": {"key": AnswerTokens((), tokens)},
        "spec": SPEC,
        "request": GenerationRequest("Why?"),
        "answer": answer,
    }.items():
        app.session_state[name] = value
    app.run()
    assert not app.exception
    return app


def html(app: AppTest) -> str:
    return "\n".join(each.proto.body for each in app.get("html"))


def test_accepted_guesses_are_marked_beside_their_figures():
    stamps = (2.1, 2.2, 2.2, 2.2, 2.3)  # a step of three tokens, the last of them the model's own
    timings = measure(1.0, 2.0, 2.4, 40, stamps, draft_tokens=8)
    times = tuple(1000 * (each - 2) for each in stamps)
    answer = replace(ANSWER, token_ids=(1, 2, 3, 4, 5), token_times_ms=times, timings=timings)
    app = drawn(answer, ("So", " it", " is", " so", ",", " yes"))  # "So" was given
    assert "Probability" in html(app) and "accepted guess" not in html(app)
    app.segmented_control(key="mark_key").set_value("Guesses").run()
    assert "1.7 tokens per step, 25 % of guesses accepted" in html(app)
    (rule,) = [
        each for each in html(app).split("}") if "border-bottom:2px solid" in each and "nth" in each
    ]
    assert [number in rule for number in ("(2)", "(3)", "(4)", "(5)", "(6)")] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_without_guesses_there_is_nothing_to_choose():
    app = drawn(ANSWER, ("So", " it", " is"))
    assert not app.segmented_control and "Probability" in html(app)
