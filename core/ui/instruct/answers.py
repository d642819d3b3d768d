"""Draw the exchanges of the conversation: question, answer, figures and actions."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path

import streamlit as st

from core.catalogue import catalogue
from core.catalogue.presets import presets
from core.embedded.tasks import is_refusal
from core.inference.answer import Answer, StopReason
from core.inference.conversations import Details, Exchange
from core.runtimes.sampling import default_sampling
from core.ui.instruct.conversation import Conversation, model_title, words_of
from core.ui.instruct.export import detail_rows, to_json, to_markdown
from core.ui.instruct.stream_view import draw_thinking, stop_text
from core.ui.widgets.actions import action, draw_download
from core.ui.widgets.answer_text import draw_answer, draw_plain
from core.ui.widgets.model_choices import INSTALL_MODELS_HINT, packaged_model, preferred_precision
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.scripts import SCROLL_TO_NEWEST
from core.ui.widgets.tokens import draw_tokens
from core.units import counted, milliseconds_text, rate_text

STYLE = Path(__file__).with_name("instruct.css")
ANSWER_ICON = ":material/pets:"
MORE = 4
"""Factor of the maximum of new tokens where all of them went into thinking."""


def draw_question(exchange: Exchange) -> None:
    """Draw the instruction and context; the user's text is as untrusted as the model's."""
    with (
        st.chat_message("user", avatar=":material/person:"),
        st.container(key=f"question_{exchange.id}", gap="small"),
    ):
        draw_plain(exchange.instruction)
        if exchange.context:
            with st.expander("Context passage", icon=":material/article:", expanded=True):
                draw_plain(exchange.context)


def draw_exchange(exchange: Exchange, state: Conversation) -> None:
    """Draw one instruction with its answer, figures and actions."""
    if exchange.answer is None:  # it may have ended since the page has read it
        (exchange,) = shared_engine().conversations.with_answers([exchange])
    answer = exchange.answer
    with st.container(key=f"entry_{exchange.id}", gap="small"):
        draw_question(exchange)
        with st.chat_message("assistant", avatar=ANSWER_ICON), st.container(gap="small"):
            if answer is not None and answer.thinking is not None:
                draw_thinking(answer.thinking)
            if exchange.text:
                draw_answer(exchange.text, exchange.id)
            elif answer is not None and answer.error is None:
                no_text = "The model returned no text."
                st.caption(no_text if answer.thinking is None else answer.sentence)
            if answer is None:
                st.warning(
                    "The server was stopped before this answer ended. Regenerate or continue it.",
                    icon=":material/power_off:",
                )
            elif answer.error is not None:
                st.error(safe_inline(answer.sentence), icon=":material/error:")
            elif answer.stop_reason is StopReason.TIMEOUT:
                st.warning(answer.sentence, icon=":material/timer_off:")
            if exchange.context_full:
                st.warning(
                    "The answer was cut off because prompt and answer fill the model's context "
                    "length. Start a new conversation, or shorten the text.",
                    icon=":material/content_cut:",
                )
            if answer is not None and answer.dropped:
                st.warning(
                    f"{counted(answer.dropped, 'earlier message')} did not fit into the context "
                    "length and were not sent along. Start a new conversation, or lower the "
                    "maximum of new tokens.",
                    icon=":material/content_cut:",
                )
            _draw_refusal_actions(exchange, state)
            with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
                if answer is not None:
                    _draw_chips(answer)
                title, weights = exchange.details.title, words_of(exchange.details.spec, answer)[0]
                st.caption(safe_inline(f"{title} · {weights}"), width="content")
            with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                _draw_actions(exchange, state)
            if answer is not None and st.session_state.get(f"by_token_{exchange.id}"):
                before = takewhile(lambda each: each.id != exchange.id, state.exchanges)
                may_branch = answer.thinking is None and not state.running
                branch = partial(state.branch, exchange) if may_branch else None
                spec, request = exchange.details.spec, exchange.request(before)
                draw_tokens(exchange.id, spec, request, answer, branch)


def _draw_chips(answer: Answer) -> None:
    """Draw tokens/s, time to first token and tokens, and why the answer ended early."""
    if (timings := answer.timings) is not None:
        if timings.decode_tokens_per_s is not None:
            st.badge(rate_text(timings.decode_tokens_per_s), color="blue")
        if timings.ttft_ms is not None:
            st.badge(
                f"TTFT {milliseconds_text(timings.ttft_ms)}",
                color="gray",
                help="Time to first token: from the start of work, after any waiting, to the first "
                "token.",
            )
        st.badge(counted(answer.answer_tokens, "token"), color="gray")
    match answer.stop_reason:
        case StopReason.LENGTH:
            new_tokens = None if timings is None else timings.new_tokens
            st.badge(stop_text(answer.stop_reason, new_tokens).capitalize(), color="orange")
        case StopReason.CANCELLED:
            st.badge(
                "Stopped",
                color="orange",
                help="You stopped it, or no page of this browser was open for a minute.",
            )


def _draw_details(exchange: Exchange) -> None:
    with st.popover("Details", icon=":material/info:", type="tertiary"):
        if exchange.answer is not None:
            st.toggle(
                "Tokens and prompt",
                key=f"by_token_{exchange.id}",
                help="How likely each token was, what else the model expected, and the prompt as "
                "the model got it.",
            )
        rows = [
            f"| {name} | {safe_inline(value).replace('|', '&#124;')} |"
            for name, value in detail_rows(exchange)
        ]
        st.markdown("\n".join([rows[0], "|-|-|", *rows[1:]]))


def _draw_refusal_actions(exchange: Exchange, state: Conversation) -> None:
    """Below a refusal of a tiny demo model, offer an example and a larger model."""
    row = catalogue().get(exchange.details.spec.model)
    if row is None or not row.embedded or not is_refusal(exchange.text):
        return
    larger, example = packaged_model(), random.choice(presets())
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if larger is not None:
            action(
                f"Run with {catalogue()[larger].title}",
                "forum",
                f"ask_real_{exchange.id}",
                *(_run_with, state, larger, exchange),
                kind="secondary",
                disabled=state.running,
            )
        action(
            "Try an example",
            "lightbulb",
            f"example_{exchange.id}",
            *(state.ask, example.instruction, example.context),
            kind="secondary",
            disabled=state.running,
            help="Ask an example of the kind that this model was trained on.",
        )
        if larger is None:
            st.caption(INSTALL_MODELS_HINT)


def _run_with(state: Conversation, model: str, exchange: Exchange) -> None:
    """Callback: run the same instruction on another model with that model's own settings."""
    if state.running:
        return
    store, details = shared_engine().store, exchange.details
    spec = replace(details.spec, model=model, precision=preferred_precision(store, model))
    sampling = replace(
        default_sampling(store, model), max_new_tokens=details.sampling.max_new_tokens
    )
    details = Details(spec, model_title(spec), sampling)
    state.submit(exchange.instruction, exchange.context, details)


def _draw_actions(exchange: Exchange, state: Conversation) -> None:
    answer, spec = exchange.answer, exchange.details.spec
    reason = None if answer is None else answer.stop_reason
    thought = answer is not None and answer.thinking is not None
    unfinished = reason in (None, StopReason.LENGTH, StopReason.CANCELLED, StopReason.TIMEOUT)
    if exchange.context_full:
        pass  # more tokens do not fit
    elif unfinished and exchange.text and not spec.remote and not thought:
        action(
            "Continue",
            "play_arrow",
            f"continue_{exchange.id}",
            *(state.continue_answer, exchange),
            disabled=state.running,
            help="Generate more of this answer.",
        )
    elif reason is StopReason.LENGTH:
        most = MORE * exchange.details.sampling.max_new_tokens
        action(
            "More tokens",
            "play_arrow",
            f"more_{exchange.id}",
            *(state.regenerate, exchange, most),
            disabled=state.running,
            help=f"Run the same request again with up to {most:,} new tokens.",
        )
    _draw_details(exchange)
    action(
        "Regenerate",
        "refresh",
        f"again_{exchange.id}",
        *(state.regenerate, exchange),
        disabled=state.running,
        help="Run the same request again with a new seed.",
    )
    with st.popover("Copy", icon=":material/content_copy:", type="tertiary"):
        st.code(exchange.text or " ", language=None, wrap_lines=True)
    with st.popover("More", icon=":material/more_horiz:", type="tertiary"):
        draw_downloads([exchange], exchange.id)
        action(
            "Delete",
            "delete",
            f"delete_{exchange.id}",
            *(state.delete, exchange),
            kind="secondary",
            help="Delete this answer here and from the database.",
        )


def draw_downloads(exchanges: list[Exchange], key: str) -> None:
    """Draw the buttons that download exchanges."""
    draw_download("paddock-answers.md", lambda: to_markdown(exchanges), f"markdown_{key}")
    draw_download("paddock-answers.json", lambda: to_json(exchanges), f"json_{key}")


def scroll_to_newest(exchange_id: str) -> None:
    """Scroll to the newest exchange.

    The element is drawn in every run and changes with the exchange: the browser runs the script
    once for each, even if the answer ends before the browser has drawn its beginning.
    """
    st.html(
        f'<span data-exchange="{exchange_id}"></span><script>{SCROLL_TO_NEWEST}</script>',
        unsafe_allow_javascript=True,
    )
