"""Sign-in and account forms, rendered without scripts from ``templates/form.html``.

The template escapes every value; a test inserts hostile texts everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse

from core.server.headers import FORM_POLICY

if TYPE_CHECKING:
    from jinja2 import Template

STYLE = Path(__file__).with_name("forms.css")
ICON = Path(__file__).parents[1] / "ui" / "icon.svg"
STYLE_PATH, ICON_PATH = "paddock.css", "paddock.svg"
"""Relative, as all links here, so that they also work below a proxy's path prefix."""


@dataclass(frozen=True)
class Field:
    """A labelled input of a form."""

    name: str
    label: str
    kind: str = "text"
    value: str = ""
    autocomplete: str = "off"
    hint: str = ""
    error: str = ""
    max_length: int = 512


@dataclass(frozen=True)
class Button:
    """A button that submits the form."""

    label: str
    kind: str = "primary"
    """``primary``, ``plain`` or ``danger``."""
    value: str = ""
    """Sent as ``do``, for forms with several buttons."""


@dataclass(frozen=True)
class Card:
    """A page with one form."""

    title: str
    action: str
    """Path that the form is sent to, one segment."""
    buttons: Sequence[Button]
    fields: Sequence[Field] = ()
    lead: str = ""
    """A sentence below the title."""
    error: str = ""
    """An error that belongs to no field."""
    note: str = ""
    """A status message, such as "You are signed out."."""
    warning: str = ""
    links: Sequence[tuple[str, str]] = ()
    """Links below the form: address and text."""
    hidden: Sequence[tuple[str, str]] = ()


def response(card: Card, status: int = 200) -> HTMLResponse:
    """Return the page of a card."""
    return HTMLResponse(
        page(card),
        status,
        headers={"Cache-Control": "no-store", "Content-Security-Policy": FORM_POLICY},
    )


def page(card: Card) -> str:
    """Return the HTML document of a card; the first field with an error has the focus."""
    focused = next((field for field in card.fields if field.error), None)
    return _template().render(
        card=card,
        focused=focused or next(iter(card.fields), None),
        style=STYLE_PATH,
        icon=ICON_PATH,
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    ).get_template("form.html")
