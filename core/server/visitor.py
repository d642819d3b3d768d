"""Identify the visitor of a request: account, location and permissions."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256

from starlette.requests import HTTPConnection

from core.auth import Access, Accounts, Client, Place, access
from core.db import GUEST, Account
from core.server import cookies
from core.settings import Settings


@dataclass(frozen=True)
class Visitor:
    """The visitor of a connection, as of when the session was looked up."""

    access: Access
    place: Place
    client: Client
    """The browser, by which failed sign-ins are counted."""
    secure: bool
    """Whether the connection to the browser is encrypted."""
    account: Account | None = None
    """None for guests and for visitors who must sign in."""
    token: str | None = field(default=None, repr=False)
    """Token of the session."""
    browser: str | None = None
    """SHA-256 of the cookie that identifies a guest's browser; None without one, and for accounts.
    In a kiosk each connection has its own: conversations are not kept for the next visitor, and an
    answer is cancelled when its page has been closed for a minute."""
    stale: bool = False
    """Whether the browser sent a session token that is not valid."""

    @property
    def owner(self) -> str:
        """Owner of the visitor's runs and votes: the account's id, or :data:`GUEST`."""
        return self.account.id if self.account else GUEST


class Visitors:
    """Identifies visitors, by cookie for pages, forms and middleware, and by key for the API.

    Shared by threads.
    """

    def __init__(
        self, accounts: Callable[[], Accounts], settings: Settings, bound: Callable[[], str | None]
    ) -> None:
        """
        Args:
            accounts: called only for requests with a token or key; may raise RecordsError.
            settings: when sign-in is required.
            bound: returns the address that the server listens on.
        """
        self._accounts = accounts
        self._settings = settings
        self._bound = bound

    def of(self, connection: HTTPConnection) -> Visitor:
        """Return the visitor of a request or websocket; reads the database if there is a token.

        Raises:
            RecordsError: the database could not be read.
        """
        anonymous = self._anonymous(connection)
        token = cookies.read(connection.cookies, cookies.SESSION, secure=anonymous.secure)
        return anonymous if token is None else self._signed_in(anonymous, token)

    def _anonymous(self, connection: HTTPConnection) -> Visitor:
        """Return the visitor without looking at token or key."""
        peer = connection.client.host if connection.client else None
        secure = connection.scope.get("scheme") in ("https", "wss")
        place = Place.of(connection.headers.items(), bound=self._bound(), peer=peer)
        cookie = cookies.read(connection.cookies, cookies.BROWSER, secure=secure)
        if self._settings.kiosk:  # each page is a browser of its own
            cookie = secrets.token_urlsafe()
        return Visitor(
            access=self._access(place, None),
            browser=sha256(cookie.encode()).hexdigest() if cookie else None,
            place=place,
            client=Client(
                address=peer,
                agent=connection.headers.get("user-agent", ""),
                device=cookies.read(connection.cookies, cookies.DEVICE, secure=secure),
            ),
            secure=secure,
        )

    def of_program(self, connection: HTTPConnection, key: str | None) -> Visitor:
        """Return the user of an API request; cookies are ignored.

        Args:
            key: with an incorrect one the visitor has no account.

        Raises:
            RecordsError: the database could not be read.
        """
        anonymous = self._anonymous(connection)
        if key is None:
            return anonymous
        account = self._accounts().keys.holder(key)
        return replace(anonymous, access=self._access(anonymous.place, account), account=account)

    def refresh(self, visitor: Visitor) -> Visitor:
        """Look up the visitor again: permissions may have changed, or the session ended.

        A visitor whose session has ended has no access and is not a guest, even on this machine:
        the next person at the browser must not see the open pages.

        Raises:
            RecordsError: the database could not be read.
        """
        if visitor.token is None:
            return visitor
        found = self._signed_in(visitor, visitor.token)
        if found.account is None:
            return replace(found, access=replace(found.access, use=False, manage=False))
        return found

    def _signed_in(self, visitor: Visitor, token: str) -> Visitor:
        visit = self._accounts().sessions.visit(token)
        account = visit.account if visit else None
        return replace(
            visitor,
            access=self._access(visitor.place, account),
            account=account,
            browser=None if account else visitor.browser,
            token=token if account else None,
            stale=account is None,
        )

    def _access(self, place: Place, account: Account | None) -> Access:
        settings = self._settings
        return access(place, settings.auth, account, kiosk=settings.kiosk)
