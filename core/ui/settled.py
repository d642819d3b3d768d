"""What a click set in other controls, kept until a page was drawn with it.

Streamlit forgets such a value where the next click comes before the script got to the control: the
browser still shows the old one there, sends it along, and that wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

_SETTLED = "settled"
_ABSENT = object()


@dataclass(frozen=True)
class _Change:
    before: Any
    after: Any


def settle(values: Mapping[str, Any]) -> None:
    """Set controls that are drawn later; for callbacks.

    Args:
        values: by the controls' keys; None lets a control begin anew with what it begins with.
    """
    changes: dict[str, _Change] = st.session_state.setdefault(_SETTLED, {})
    for key, value in values.items():
        after = _ABSENT if value is None else value
        changes[key] = _Change(_now(key), after)
        _put(key, after)


def hold_settled() -> None:
    """Set again what an interrupted script has lost; call it before a page is drawn.

    A control that shows neither the old nor the new value was changed by the person since.
    """
    for key, change in st.session_state.get(_SETTLED, {}).items():
        if _now(key) == change.before:
            _put(key, change.after)


def page_was_drawn() -> None:
    """Forget the changes: the browser has been sent them all."""
    st.session_state.pop(_SETTLED, None)


def _now(key: str) -> Any:
    return st.session_state.get(key, _ABSENT)


def _put(key: str, value: Any) -> None:
    if value is _ABSENT:
        st.session_state.pop(key, None)
    else:
        st.session_state[key] = value
