"""The pages by which people come and go: plain HTML that needs no script.

Everything that is not ours is escaped where it is put in; a test puts hostile texts everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("forms.css")
ICON = Path(__file__).parents[1] / "ui" / "icon.svg"
STYLE_PATH, ICON_PATH = "paddock.css", "paddock.svg"
"""Relative, as every link here: they hold below a proxy's prefix too."""


@dataclass(frozen=True)
class Field:
    """One box of a form."""

    name: str
    label: str
    kind: str = "text"
    value: str = ""
    autocomplete: str = "off"
    hint: str = ""
    error: str = ""
    longest: int = 512

    def html(self, *, focused: bool) -> str:
        """It with its label, hint and error."""
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
            f'maxlength="{self.longest}" autocomplete="{self.autocomplete}" autocapitalize="none" '
            f'spellcheck="false" required{" autofocus" if focused else ""}{described}{wrong}>'
            f"{notes}</div>"
        )


@dataclass(frozen=True)
class Button:
    """A button that sends the form."""

    label: str
    kind: str = "primary"
    """``primary``, ``plain`` or ``danger``."""
    value: str = ""
    """Sent as ``do``, where a form has several."""

    def html(self) -> str:
        """It."""
        sent = f' name="do" value="{escape(self.value)}"' if self.value else ""
        return f'<button class="{self.kind}"{sent}>{escape(self.label)}</button>'


@dataclass(frozen=True)
class Card:
    """One form in the middle of the page."""

    title: str
    action: str
    """Where it is sent: a path of one segment."""
    buttons: Sequence[Button]
    fields: Sequence[Field] = ()
    lead: str = ""
    """A sentence below the title."""
    error: str = ""
    """What went wrong, where it belongs to no field."""
    note: str = ""
    """Something good to know: that one was signed out, say."""
    warning: str = ""
    links: Sequence[tuple[str, str]] = ()
    """Further ways: address and words."""
    hidden: Sequence[tuple[str, str]] = ()


def page(card: Card) -> str:
    """The whole page."""
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
        "<footer>Paddock · models that answer on their own machine</footer></body></html>"
    )
