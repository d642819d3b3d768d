"""Sign-in and account forms: their pages, what is submitted, and CSRF tokens.

The pages are rendered without scripts from ``templates/form.html``. The template escapes every
value; a test inserts hostile texts everywhere. A token binds each form to one browser, one session
and one use.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse

from core.api.body import BodyTooLong, content_type, read_limited
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

MAX_BYTES = 16 * 1024
"""Maximum size of a form: a password has up to 256 characters of up to twelve bytes each when
URL-encoded, and the form to change it has two."""
MAX_FIELDS = 12
READ_TIMEOUT_S = 15.0
"""Seconds in which the whole form must arrive."""
CONTENT_TYPE = "application/x-www-form-urlencoded"

TOKEN_AGE_S = 12 * 3600.0
"""Seconds for which a form can be submitted after it was shown."""
_MAX_USED_TOKENS = 200_000
_NONCE = re.compile(r"[A-Za-z0-9_-]{32}")
_TOKEN = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{16})\.([0-9a-f]{64})")


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


class BadForm(Exception):
    """A submitted form is invalid."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        BadForm: it is too long or too slow, has another content type, is not valid UTF-8, or has a
            field twice.
    """
    if content_type(request) != CONTENT_TYPE:
        raise BadForm(415, "The content type is not supported. Submit the form from its page.")
    try:
        body = await read_limited(request, MAX_BYTES, READ_TIMEOUT_S)
    except BodyTooLong as error:
        raise BadForm(413, "The form is too long. Shorten your input.") from error
    except TimeoutError as error:
        raise BadForm(
            408, f"The form did not arrive within {READ_TIMEOUT_S:.0f} s. Submit it again."
        ) from error
    except ClientDisconnect as error:
        raise BadForm(400, "The connection was closed. Submit the form again.") from error
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=MAX_FIELDS,
            encoding="utf-8",
            errors="strict",
        )
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a field was sent twice")
    except ValueError as error:  # or not ASCII, not UTF-8 when decoded, or too many fields
        raise BadForm(400, "The form could not be read. Open its page again.") from error
    return fields


class CsrfTokens:
    """Issues and checks the CSRF tokens of forms.

    A token is valid once, for one form, one browser (by a random nonce in a cookie) and one
    session. The secret lives as long as the process: a form that was open during a restart is
    shown again with its input, except for passwords.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._used: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def new_nonce() -> str:
        """Return a random nonce for a browser."""
        return secrets.token_urlsafe(24)

    @staticmethod
    def is_nonce(text: str | None) -> bool:
        """Whether a text has the format of a nonce."""
        return bool(text) and _NONCE.fullmatch(text or "") is not None

    def issue(self, form: str, nonce: str, session_token: str | None) -> str:
        """Return a token for a form shown in the browser with this nonce and session."""
        moment, serial = str(int(self._clock())), secrets.token_urlsafe(12)
        return f"{moment}.{serial}.{self._mac(form, nonce, session_token, moment, serial)}"

    def is_valid(
        self, csrf_token: str, form: str, nonce: str | None, session_token: str | None
    ) -> bool:
        """Whether the token is genuine, not expired and not used."""
        found = _TOKEN.fullmatch(csrf_token)
        if found is None or nonce is None or not self.is_nonce(nonce):
            return False
        moment, serial, mac = found.groups()
        if not hmac.compare_digest(mac, self._mac(form, nonce, session_token, moment, serial)):
            return False
        if not 0 <= self._clock() - int(moment) <= TOKEN_AGE_S:
            return False
        with self._lock:
            return mac not in self._used

    def mark_used(self, csrf_token: str) -> None:
        """Invalidate a token after the form was processed."""
        mac = csrf_token.rpartition(".")[2]
        with self._lock:
            self._used[mac] = self._clock()
            oldest = self._clock() - TOKEN_AGE_S
            while self._used and (
                len(self._used) > _MAX_USED_TOKENS or next(iter(self._used.values())) < oldest
            ):
                self._used.popitem(last=False)

    def _mac(
        self, form: str, nonce: str, session_token: str | None, moment: str, serial: str
    ) -> str:
        session = hashlib.sha256((session_token or "").encode()).hexdigest()
        message = "\n".join((form, nonce, session, moment, serial)).encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
