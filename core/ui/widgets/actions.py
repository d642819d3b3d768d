"""Buttons that act, confirmations, downloads and messages, drawn in one way on all pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core.errors import PaddockError
from core.ui.widgets.person import in_kiosk, person
from core.ui.widgets.safe_text import safe_inline, unseen

_MESSAGES = "messages"
_FILES = {
    "csv": ("CSV", "text/csv", "table"),
    "html": ("Web page (HTML)", "text/html", "web"),
    "json": ("JSON", "application/json", "data_object"),
    "md": ("Markdown", "text/markdown", "markdown"),
}
"""Ending of a file name to its label, media type and icon."""


def draw_error(error: PaddockError | str) -> None:
    """Draw an error where it belongs."""
    st.error(safe_inline(str(error)), icon=":material/error:")


def tell(sentence: str, *, error: bool = False) -> None:
    """Show a message in the next run of the page, in view wherever the page is scrolled to."""
    st.session_state.setdefault(_MESSAGES, []).append((sentence, error))


def draw_messages() -> None:
    """Draw the messages; called by the shell. An error stays until it is closed or replaced."""
    for sentence, error in st.session_state.pop(_MESSAGES, ()):
        icon = ":material/error:" if error else ":material/check_circle:"
        st.toast(safe_inline(sentence), icon=icon, duration="infinite" if error else "short")


@contextmanager
def errors_told() -> Iterator[None]:
    """In a callback: tell an error."""
    try:
        yield
    except PaddockError as error:
        tell(str(error), error=True)


def action(
    label: str,
    icon: str,
    key: str,
    on_click: Callable[..., object] | None = None,
    *args: Any,
    of: str = "",
    manage: bool = False,
    kind: Literal["primary", "secondary", "tertiary"] = "tertiary",
    disabled: bool = False,
    **options: Any,
) -> bool:
    """Draw a button and return whether it was pressed; errors of its callback are told.

    Args:
        of: tells buttons with the same label apart; only screen readers tell it.
        manage: whether it requires the Manage permission. This is checked when the button is drawn
            and again when it was clicked, because a browser can send the click of a disabled
            button. In a kiosk it is not drawn.
    """
    access = person().access
    if manage and access.kiosk:
        return False
    allowed = access.manage or not manage
    if not allowed:
        options["help"] = "Requires the Manage permission. Ask an administrator."

    def checked() -> None:
        with errors_told():
            someone = person()  # redirects visitors whose session has ended
            if manage:
                someone.access.check_manage()
            if on_click is not None:
                on_click(*args)

    pressed = st.button(
        f"{label}{unseen(of)}" if of else label,
        icon=f":material/{icon}:",
        type=kind,
        key=key,
        disabled=disabled or not allowed,
        on_click=checked,
        **options,
    )
    context = get_script_run_ctx()
    if pressed and on_click is not None and context and context.fragment_ids_this_run:
        st.rerun()  # the callback may have changed what the rest of the page shows
    return pressed and allowed


def confirmed_action(
    label: str,
    icon: str,
    key: str,
    question: str,
    *call: Any,
    of: str = "",
    answer: str = "",
    manage: bool = False,
    disabled: bool = False,
) -> None:
    """Draw a button that asks first.

    Args:
        question: Markdown.
        call: the callback and its arguments.
        answer: label of the button that confirms.
    """
    if manage and in_kiosk():
        return
    with st.popover(
        f"{label}{unseen(of)}" if of else label,
        icon=f":material/{icon}:",
        type="tertiary",
        key=f"ask_{key}",
        disabled=disabled,
    ):
        st.markdown(question)
        action(answer or f"{label} it", icon, key, *call, of=of, manage=manage, kind="primary")


def draw_download(
    file_name: str, make: Callable[[], str], key: str, *, label: str = "", disabled: bool = False
) -> None:
    """Draw a button that makes a file and downloads it."""
    name, mime, icon = _FILES[file_name.rpartition(".")[2]]
    st.download_button(
        label or name,
        make,
        file_name=file_name,
        mime=mime,
        icon=f":material/{icon}:",
        key=key,
        on_click="ignore",
        disabled=disabled,
    )


def place(name: str) -> DeltaGenerator:
    """Return a container for one button or none, in a row whose buttons change.

    Streamlit removes an old button some tenths of a second after it has drawn its replacement. Side
    by side, they would move each other away from under the mouse. Always draw the same number of
    places in a row, and put optional buttons on the left: the row is aligned to the right.
    """
    return st.container(key=f"place_{name}", width="content", horizontal_alignment="right")
