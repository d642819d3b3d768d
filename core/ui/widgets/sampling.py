"""Controls for the sampling settings, each explained with the same example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from core.runtimes import spec as ranges
from core.runtimes.spec import SamplingSettings
from core.ui.widgets.link import is_true, link_choice, number_in, remembered
from core.ui.widgets.navigation import page

_CAT = "After “The cat is” the model might expect: playing 50 %, sleeping 25 %, eating 15 %, "
_CAT += "driving 5 %, flying 5 %.\n\n"

TOP_K_RANGE = (0, 100)
REPETITION_PENALTY_RANGE = (1.0, 2.0)
"""Ranges of sliders; API and command line accept more (:mod:`core.runtimes.spec`)."""

_OF_THE_MODEL = ("greedy", "temperature", "top_p", "top_k")
"""Settings with defaults of the model; each is the widget key and the name of the setting."""
_MOVED = "sampling_moved"


def pick_sampling(defaults: SamplingSettings, *, lab: bool = False) -> SamplingSettings:
    """Draw the controls and return the selected settings.

    Args:
        defaults: default settings of the model. The controls follow them until the user or a link
            has set one of them; after that none changes with the model.
        lab: whether to leave out maximum length and seed, which the sampling lab does not use, and
            the link to it.
    """
    if any(key in st.query_params or key in remembered() for key in _OF_THE_MODEL):
        st.session_state[_MOVED] = True
    defaults = replace(defaults, top_k=min(defaults.top_k, TOP_K_RANGE[1]))
    if not st.session_state.get(_MOVED):
        for key in _OF_THE_MODEL:
            if st.session_state.get(key) != getattr(defaults, key):
                st.session_state[key] = getattr(defaults, key)

    def moved() -> None:
        st.session_state[_MOVED] = True

    def slider(label: str, key: str, default: Any, limits: tuple[Any, Any], **how: Any) -> Any:
        return st.slider(label, *limits, **link_choice(key, default, number_in(*limits)), **how)

    max_new_tokens = defaults.max_new_tokens
    if not lab:
        max_new_tokens = st.number_input(
            "Max new tokens",
            *ranges.MAX_NEW_TOKENS_RANGE,
            step=1,
            help="Maximum length of the answer in tokens; a token is about three quarters of an "
            "English word. The model may stop earlier. Prompt and answer together are limited by "
            "its context length.",
            **link_choice("tokens", max_new_tokens, number_in(*ranges.MAX_NEW_TOKENS_RANGE)),
        )
    greedy = st.toggle(
        "Greedy",
        help=f"{_CAT}Greedy always selects the most likely word: the cat is *playing* every time.",
        on_change=moved,
        **link_choice("greedy", defaults.greedy, is_true),
    )
    drawn: dict[str, Any] = {"on_change": moved, "disabled": greedy}
    temperature = slider(
        "Temperature",
        *("temperature", defaults.temperature, ranges.TEMPERATURE_RANGE),
        step=0.1,
        format="%.1f",
        help=f"{_CAT}A low temperature (0.2) almost always selects *playing*; 1.0 keeps these "
        "probabilities; 2.0 evens them out, so that *flying* is selected more often.",
        **drawn,
    )
    top_p = slider(
        "Top-p",
        *("top_p", defaults.top_p, ranges.TOP_P_RANGE),
        step=0.01,
        help=f"{_CAT}Only the most likely words that together reach this probability are "
        "considered: 0.5 leaves *playing*; 0.8 leaves *playing*, *sleeping* and *eating*; 1.0 "
        "leaves all.",
        **drawn,
    )
    top_k = slider(
        "Top-k",
        *("top_k", defaults.top_k, TOP_K_RANGE),
        help=f"{_CAT}Only this many of the most likely words are considered: 3 leaves *playing*, "
        "*sleeping* and *eating*, whose probabilities are scaled to 100 %. 0 disables top-k.",
        **drawn,
    )
    penalty = slider(
        "Repetition penalty",
        *("penalty", defaults.repetition_penalty, REPETITION_PENALTY_RANGE),
        step=0.05,
        help=f"{_CAT}If *playing* was used before, a penalty above 1.0 lowers its probability, so "
        "that *sleeping* may be selected. 1.0 disables the penalty.",
    )
    seed = None
    if not lab:
        seed = st.number_input(
            "Seed",
            *ranges.SEED_RANGE,
            value=None,
            step=1,
            placeholder="random",
            disabled=greedy,
            help="The same seed and settings select the same words again: the cat is *sleeping* "
            "every time. If empty, each answer gets a random seed, which is shown with the answer.",
            **link_choice("seed", defaults.seed, number_in(*ranges.SEED_RANGE)),
        )
        st.page_link(page("lab"), label="See these settings choose", icon=":material/science:")
    return SamplingSettings(
        max_new_tokens=int(max_new_tokens),
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=penalty,
        greedy=greedy,
        seed=None if seed is None or greedy else int(seed),
    )
