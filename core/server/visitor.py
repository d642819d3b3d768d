"""Who a request comes from, from where, and what they may do here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from starlette.requests import HTTPConnection

from core.auth import Access, Accounts, Client, Place, access
from core.db import GUEST, Account
from core.server import cookies
from core.settings import Settings

_LONGEST_COOKIE = 200
"""Characters; a longer one is none of ours and is not looked up."""


@dataclass(frozen=True)
class Visitor:
    """The person of one connection, as it stood when they were looked up."""

    access: Access
    place: Place
    client: Client
    """The browser, as the attempts to sign in are counted by it."""
    secure: bool
    """Whether the connection to the browser is encrypted."""
    account: Account | None = None
    """None for a guest, and for somebody who must sign in."""
    token: str | None = field(default=None, repr=False)
    """Of the session that signs them in."""
    stale: bool = False
    """Whether the browser holds a token that signs nobody in (any more)."""

    @property
    def owner(self) -> str:
        """Whose runs and votes theirs are: the id of their account, or :data:`GUEST`."""
        return self.account.id if self.account else GUEST


class Visitors:
    """Tells who visits; threads share it.

    This is the one place that does: pages, forms and the guard ask it by the browser's cookie, and
    the routes for programs by a key.
    """

    def __init__(
        self, accounts: Callable[[], Accounts], settings: Settings, bound: Callable[[], str | None]
    ) -> None:
        """
        Args:
            accounts: asked for only where a browser brings a token; may raise RecordsError.
            settings: when people must sign in.
            bound: the address that the server listens on.
        """
        self._accounts = accounts
        self._settings = settings
        self._bound = bound

    def of(self, connection: HTTPConnection) -> Visitor:
        """The person of a request or a websocket; reads the database where there is a token.

        Raises:
            RecordsError: the database could not be read.
        """
        nobody = self._nobody(connection)
        token = _read(connection, cookies.SESSION, secure=nobody.secure)
        return nobody if token is None else self._known(nobody, token)

    def _nobody(self, connection: HTTPConnection) -> Visitor:
        """Whoever it is, as long as they show nothing."""
        peer = connection.client.host if connection.client else None
        secure = connection.scope.get("scheme") in ("https", "wss")
        place = Place.of(connection.headers.items(), bound=self._bound(), peer=peer)
        return Visitor(
            access=self._access(place, None),
            place=place,
            client=Client(
                address=peer,
                agent=connection.headers.get("user-agent", ""),
                device=_read(connection, cookies.DEVICE, secure=secure),
            ),
            secure=secure,
        )

    def of_program(self, connection: HTTPConnection, key: str | None) -> Visitor:
        """The person in whose name a program asks; cookies are not looked at.

        Args:
            key: that it sent; with a wrong one it is nobody's, wherever it is.

        Raises:
            RecordsError: the database could not be read.
        """
        nobody = self._nobody(connection)
        if key is None:
            return nobody
        account = self._accounts().keys.holder(key)
        return replace(nobody, access=self._access(nobody.place, account), account=account)

    def again(self, visitor: Visitor) -> Visitor:
        """The same person looked up anew: rights may have changed, and the session have ended.

        Somebody whose session has ended is nobody, wherever they are, and no guest: what is in
        their pages is not for whoever comes next.

        Raises:
            RecordsError: the database could not be read.
        """
        if visitor.token is None:
            return visitor
        found = self._known(visitor, visitor.token)
        if found.account is None:
            return replace(found, access=replace(found.access, use=False, manage=False))
        return found

    def _known(self, visitor: Visitor, token: str) -> Visitor:
        visit = self._accounts().visit(token)
        account = visit.account if visit else None
        return replace(
            visitor,
            access=self._access(visitor.place, account),
            account=account,
            token=token if account else None,
            stale=account is None,
        )

    def _access(self, place: Place, account: Account | None) -> Access:
        settings = self._settings
        return access(place, settings.auth, settings.registration, account, kiosk=settings.kiosk)


def _read(connection: HTTPConnection, cookie: str, *, secure: bool) -> str | None:
    value = cookies.read(connection.cookies, cookie, secure=secure)
    return value if value and len(value) <= _LONGEST_COOKIE else None
