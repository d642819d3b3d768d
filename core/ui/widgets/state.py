"""What a click set in other controls, kept until the browser shows it.

Streamlit forgets such a value where the next click comes before it is seen: the browser still has
the old one there, sends it along, and that wins. A control that nobody sees counts the drawings of
such values; what the browser sends for it tells which of them it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

_SETTLED, _DRAWN = "settled", "drawn"
_STYLE = Path(__file__).with_suffix(".css")
ANEW = object()
"""For :func:`settle`: let a control begin anew with what it begins with."""


@dataclass
class _Change:
    before: Any
    after: Any
    drawing: int | None = None
    """The drawing with which it was sent to the browser; None where it was not yet."""


@dataclass
class _Settled:
    """A plain object, so that an interrupted script keeps it."""

    drawings: int = 0
    changes: dict[str, _Change] = field(default_factory=dict)


def settle(values: Mapping[str, Any]) -> None:
    """Set controls that are drawn later; for callbacks.

    Args:
        values: by the controls' keys; :data:`ANEW` among them.
    """
    for key, value in values.items():
        earlier = _settled().changes.get(key)
        again = earlier is not None and not _is_shown(earlier) and _now(key) == earlier.after
        # The browser still has what was there before the first of two changes.
        _settled().changes[key] = _Change(earlier.before if again else _now(key), value)
        _put(key, value)


def is_stale(key: str) -> bool:
    """Whether what the browser sent for a control is from before :func:`settle` set it.

    For callbacks: Streamlit takes the old value, sent once more, for a change by the person.
    """
    change = _settled().changes.get(key)
    return change is not None and not _is_shown(change) and _now(key) == change.before


def hold_settled() -> None:
    """Set again what the browser did not have when it asked; call it before a page is drawn.

    A control that shows neither the old nor the new value was changed by the person since.
    """
    st.html(_STYLE)
    settled = _settled()
    for key, change in list(settled.changes.items()):
        if _is_shown(change):
            del settled.changes[key]
        elif _now(key) == change.before:
            _put(key, change.after)


def page_was_drawn() -> None:
    """Send the browser word that it has been sent all changes; call it after a page is drawn."""
    settled = _settled()
    unsent = [change for change in settled.changes.values() if change.drawing is None]
    if unsent:
        settled.drawings += 1
        for change in unsent:
            change.drawing = settled.drawings
    if st.session_state.get(_DRAWN) != str(settled.drawings):
        st.session_state[_DRAWN] = str(settled.drawings)
    st.text_input(_DRAWN, key=_DRAWN, label_visibility="collapsed", persist_state="session")


def _settled() -> _Settled:
    return st.session_state.setdefault(_SETTLED, _Settled())


def _is_shown(change: _Change) -> bool:
    told = str(st.session_state.get(_DRAWN))
    shown = int(told) if told.isdecimal() else 0  # a browser may send anything
    return change.drawing is not None and change.drawing <= shown


def _now(key: str) -> Any:
    return st.session_state.get(key, ANEW)


def _put(key: str, value: Any) -> None:
    if value is ANEW:
        st.session_state.pop(key, None)
    else:
        st.session_state[key] = value
