"""Who a program asks for: the key in its ``Authorization`` header, or a guest at this machine.

Cookies are not looked at, so that no page of another site can ask in the name of whoever is signed
in. A guest's request must not come from another site's page either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from core.api.errors import AUTHENTICATION, PERMISSION, SERVER, ApiError, api_error
from core.api.service import Caller
from core.auth import Access
from core.db import GUEST, Account
from core.errors import PersonMistake, RecordsError
from core.server.forms import from_this_site, typed
from core.server.visitor import Visitors

GUESTS_KEY = "guest"
"""Stands for no key at all: most clients insist on sending one."""
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Program:
    """A program that may ask, and in whose name."""

    access: Access
    account: Account | None
    peer: str | None

    @property
    def caller(self) -> Caller:
        """As the protocol needs to know it: guests take turns by their address."""
        if self.account is None:
            return Caller(GUEST, f"{GUEST} {self.peer}", self.access.manage)
        return Caller(self.account.id, self.account.id, self.access.manage)


class Programs:
    """Lets programs in; :class:`core.server.visitor.Visitors` tells who they are."""

    def __init__(self, visitors: Callable[[], Visitors]) -> None:
        self._visitors = visitors

    def admit(self, connection: HTTPConnection) -> Caller:
        """See :class:`core.api.service.Admission`."""
        return self.program(connection).caller

    def admit_manager(self, connection: HTTPConnection) -> Caller:
        """Lets in who may manage: figures of all people's answers are nobody else's.

        Raises:
            ApiError: they may not.
        """
        program = self.program(connection)
        if not program.access.manage:
            raise ApiError(
                403,
                "These figures take the key of somebody with the right to manage.",
                kind=PERMISSION,
                code="forbidden",
            )
        return program.caller

    def program(self, connection: HTTPConnection) -> Program:
        """Who asks.

        Raises:
            ApiError: a wrong key, or none where one is needed; or they cannot be told.
        """
        key = _key_of(connection)
        try:
            visitor = self._visitors().of_program(connection, key)
        except RecordsError as error:
            raise api_error(error) from error
        except PersonMistake as error:  # a setting that cannot be
            raise ApiError(500, str(error), kind=SERVER, code="failed") from error
        if key is not None and visitor.account is None:
            raise _unauthorized("This API key does not hold; make one on the Account page.")
        if not visitor.access.use:
            raise _unauthorized(
                "An API key is needed: make one on the Account page and send it as "
                "Authorization: Bearer pdk_…"
            )
        if key is None and not (from_this_site(connection) or typed(connection)):
            raise ApiError(
                403, "Another site's page may not ask here.", kind=PERMISSION, code="forbidden"
            )
        return Program(visitor.access, visitor.account, visitor.client.address)


def _key_of(connection: HTTPConnection) -> str | None:
    """The key that was sent; None where there is none, or the one that stands for none.

    Raises:
        ApiError: it was sent in another way.
    """
    header = connection.headers.get("authorization")
    if header is None:
        return None
    scheme, _, key = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized("Send the API key as Authorization: Bearer pdk_…")
    key = key.strip()
    return None if key in ("", GUESTS_KEY) else key


def _unauthorized(sentence: str) -> ApiError:
    return ApiError(401, sentence, kind=AUTHENTICATION, code="invalid_api_key", headers=_CHALLENGE)
