"""HTML of the sign-in and account forms, without scripts.

Every value is escaped where it is inserted; a test inserts hostile texts everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

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

    def html(self, *, focused: bool) -> str:
        """Return the input with its label, hint and error."""
        notes, ids = "", []
        if self.error:
            ids.append(f"{self.name}-error")
            notes += f'<p class="error" id="{self.name}-error">{escape(self.error)}</p>'
        elif self.hint:
            ids.append(f"{self.name}-hint")
            notes += f'<p class="hint" id="{self.name}-hint">{escape(self.hint)}</p>'
        described = f' aria-describedby="{" ".join(ids)}"' if ids else ""
        wrong = ' aria-invalid="true"' if self.error else ""
        value = f' value="{escape(self.value)}"' if self.value and self.kind != "password" else ""
        return (
            f'<div class="field"><label for="{self.name}">{escape(self.label)}</label>'
            f'<input id="{self.name}" name="{self.name}" type="{self.kind}"{value} '
            f'maxlength="{self.max_length}" autocomplete="{self.autocomplete}" '
            f'autocapitalize="none" spellcheck="false" required{" autofocus" if focused else ""}'
            f"{described}{wrong}>"
            f"{notes}</div>"
        )


@dataclass(frozen=True)
class Button:
    """A button that submits the form."""

    label: str
    kind: str = "primary"
    """``primary``, ``plain`` or ``danger``."""
    value: str = ""
    """Sent as ``do``, for forms with several buttons."""

    def html(self) -> str:
        """Return the button's HTML."""
        sent = f' name="do" value="{escape(self.value)}"' if self.value else ""
        return f'<button class="{self.kind}"{sent}>{escape(self.label)}</button>'


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


def page(card: Card) -> str:
    """Return the HTML document of a card."""
    boxes = "".join(
        f'<p class="{kind}" role="{role}">{escape(text)}</p>'
        for kind, role, text in (
            ("box error", "alert", card.error),
            ("box note", "status", card.note),
            ("box warning", "note", card.warning),
        )
        if text
    )
    lead = f'<p class="lead">{escape(card.lead)}</p>' if card.lead else ""
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in card.hidden
    )
    focus = next((n for n, field in enumerate(card.fields) if field.error), 0)
    fields = "".join(
        field.html(focused=number == focus) for number, field in enumerate(card.fields)
    )
    form = (
        f'<form method="post" action="{escape(card.action)}">{hidden}{fields}'
        f'<div class="buttons">{"".join(button.html() for button in card.buttons)}</div></form>'
        if card.buttons
        else ""
    )
    links = "".join(f'<a href="{escape(where)}">{escape(words)}</a>' for where, words in card.links)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{escape(card.title)} · Paddock</title><link rel="icon" href="{ICON_PATH}">'
        f'<link rel="stylesheet" href="{STYLE_PATH}"></head><body><main>'
        f'<img src="{ICON_PATH}" alt="" width="44" height="44"><h1>{escape(card.title)}</h1>'
        f"{lead}{boxes}{form}"
        f"{f'<nav>{links}</nav>' if links else ''}</main>"
        "<footer>Paddock · language models on OpenVINO</footer></body></html>"
    )
