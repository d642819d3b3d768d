"""Draw an answer by its tokens: their probabilities, their alternatives, and the prompt.

In an answer with speculation the accepted guesses can be marked instead of the probabilities.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import streamlit as st

from core.errors import PaddockError
from core.inference.answer import Answer
from core.inference.answer_tokens import AnswerTokens, answer_tokens, text_of
from core.inference.request import GenerationRequest, readable
from core.inference.token_probabilities import TokenProbability
from core.runtimes.spec import ModelSpec
from core.runtimes.token_text import TokenText
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.units import counted, speculation_text

OnChoose = Callable[[str], None]
"""Called with the beginning of the answer up to and including another token."""

PART = 300
"""Tokens that are drawn at once."""
KEPT = 8
"""Answers of a session whose tokens are kept."""
_LEVELS = (
    (0.9, "90 % and more", ""),
    (0.5, "50 %", "background:rgba(217,115,13,0.12);border-bottom:2px dotted #d9730d"),
    (0.2, "20 %", "background:rgba(217,115,13,0.28);border-bottom:2px dashed #d9730d"),
    (0.0, "less", "background:rgba(217,115,13,0.48);border-bottom:2px double #d9730d"),
)
"""Lowest probability, its name, and the style of its tokens; the underlines work without colour."""
_GUESSED = "background:rgba(11,103,178,0.16);border-bottom:2px solid #0b67b2"
_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"})
_LONGEST = 24
_NO_WIDTH = str.maketrans({"0": "\u200b", "1": "\u200c"})
_FIGURE_SPACE = "\u2007"
_NOT_PLAIN = re.compile("[^A-Za-z0-9 ]")
_CARD = (
    "content:var(--expected);position:fixed;top:anchor(bottom);left:anchor(left);"
    "position-try-fallbacks:flip-block,flip-inline,flip-block flip-inline;z-index:1000;"
    "white-space:pre;text-align:start;pointer-events:none;padding:4px 10px;margin:3px 0;"
    "border:1px solid var(--line);border-radius:6px;background:var(--surface);"
    "box-shadow:0 2px 8px rgb(0 0 0/0.25);font-size:0.875rem;line-height:1.5"
)
"""Style of the likeliest tokens below or above a token. Without anchors they are right of it."""


def label(token: TokenText) -> str:
    """Return a token for a label: white space is visible, and a long one is shortened."""
    text = token.text if token.special else token.text.translate(_VISIBLE)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def percent(share: float) -> str:
    """Return a share as percent, with two digits that count."""
    if share >= 0.1 or share == 0:
        return f"{100 * share:.1f} %"
    return f"{100 * share:.2f} %" if share >= 0.0001 else "< 0.01 %"


def numbered(text: str, number: int) -> str:
    """Return a label with its number in characters of no width.

    The browser tells options apart by their label only, and tokens occur several times.
    """
    return text + f"{number:b}".translate(_NO_WIDTH)


def draw_tokens(
    key: str,
    spec: ModelSpec,
    request: GenerationRequest,
    answer: Answer,
    on_choose: OnChoose | None = None,
) -> None:
    """Draw the tokens of an answer.

    Args:
        key: of the answer, unique on the page; the tokens are kept by it.
        on_choose: continues the answer with another token; None without that.
    """
    kept: dict[str, AnswerTokens] = st.session_state.setdefault("answer_tokens", {})
    if key not in kept:
        try:
            with st.spinner("Computing the probabilities"):
                kept[key] = answer_tokens(shared_engine(), spec, request, answer)
        except PaddockError as error:
            st.warning(safe_inline(str(error)), icon=":material/error:")
            return
        while len(kept) > KEPT:
            del kept[next(iter(kept))]
    found = kept[key]
    with st.container(key=f"tokens_{key}", gap="xsmall"):
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            guessed = _chosen_guesses(key, answer, len(found.tokens))
            st.html(_legend(answer if guessed else None))
            count = counted(len(found.prompt), "token")
            with st.popover(f"Prompt · {count}", icon=":material/terminal:", type="tertiary"):
                st.code(found.prompt_text, language=None, wrap_lines=True)
        parts = range(0, len(found.tokens), PART)
        begin = 0
        if len(parts) > 1:
            begin = st.segmented_control(
                "Tokens",
                parts,
                format_func=lambda at: f"{at + 1}–{min(at + PART, len(found.tokens))}",
                default=0,
                required=True,
                key=f"part_{key}",
            )
        shown = found.tokens[begin : begin + PART]
        pills = f"token_{key}_{begin}"
        st.html(_style(pills, shown, guessed[begin : begin + PART]))
        chosen = st.container(gap="xsmall")  # above the tokens, which may be many
        picked = st.pills(
            "Tokens of the answer",
            range(begin, begin + len(shown)),
            format_func=lambda at: numbered(_inline(found.tokens[at].token), at),
            label_visibility="collapsed",
            key=pills,
        )
        with chosen:
            if picked is None:
                st.caption("Select a token to see what else the model expected in its place.")
            else:
                spaced = (request.continues + answer.text)[:1].isspace()
                _draw_alternatives(key, found, picked, on_choose, spaced)


def _chosen_guesses(key: str, answer: Answer, tokens: int) -> list[bool]:
    """Let the user choose what is marked, if tokens were guessed.

    Returns:
        Whether each of the tokens was an accepted guess; empty if probabilities are to be marked.
    """
    guesses = answer.accepted_guesses
    if not guesses:
        return []
    marked = st.segmented_control(
        "Mark",
        ("Probability", "Guesses"),
        default="Probability",
        required=True,
        label_visibility="collapsed",
        key=f"mark_{key}",
    )
    # The tokens before the new ones are the beginning of a continued answer.
    return [False] * (tokens - len(guesses)) + guesses if marked == "Guesses" else []


def _legend(guessed: Answer | None) -> str:
    """Return what the marks mean: probabilities, or the accepted guesses of an answer."""

    def sample(name: str, style: str) -> str:
        return f"<span style='padding:0 3px;{style}'>{name}</span>"

    if guessed is None:
        samples = (sample(name, style) for _, name, style in _LEVELS)
        return f"<small>Probability {' '.join(samples)}</small>"
    timings = guessed.timings
    assert timings is not None and timings.tokens_per_step is not None, "tokens were guessed"
    found = speculation_text(timings.tokens_per_step, timings.acceptance_rate)
    return f"<small>{sample('accepted guess', _GUESSED)} the model's own · {found}</small>"


def _draw_alternatives(
    key: str, found: AnswerTokens, at: int, on_choose: OnChoose | None, spaced: bool
) -> None:
    """Draw the likeliest tokens at one place, each with a button to continue from it.

    Args:
        spaced: whether the answer begins with white space, which is otherwise not part of it.
    """
    here = found.tokens[at]
    name, share = safe_inline(label(here.token)), percent(math.exp(here.log_probability))
    st.markdown(f"Token {at + 1} of {len(found.tokens)}: **{name}** had **{share}**")
    if on_choose is None:
        expected = (
            f"**{safe_inline(label(each.token))}** {percent(math.exp(each.log_probability))}"
            for each in here.alternatives
        )
        st.markdown(f"Expected: {', '.join(expected)}")
        return
    with st.container(horizontal=True, gap="small", key=f"alternatives_{key}"):
        for number, each in enumerate(here.alternatives):
            same = each.token.id == here.token.id
            text = f"{safe_inline(label(each.token))} · {percent(math.exp(each.log_probability))}"
            beginning = readable(text_of((*(one.token for one in found.tokens[:at]), each.token)))
            st.button(
                text,
                icon=":material/check:" if same else None,
                key=f"alternative_{key}_{at}_{number}",
                disabled=same or not each.token.whole,
                on_click=on_choose,
                args=(beginning if spaced else beginning.lstrip(),),
                help=None if same else "Continue from here with this token.",
            )


def _inline(token: TokenText) -> str:
    """Return a token within the text: a single space before a word is drawn as a distance."""
    text = token.text
    if not token.special and text[:1] == " " and text.strip():
        text = text[1:]
    return safe_inline(text if token.special else text.translate(_VISIBLE)) or "∅"


def _style(key: str, tokens: tuple[TokenProbability, ...], guessed: list[bool]) -> str:
    """Return the style sheet of the tokens, with the likeliest ones for hover and focus."""
    group = f".st-key-{key}"
    pill, focused = f"{group} button", f"{group}:not(:has(button:hover)) button:focus-visible"
    rules = [
        f"{pill}{{border:0;border-radius:3px;padding:0 1px;min-height:0;margin:0;height:1.6em;"
        "background:none;font-size:1rem}",
        f"{group} div:has(> button){{gap:2px 0;max-height:16rem;overflow-y:auto;padding:3px}}",
        "[class*='st-key-alternatives_']{row-gap:0.5rem !important}",
        f"{pill}:hover,{focused}{{anchor-name:--{key}}}",
        f"{pill}::after{{position-anchor:--{key}}}",
        f"{focused}::after{{{_CARD}}}",
        f"@media (hover:hover){{{pill}:hover::after{{{_CARD}}}}}",
    ]
    rules += [
        f"{pill}:nth-of-type({at + 1}){{--expected:{css_string(expected_text(each))}}}"
        for at, each in enumerate(tokens)
    ]
    members: dict[str, list[str]] = {}  # of each style
    for at, each in enumerate(tokens):
        selector = f"{pill}:nth-of-type({at + 1})"
        style = (_GUESSED if guessed[at] else "") if guessed else _probability_style(each)
        members.setdefault(style, []).append(selector)
        if each.token.text[:1] == " ":
            members.setdefault("margin-left:0.3em", []).append(selector)
    rules += [f"{','.join(which)}{{{style}}}" for style, which in members.items() if style]
    rules.append(f"{pill}[aria-checked='true']{{outline:2px solid #0b67b2}}")
    return f"<style>{''.join(rules)}</style>"


def expected_text(here: TokenProbability) -> str:
    """Return the likeliest tokens in the place of one, a line each; the token itself is marked."""
    lines = [(each.token, each.log_probability) for each in here.alternatives]
    if here.token.id not in {token.id for token, _ in lines}:
        lines.append((here.token, here.log_probability))
    return "\n".join(
        f"{percent(math.exp(value)).rjust(8, _FIGURE_SPACE)}  \u2068{label(token)}\u2069"
        + (" ✓" if token.id == here.token.id else "")
        for token, value in lines
    )


def css_string(text: str) -> str:
    """Return a text as a string of CSS: only letters, digits and spaces stand for themselves."""
    escaped = _NOT_PLAIN.sub(lambda found: f"\\{ord(found[0]):x} ", text)
    return f'"{escaped}"'


def _probability_style(token: TokenProbability) -> str:
    share = math.exp(token.log_probability)
    return next(style for lowest, _, style in _LEVELS if share >= lowest)
