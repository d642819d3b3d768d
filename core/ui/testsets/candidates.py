"""Choosing the candidates of a run."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.catalogue import catalogue
from core.catalogue.prompts import CHOOSABLE_FORMATS
from core.compare.setup import LETTERS
from core.evaluation.plan import MAX_CANDIDATES, Candidate
from core.runtimes.spec import TEMPERATURE_RANGE, TOP_P_RANGE, ModelSpec, SamplingSettings
from core.store import ModelStore
from core.ui.compare.setup import next_side, pick_models
from core.ui.widgets.actions import action
from core.ui.widgets.link import is_true, link_choice, number_in, one_of, unlink
from core.ui.widgets.pickers import PickedModel

COUNT = "candidates"


def pick_candidates(store: ModelStore) -> list[Candidate]:
    """Draw the controls of the candidates, and return them."""
    link_choice(COUNT, 2, number_in(1, MAX_CANDIDATES))
    count: int = st.session_state[COUNT]
    found: list[Candidate] = []

    def default(others: Sequence[ModelSpec]) -> str:
        first = others[0] if others else None
        return first.model if first and not first.remote else next_side(store, ()).model

    def draw_more(index: int, side: PickedModel) -> None:
        found.append(_candidate(index, side))
        if count > 1 and index == count - 1:
            label, key = f"Remove {LETTERS[index]}", "icon_remove_candidate"
            fewer = {COUNT: count - 1}
            action(label, "close", key, st.session_state.update, fewer, help=label)

    pick_models(store, [_key(index) for index in range(count)], "candidate", default, draw_more)
    return found


def draw_add_candidate() -> None:
    """Draw the button that adds a candidate."""
    count: int = st.session_state[COUNT]
    action(
        "Add a model",
        "add",
        "add_candidate",
        *(st.session_state.update, {COUNT: count + 1}),
        disabled=count >= MAX_CANDIDATES,
        help=f"Up to {MAX_CANDIDATES} candidates.",
    )


def pick_max_tokens() -> int:
    """Draw the maximum of new tokens of all answers."""
    linked = link_choice("test_tokens", 256, number_in(1, 100_000))
    return int(st.number_input("Max new tokens", 1, 100_000, step=1, width=150, **linked))


def _candidate(index: int, side: PickedModel) -> Candidate:
    """Draw the popover for prompt and sampling, and return the candidate."""
    key = _key(index)
    with st.popover(
        f"Prompt of {LETTERS[index]}",
        icon=":material/tune:",
        type="tertiary",
        key=f"icon_prompt_{index}",
        help="System prompt, prompt format and sampling",
    ):
        system = st.text_area(
            "System prompt", key=f"{key}system", height=80, persist_state="session"
        )
        template = side.prompt_format
        if side.spec.model in catalogue():  # others have it beside device and runtime
            formats = ["chat", *CHOOSABLE_FORMATS]
            template = st.selectbox(
                "Prompt format",
                formats,
                index=None,
                placeholder="The model's own",
                **link_choice(f"{key}template", None, one_of(formats)),
            )
        else:
            unlink(f"{key}template")
        sampled = st.toggle(
            "Sample",
            help="Off: greedy decoding, which gives the same answers in every run.",
            **link_choice(f"{key}sampled", False, is_true),
        )
        sampling = SamplingSettings(greedy=True)
        if sampled:
            sampling = SamplingSettings(
                temperature=st.slider("Temperature", *TEMPERATURE_RANGE, 0.8, key=f"{key}heat"),
                top_p=st.slider("Top-p", *TOP_P_RANGE, 0.92, key=f"{key}top_p"),
                seed=int(st.number_input("Seed", 0, 2**32 - 1, 0, key=f"{key}seed")),
            )
    return Candidate(
        spec=side.spec,
        prompt_format=template,
        system=system or "",
        sampling=sampling,
        speculation=side.speculation,
    )


def _key(index: int) -> str:
    return f"t{index + 1}_"
