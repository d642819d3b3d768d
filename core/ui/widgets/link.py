"""Keeps what a page is set to in its link, so that the link reproduces the set-up.

Streamlit binds widgets to the link by itself, but it writes choices by their label (a device's full
name, which another machine does not have) and texts however long they are. It does so in the
browser, whose link the server would then overwrite with the one it knows: of two quick changes one
was lost. So the server alone writes it. Call these before the widget is drawn; they fill it from
the link when the page is opened and follow it from then on. A link from another page of the same
session (**Try it**, say) opens it anew: what stands in that link wins over what the session was set
to, and what does not stand there stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote_plus

import streamlit as st

T = TypeVar("T")
N = TypeVar("N", int, float)

LONGEST = 3000
"""Characters of a page's texts in its link, encoded as they stand there (a letter that is not ASCII
takes six or more). Servers, mail programs and the way through the sign-in form cut longer links."""

_ARRIVAL, _REMEMBERED = "arrival", "remembered"


@dataclass
class _Arrival:
    """The page that a session shows; a plain object, so that an interrupted script keeps it."""

    page: str
    taken: set[str] = field(default_factory=set)
    """Keys that have been looked up in the link since the page was opened."""


def note_page(name: str) -> None:
    """Tell which page is drawn next; its link is read anew where it was not the one before."""
    arrival: _Arrival | None = st.session_state.get(_ARRIVAL)
    if arrival is None or arrival.page != name:
        st.session_state[_ARRIVAL] = _Arrival(name)


def use_remembered(values: Mapping[str, str]) -> None:
    """Let controls that are drawn for the first time begin with these values.

    Args:
        values: by name, as they would stand in the link.
    """
    st.session_state[_REMEMBERED] = dict(values)


def remembered() -> Mapping[str, str]:
    """What :func:`use_remembered` was given."""
    return st.session_state.get(_REMEMBERED, {})


def link_texts(*keys: str) -> None:
    """Keep text widgets in the link as long as their texts together are short enough.

    Args:
        keys: keys of the widgets, which are also the names in the link.
    """
    room = LONGEST
    for key in keys:
        known = key in st.session_state
        if not known:
            st.session_state[key] = ""
        if _to_be_read(key, known=known):
            st.session_state[key] = st.query_params[key]
        text = st.session_state[key] or ""
        if (length := len(quote_plus(text, errors="replace"))) > room:
            text, length = "", 0
        room -= length
        _write(key, text)


def texts_linked(*keys: str) -> bool:
    """Whether the whole of these texts stands in the link."""
    return all(st.query_params.get(key, "") == (st.session_state.get(key) or "") for key in keys)


def link_choice(
    key: str, default: T, read: Callable[[str], T], *, unwritten: T | None = None
) -> None:
    """Keep a widget that chooses one value in the link, by the value itself.

    Args:
        key: key of the widget, which is also the name in the link.
        default: chosen at first, and not written.
        read: makes a value of what stands in the link; ValueError means it is none.
        unwritten: not written in place of ``default``, where that is another on another machine.
    """
    known = key in st.session_state
    if not known:
        st.session_state[key] = default
        if kept := remembered().get(key):
            with suppress(ValueError):  # what was kept need not be possible any more
                st.session_state[key] = read(kept)
    if _to_be_read(key, known=known):
        with suppress(ValueError):  # a link from elsewhere: there is no such device here, say
            st.session_state[key] = read(st.query_params[key])
    value = st.session_state[key]
    usual = default if unwritten is None else unwritten
    _write(key, "" if value is None or value == usual else str(value))


def unlink(*keys: str) -> None:
    """Take controls that are not drawn out of the link."""
    for key in keys:
        _write(key, "")


def link_choices(key: str, values: list[str]) -> None:
    """Keep a widget that chooses several of ``values`` in the link; values with a comma are not.

    Args:
        key: key of the widget, which is also the name in the link.
        values: what can be chosen; what else stands in a link is passed over.
    """
    known = key in st.session_state
    if not known:
        st.session_state[key] = []
    if _to_be_read(key, known=known):
        asked = st.query_params[key].lower().split(",")
        st.session_state[key] = [value for value in values if value.lower() in asked]
    _write(key, ",".join(st.session_state[key] or ()))


def one_of(values: list[str]) -> Callable[[str], str]:
    """A reader for :func:`link_choice` that takes these values, in any case."""

    def read(text: str) -> str:
        for value in values:
            if value.lower() == text.strip().lower():
                return value
        raise ValueError(text)

    return read


def number_in(low: N, high: N) -> Callable[[str], N]:
    """A reader for :func:`link_choice` that takes numbers of the bounds' type within them."""

    def read(text: str) -> N:
        value = type(low)(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _to_be_read(key: str, *, known: bool) -> bool:
    """Whether the link's value is to be taken: it has one, and this was not asked before."""
    arrival: _Arrival | None = st.session_state.get(_ARRIVAL)
    new = not known
    if arrival is not None and key not in arrival.taken:
        arrival.taken.add(key)
        new = True
    return new and key in st.query_params


def _write(key: str, text: str) -> None:
    if not text:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != text:
        st.query_params[key] = text
