"""Keep the settings of a page in its URL, so that the link reproduces them.

Streamlit can bind widgets to the URL itself. But it writes options by their label (such as the full
name of a device, which another machine does not have) and texts of any length. It does so in the
browser, and the server would then overwrite the URL with the one it knows, so that one of two quick
changes was lost. Therefore only the server writes the URL here. Call these functions before the
widget is drawn: they fill it from the URL when the page is opened and update the URL from then on.
A link from another page of the same session (such as **Try it**) opens the page again: values in
that link replace those of the session, and settings that are not in the link stay unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote_plus

import streamlit as st

T = TypeVar("T")
N = TypeVar("N", int, float)

LONGEST = 3000
"""Most characters of a page's texts in its URL, percent-encoded (a non-ASCII letter takes six or
more). Servers, mail programs and the redirect through the sign-in form cut longer URLs."""

_ARRIVAL, _REMEMBERED = "arrival", "remembered"


@dataclass
class _Arrival:
    """The page that a session shows; a plain object, so that an interrupted run keeps it."""

    page: str
    taken: set[str] = field(default_factory=set)
    """Keys that have been read from the URL since the page was opened."""


def note_page(name: str) -> None:
    """Record which page is drawn next; if it is another page than before, its URL is read again."""
    arrival: _Arrival | None = st.session_state.get(_ARRIVAL)
    if arrival is None or arrival.page != name:
        st.session_state[_ARRIVAL] = _Arrival(name)


def use_remembered(values: Mapping[str, str]) -> None:
    """Set the first values of widgets, by name and in the form in which the URL has them."""
    st.session_state[_REMEMBERED] = dict(values)


def remembered() -> Mapping[str, str]:
    """Return the values given to :func:`use_remembered`."""
    return st.session_state.get(_REMEMBERED, {})


def link_texts(*keys: str) -> None:
    """Keep text widgets in the URL, by their keys, as long as their texts are short enough."""
    room = LONGEST
    for key in keys:
        text = _filled(key, "", str) or ""
        if (length := len(quote_plus(text, errors="replace"))) > room:
            text, length = "", 0
        room -= length
        _write(key, text)


def texts_linked(*keys: str) -> bool:
    """Return whether the URL contains all of these texts."""
    return all(st.query_params.get(key, "") == (st.session_state.get(key) or "") for key in keys)


def link_choice(
    key: str, default: T, read: Callable[[str], T], *, unwritten: T | None = None
) -> dict[str, Any]:
    """Keep a single-choice widget in the URL, by its value.

    Args:
        key: key of the widget, also the name of the URL parameter.
        default: initial value; not written to the URL.
        read: converts the URL parameter to a value, or raises ValueError if it is not valid.
        unwritten: the value that is not written, if not ``default`` (when the default depends on
            the machine).

    Returns:
        Arguments of the widget: its key, and that its value is kept on other pages.
    """
    first = default
    if key not in st.session_state and (kept := remembered().get(key)):
        with suppress(ValueError):  # a saved value may not be valid any more
            first = read(kept)
    value = _filled(key, first, read)
    omitted = default if unwritten is None else unwritten
    _write(key, "" if value is None or value == omitted else str(value))
    return {"key": key, "persist_state": "session"}


def unlink(*keys: str) -> None:
    """Remove widgets that are not drawn from the URL."""
    for key in keys:
        _write(key, "")


def link_choices(key: str, values: list[str]) -> None:
    """Keep a multiple-choice widget in the URL. Values that contain a comma cannot be kept.

    Args:
        key: key of the widget, also the name of the URL parameter.
        values: the options; other values in the URL are ignored.
    """

    def read(text: str) -> list[str]:
        wanted = text.lower().split(",")
        return [value for value in values if value.lower() in wanted]

    _write(key, ",".join(_filled(key, [], read) or ()))


def one_of(values: list[str]) -> Callable[[str], str]:
    """Return a reader for :func:`link_choice` that accepts these values, ignoring case."""

    def read(text: str) -> str:
        for value in values:
            if value.lower() == text.strip().lower():
                return value
        raise ValueError(text)

    return read


def is_true(text: str) -> bool:
    """Reader for :func:`link_choice` of a switch."""
    return text.lower() == "true"


def number_in(low: N, high: N) -> Callable[[str], N]:
    """Return a reader for :func:`link_choice` that accepts numbers in this range.

    The type of ``low`` decides between int and float.
    """

    def read(text: str) -> N:
        value = type(low)(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _filled(key: str, default: T, read: Callable[[str], T]) -> T:
    """Return the value of a widget, after it was read from the URL if the page was opened anew."""
    new = key not in st.session_state
    if new:
        st.session_state[key] = default
    arrival: _Arrival | None = st.session_state.get(_ARRIVAL)
    if arrival is not None and key not in arrival.taken:
        arrival.taken.add(key)
        new = True
    if new and key in st.query_params:
        with suppress(ValueError):  # the link may name a device that this machine does not have
            st.session_state[key] = read(st.query_params[key])
    return st.session_state[key]


def _write(key: str, text: str) -> None:
    if not text:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != text:
        st.query_params[key] = text
