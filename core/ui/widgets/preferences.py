"""What a person with an account last worked with, so that another browser begins with it.

Kept when they ask for an answer, in the form in which it stands in the page's link, and only what
is not as it is at first. Never what they typed. A link that says anything wins altogether: it is
to show everybody the same set-up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import streamlit as st

from core.engine import Engine
from core.errors import RecordsError
from core.ui.widgets.link import use_remembered
from core.ui.widgets.person import Person

KEPT = (
    "model",
    "precision",
    "device",
    "runtime",
    "tokens",
    "greedy",
    "temperature",
    "top_p",
    "top_k",
    "penalty",
    "pace",
)
"""Names in the link of the Instruct page."""
_LONGEST = 300
"""Characters of one value: a model's name is the longest."""
_ASKED = "preferences_asked"

logger = logging.getLogger(__name__)


def recall(engine: Callable[[], Engine], someone: Person) -> None:
    """At the beginning of a session, let its controls begin with what is kept."""
    if someone.account is None or _ASKED in st.session_state:
        return
    st.session_state[_ASKED] = True
    if st.query_params:
        return
    try:
        use_remembered(engine().accounts.preferences(someone.owner))
    except RecordsError as error:
        logger.warning("The settings of account %s could not be read: %s", someone.owner, error)


def remember(engine: Engine, someone: Person) -> None:
    """Keep what the controls are set to now."""
    if someone.account is None:
        return
    link = st.query_params
    chosen = {name: link[name] for name in KEPT if name in link and len(link[name]) <= _LONGEST}
    try:
        engine.accounts.save_preferences(someone.owner, chosen)
    except RecordsError as error:
        logger.warning("The settings of account %s could not be kept: %s", someone.owner, error)
