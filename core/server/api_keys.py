"""Authentication of API requests: the key in the ``Authorization`` header, or a local guest.

Cookies are ignored, so that no page of another site can send requests as the signed-in user.
:mod:`core.server.cross_site` refuses cross-origin requests without a key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from core.api.errors import AUTHENTICATION, PERMISSION, SERVER, ApiError, api_error
from core.api.service import Caller
from core.auth import Access
from core.db import GUEST, Account
from core.errors import RecordsError, UserError
from core.server.visitor import Visitors

GUEST_KEY = "guest"
"""Means no key, for clients that require one."""
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class ApiClient:
    """An authenticated API client: the user's access and account, and the client's address."""

    access: Access
    account: Account | None
    peer: str | None

    @property
    def caller(self) -> Caller:
        """The caller for the API; guests are queued and limited by address."""
        if self.account is None:
            return Caller(GUEST, f"{GUEST} {self.peer}", self.access.manage)
        return Caller(self.account.id, self.account.id, self.access.manage)


class ApiAuthentication:
    """Authenticates API requests by key, or as a guest."""

    def __init__(self, visitors: Callable[[], Visitors]) -> None:
        self._visitors = visitors

    def authenticate(self, connection: HTTPConnection) -> Caller:
        """Identify the caller; see :class:`core.api.service.Authenticate`."""
        return self.client(connection).caller

    def authenticate_manager(self, connection: HTTPConnection) -> Caller:
        """Identify the caller, who needs the Manage permission to see all users' metrics.

        Raises:
            ApiError: the caller is not authenticated or lacks the permission.
        """
        client = self.client(connection)
        if not client.access.manage:
            raise ApiError(
                403,
                "Requires the API key of an account with the Manage permission. Ask an "
                "administrator.",
                kind=PERMISSION,
                code="forbidden",
            )
        return client.caller

    def client(self, connection: HTTPConnection) -> ApiClient:
        """Authenticate the client of a request.

        Raises:
            ApiError: the key is incorrect or missing, or the database cannot be read.
        """
        key = _key_of(connection)
        try:
            visitor = self._visitors().of_program(connection, key)
        except RecordsError as error:
            raise api_error(error) from error
        except UserError as error:  # an invalid setting
            raise ApiError(500, str(error), kind=SERVER, code="failed") from error
        if key is not None and visitor.account is None:
            raise _unauthorized("Incorrect API key. Create one on the Account page.")
        if not visitor.access.use:
            raise _unauthorized(
                "An API key is required. Create one on the Account page and send it as "
                "Authorization: Bearer pdk_…"
            )
        return ApiClient(visitor.access, visitor.account, visitor.client.address)


def _key_of(connection: HTTPConnection) -> str | None:
    """Return the key that was sent, or None for no key or :data:`GUEST_KEY`.

    Raises:
        ApiError: the header has another scheme.
    """
    header = connection.headers.get("authorization")
    if header is None:
        return None
    scheme, _, key = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized(
            "The Authorization header is not supported. Send the API key as "
            "Authorization: Bearer pdk_…"
        )
    key = key.strip()
    return None if key in ("", GUEST_KEY) else key


def _unauthorized(sentence: str) -> ApiError:
    return ApiError(401, sentence, kind=AUTHENTICATION, code="invalid_api_key", headers=_CHALLENGE)
