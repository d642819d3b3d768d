"""Sign-in and account forms, rendered without scripts from ``templates/form.html``.

The template escapes every value; a test inserts hostile texts everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
FONTS = Path(__file__).parents[1] / "ui" / "fonts"
STYLE_PATH, ICON_PATH = "paddock.css", "paddock.svg"
"""Relative, as all links here, so that they also work below a proxy's path prefix."""
FONT_PATHS = tuple(font.name for font in sorted(FONTS.glob("*.woff2")))
"""Named in ``.streamlit/config.toml`` and in the style sheet of the forms."""

FORM = ""
"""Key of an error that belongs to no field."""


@dataclass(frozen=True)
class Field:
    """A labelled input of a form."""

    name: str
    label: str
    kind: str = "text"
    autocomplete: str = "off"
    hint: str = ""
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
    """A page with one form, or with none if it has no buttons."""

    title: str
    action: str = ""
    """Path that the form is sent to, one segment."""
    buttons: Sequence[Button] = ()
    fields: Sequence[Field] = ()
    lead: str = ""
    """A sentence below the title."""
    links: Sequence[tuple[str, str]] = ()
    """Links below the form: address and text."""
    hidden: Sequence[tuple[str, str]] = ()


def response(
    card: Card,
    status: int = 200,
    *,
    values: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
    note: str = "",
    warning: str = "",
) -> HTMLResponse:
    """Return the page of a card; the first field with an error has the focus.

    Args:
        values: what the fields contain, by name.
        errors: errors by the name of their field, or :data:`FORM`.
        note: a status message, such as "You are signed out.".
    """
    errors = errors or {}
    focused = next((field for field in card.fields if field.name in errors), None)
    html = _template().render(
        card=card,
        values=values or {},
        errors=errors,
        note=note,
        warning=warning,
        focused=focused or next(iter(card.fields), None),
        style=STYLE_PATH,
        icon=ICON_PATH,
    )
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": FORM_POLICY}
    return HTMLResponse(html, status, headers=headers)


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    ).get_template("form.html")
