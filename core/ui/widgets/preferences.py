"""Saved settings of the Instruct page per account, restored in other browsers.

They are saved when the user starts an answer, in the form of URL parameters, and only where they
differ from the defaults. Texts are never saved. If the URL has any parameter, saved settings are
ignored: a link shows everybody the same settings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import streamlit as st

from core.errors import RecordsError
from core.inference.engine import Engine
from core.ui.widgets.link import use_remembered
from core.ui.widgets.person import Person

KEPT = (
    *("model", "precision", "device", "runtime"),
    *("tokens", "greedy", "temperature", "top_p", "top_k", "penalty", "pace"),
)
"""URL parameters of the Instruct page that are saved."""
_LONGEST = 300
"""Most characters of one value; a model name is the longest."""
_ASKED = "preferences_asked"

logger = logging.getLogger(__name__)


def recall(engine: Callable[[], Engine], someone: Person) -> None:
    """At the start of a session, set the initial values of the controls from the saved settings."""
    if someone.account is None or _ASKED in st.session_state:
        return
    st.session_state[_ASKED] = True
    if st.query_params:
        return
    try:
        use_remembered(engine().accounts.preferences(someone.owner))
    except RecordsError as error:
        logger.warning("Could not read the settings of account %s: %s", someone.owner, error)


def remember(engine: Engine, someone: Person) -> None:
    """Save the current settings."""
    if someone.account is None:
        return
    link = st.query_params
    chosen = {name: link[name] for name in KEPT if name in link and len(link[name]) <= _LONGEST}
    try:
        engine.accounts.save_preferences(someone.owner, chosen)
    except RecordsError as error:
        logger.warning("Could not save the settings of account %s: %s", someone.owner, error)
