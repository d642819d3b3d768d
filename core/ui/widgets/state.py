"""Widget values set by a callback, kept until the browser shows them.

Streamlit loses such a value if the next click comes before the browser has received it: the browser
then still sends the old value with that click, and the old value wins. A hidden text input counts
the runs that sent such values; its value from the browser shows which of them have arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

_PENDING, _DRAWN = "settled", "drawn"
RESET = object()
"""Value for :func:`set_widgets` that resets a widget to its initial value."""


@dataclass
class _Change:
    before: Any
    after: Any
    run: int | None = None
    """Number of the run that sent it to the browser; None if not sent yet."""


@dataclass
class _PendingChanges:
    """Plain object in the session state, so that an interrupted run keeps it."""

    runs: int = 0
    changes: dict[str, _Change] = field(default_factory=dict)


def set_widgets(values: Mapping[str, Any]) -> None:
    """Set the values, or :data:`RESET`, of widgets that are drawn later; for callbacks."""
    for key, value in values.items():
        earlier = _pending().changes.get(key)
        again = earlier is not None and not _is_shown(earlier) and _now(key) == earlier.after
        # The browser still has the value from before the first of two changes.
        _pending().changes[key] = _Change(earlier.before if again else _now(key), value)
        _put(key, value)


def show_new_label(key: str, label: str) -> None:
    """Make the browser show the label of a selected option that has changed.

    The browser identifies an option by its label. Call it before the widget is drawn.
    """
    shown = f"{key}_label"
    if st.session_state.get(shown) != label:
        st.session_state[shown] = label
        st.session_state[key] = st.session_state[key]


def restore_pending() -> None:
    """Set values again that the browser did not have yet; call it before a page is drawn.

    A widget with neither the old nor the new value was changed by the user in the meantime.
    """
    pending = _pending()
    for key, change in list(pending.changes.items()):
        if _is_shown(change):
            del pending.changes[key]
        elif _now(key) == change.before:
            _put(key, change.after)


def mark_sent() -> None:
    """Number the changes that this run has sent to the browser; call it after a page is drawn."""
    pending = _pending()
    unsent = [change for change in pending.changes.values() if change.run is None]
    if unsent:
        pending.runs += 1
        for change in unsent:
            change.run = pending.runs
    if st.session_state.get(_DRAWN) != str(pending.runs):
        st.session_state[_DRAWN] = str(pending.runs)
    st.text_input(_DRAWN, key=_DRAWN, label_visibility="collapsed", persist_state="session")


def _pending() -> _PendingChanges:
    return st.session_state.setdefault(_PENDING, _PendingChanges())


def _is_shown(change: _Change) -> bool:
    sent = str(st.session_state.get(_DRAWN))
    shown = int(sent) if sent.isdecimal() else 0  # a browser may send anything
    return change.run is not None and change.run <= shown


def _now(key: str) -> Any:
    return st.session_state.get(key, RESET)


def _put(key: str, value: Any) -> None:
    if value is RESET:
        st.session_state.pop(key, None)
    else:
        st.session_state[key] = value
