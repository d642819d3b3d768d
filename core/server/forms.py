"""Reading a form that was sent, and telling a genuine one from a forged or replayed one."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, HTTPConnection, Request

LARGEST = 16 * 1024
"""Bytes of a form: the longest password is 256 characters of up to twelve bytes as they are
sent, and a change of the password has two."""
MOST_FIELDS = 12
SLOWEST_S = 15.0
"""Seconds in which all of it must have come."""
KIND = "application/x-www-form-urlencoded"

AGE_S = 12 * 3600.0
"""Seconds for which a form can be sent after it was shown."""
_MOST_SPENT = 200_000
_NONCE = re.compile(r"[A-Za-z0-9_-]{32}")
_SEAL = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{16})\.([0-9a-f]{64})")


class BadForm(Exception):
    """What was sent cannot be read as one of our forms."""

    def __init__(self, status: int, sentence: str) -> None:
        """
        Args:
            status: of the answer, as HTTP has it.
            sentence: for the person.
        """
        super().__init__(sentence)
        self.status = status


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        BadForm: it is too long or too slow, of another kind, no proper text, or has a field twice.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != KIND:
        raise BadForm(415, "Send the form from its page.")
    body = await _body(request)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=MOST_FIELDS,
            encoding="utf-8",
            errors="strict",
        )
    except ValueError as error:  # no ASCII, no UTF-8 within, or too many fields
        raise BadForm(400, "The form could not be read; open its page again.") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadForm(400, "The form could not be read; open its page again.")
    return fields


async def _body(request: Request) -> bytes:
    too_long = BadForm(413, "The form is too long; shorten what you typed.")
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:12]) > LARGEST:
        raise too_long
    received = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_S):
            async for piece in request.stream():
                received += piece
                if len(received) > LARGEST:
                    raise too_long
    except TimeoutError as error:
        raise BadForm(408, "The form took too long to arrive; send it again.") from error
    except ClientDisconnect as error:
        raise BadForm(400, "The form was broken off.") from error
    return bytes(received)


def from_this_site(request: HTTPConnection) -> bool:
    """Whether the browser says that a page of this very server sent the request.

    ``Sec-Fetch-Site`` where there is one (Fetch Metadata), else ``Origin`` against ``Host``. A
    program that sends neither is no browser and carries nobody's cookies but its own.
    """
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or same_origin(origin, request.headers.get("host"))


def typed(request: HTTPConnection) -> bool:
    """Whether somebody opened the address by hand, so that no page sent the request or reads the
    answer."""
    by_hand = request.headers.get("sec-fetch-site") == "none"
    return by_hand and request.scope.get("method") in ("GET", "HEAD")


def same_origin(origin: str, host: str | None) -> bool:
    """Whether an ``Origin`` header names the host that was asked."""
    try:
        parts = urlsplit(origin.strip())
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host:
        return False
    return parts.netloc.lower() == host.strip().lower()


class Seals:
    """Puts a seal on every form that is shown and checks it when the form comes back.

    A seal holds for one kind of form, one browser (by a cookie of random bits), one session, and
    once. The secret lives as long as the process: a form that was open over a restart is shown
    again, with what was typed but for the passwords.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._spent: OrderedDict[str, float] = OrderedDict()
        self._turn = threading.Lock()

    @staticmethod
    def new_nonce() -> str:
        """The random bits of a browser."""
        return secrets.token_urlsafe(24)

    @staticmethod
    def is_nonce(text: str | None) -> bool:
        """Whether a text can be one."""
        return bool(text) and _NONCE.fullmatch(text or "") is not None

    def seal(self, form: str, nonce: str, token: str | None) -> str:
        """A seal for a form of this kind, shown to the browser of this nonce and session."""
        moment, serial = str(int(self._clock())), secrets.token_urlsafe(12)
        return f"{moment}.{serial}.{self._mac(form, nonce, token, moment, serial)}"

    def holds(self, seal: str, form: str, nonce: str | None, token: str | None) -> bool:
        """Whether the form is genuine, fresh, and was not done before."""
        found = _SEAL.fullmatch(seal)
        if found is None or nonce is None or not self.is_nonce(nonce):
            return False
        moment, serial, mac = found.groups()
        if not hmac.compare_digest(mac, self._mac(form, nonce, token, moment, serial)):
            return False
        if not 0 <= self._clock() - int(moment) <= AGE_S:
            return False
        with self._turn:
            return mac not in self._spent

    def spend(self, seal: str) -> None:
        """What the form asked for is done: it cannot be sent again."""
        mac = seal.rpartition(".")[2]
        with self._turn:
            self._spent[mac] = self._clock()
            oldest = self._clock() - AGE_S
            while self._spent and (
                len(self._spent) > _MOST_SPENT or next(iter(self._spent.values())) < oldest
            ):
                self._spent.popitem(last=False)

    def _mac(self, form: str, nonce: str, token: str | None, moment: str, serial: str) -> str:
        session = hashlib.sha256((token or "").encode()).hexdigest()
        message = "\n".join((form, nonce, session, moment, serial)).encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
