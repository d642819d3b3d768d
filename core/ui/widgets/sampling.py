"""Controls for the sampling settings, each explained with the same example."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.runtimes import spec as ranges
from core.runtimes.spec import SamplingSettings
from core.ui.widgets.link import link_choice, number_in, remembered

_CAT = "After “The cat is” the model might expect: playing 50 %, sleeping 25 %, eating 15 %, "
_CAT += "driving 5 %, flying 5 %.\n\n"

NEW_TOKENS_HELP = (
    "Maximum length of the answer in tokens; a token is about three quarters of an English word. "
    "The model may stop earlier."
)
TEMPERATURE_HELP = (
    f"{_CAT}A low temperature (0.2) almost always selects *playing*; 1.0 keeps these "
    "probabilities; 2.0 evens them out, so that *flying* is selected more often."
)
TOP_P_HELP = (
    f"{_CAT}Only the most likely words that together reach this probability are considered: 0.5 "
    "leaves *playing*; 0.8 leaves *playing*, *sleeping* and *eating*; 1.0 leaves all."
)
TOP_K_HELP = (
    f"{_CAT}Only this many of the most likely words are considered: 3 leaves *playing*, "
    "*sleeping* and *eating*, whose probabilities are scaled to 100 %. 0 disables top-k."
)
PENALTY_HELP = (
    f"{_CAT}If *playing* was used before, a penalty above 1.0 lowers its probability, so that "
    "*sleeping* may be selected. 1.0 disables the penalty."
)
SEED_HELP = (
    "The same seed and settings select the same words again: the cat is *sleeping* every time. If "
    "empty, each answer gets a random seed, which is shown with the answer."
)
GREEDY_HELP = f"{_CAT}Greedy always selects the most likely word: the cat is *playing* every time."


_OF_THE_MODEL = ("greedy", "temperature", "top_p", "top_k")
"""Settings with defaults of the model; each is the widget key and the name of the setting."""
_MOVED = "sampling_moved"


def pick_sampling(defaults: SamplingSettings) -> SamplingSettings:
    """Draw the controls and return the selected settings.

    Args:
        defaults: default settings of the model. The controls follow them until the user or a link
            has set one of them; after that none changes with the model.
    """
    keep: dict[str, Any] = {"persist_state": "session"}
    move: dict[str, Any] = {"on_change": lambda: st.session_state.update({_MOVED: True})} | keep
    if any(key in st.query_params or key in remembered() for key in _OF_THE_MODEL):
        st.session_state[_MOVED] = True
    if not st.session_state.get(_MOVED):
        for key in _OF_THE_MODEL:
            if st.session_state.get(key) != getattr(defaults, key):
                st.session_state[key] = getattr(defaults, key)
    _keep_in_link(defaults)
    max_new_tokens = st.slider(
        "Max new tokens",
        *ranges.MAX_NEW_TOKENS_RANGE,
        key="tokens",
        help=NEW_TOKENS_HELP,
        **keep,
    )
    greedy = st.toggle("Greedy", key="greedy", help=GREEDY_HELP, **move)
    temperature = st.slider(
        "Temperature",
        *ranges.TEMPERATURE_RANGE,
        step=0.1,
        format="%.1f",
        disabled=greedy,
        key="temperature",
        help=TEMPERATURE_HELP,
        **move,
    )
    top_p = st.slider(
        "Top-p",
        *ranges.TOP_P_RANGE,
        step=0.01,
        disabled=greedy,
        key="top_p",
        help=TOP_P_HELP,
        **move,
    )
    top_k = st.slider(
        "Top-k",
        *ranges.TOP_K_RANGE,
        disabled=greedy,
        key="top_k",
        help=TOP_K_HELP,
        **move,
    )
    penalty = st.slider(
        "Repetition penalty",
        *ranges.REPETITION_PENALTY_RANGE,
        step=0.05,
        key="penalty",
        help=PENALTY_HELP,
        **keep,
    )
    seed = st.number_input(
        "Seed",
        *ranges.SEED_RANGE,
        value=None,
        step=1,
        placeholder="random",
        disabled=greedy,
        key="seed",
        help=SEED_HELP,
        **keep,
    )
    return SamplingSettings(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=penalty,
        greedy=greedy,
        seed=None if seed is None or greedy else int(seed),
    )


def _keep_in_link(defaults: SamplingSettings) -> None:
    """Keep the controls in the URL; values that are out of range are ignored."""
    link_choice("tokens", defaults.max_new_tokens, number_in(*ranges.MAX_NEW_TOKENS_RANGE))
    link_choice("greedy", defaults.greedy, lambda text: text.lower() == "true")
    link_choice("temperature", defaults.temperature, number_in(*ranges.TEMPERATURE_RANGE))
    link_choice("top_p", defaults.top_p, number_in(*ranges.TOP_P_RANGE))
    link_choice("top_k", defaults.top_k, number_in(*ranges.TOP_K_RANGE))
    link_choice("penalty", defaults.repetition_penalty, number_in(*ranges.REPETITION_PENALTY_RANGE))
    link_choice("seed", defaults.seed, number_in(*ranges.SEED_RANGE))
