"""Authentication of API requests: the key in the ``Authorization`` header, or a local guest.

Cookies are ignored, so that no page of another site can send requests as the signed-in user.
:mod:`core.server.cross_site` refuses cross-origin requests without a key.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from core.api.errors import AUTHENTICATION, PERMISSION, SERVER, ApiError, api_error
from core.auth.keys import PREFIX
from core.db import GUEST
from core.errors import RecordsError, UserError
from core.inference.request import User
from core.server.visitor import Visitor, Visitors

GUEST_KEY = "guest"
"""Placeholder in the documentation for clients that require a key; see :func:`is_key`."""
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class ApiAuthentication:
    """Authenticates API requests by key, or as a guest."""

    def __init__(self, visitors: Callable[[], Visitors]) -> None:
        self._visitors = visitors

    def authenticate(self, connection: HTTPConnection) -> User:
        """See :data:`core.api.service.Authenticate`.

        Raises:
            ApiError: the key is incorrect or missing, or the database cannot be read.
        """
        visitor = self._visitor(connection)
        if visitor.account is not None:
            return User(visitor.account.id, visitor.account.id)
        return User(lane=f"{GUEST} {visitor.client.address}")  # guests are limited by address

    def authenticate_manager(self, connection: HTTPConnection) -> None:
        """Check that the caller has the Manage permission, to see all users' metrics.

        Raises:
            ApiError: the caller is not authenticated or lacks the permission.
        """
        if not self._visitor(connection).access.manage:
            raise ApiError(
                403,
                "Requires the API key of an account with the Manage permission. Ask an "
                "administrator.",
                kind=PERMISSION,
                code="forbidden",
            )

    def _visitor(self, connection: HTTPConnection) -> Visitor:
        sent = sent_key(connection.headers)
        if sent is None:
            raise _unauthorized(
                "The Authorization header is not supported. Send the API key as "
                "Authorization: Bearer pdk_…"
            )
        key = sent if is_key(sent) else None
        try:
            visitor = self._visitors().of_program(connection, key)
        except RecordsError as error:
            raise api_error(error) from error
        except UserError as error:  # an invalid setting
            raise ApiError(500, str(error), kind=SERVER, code="failed") from error
        refused = sent and not visitor.access.use
        if refused or (key is not None and visitor.account is None):
            raise _unauthorized("Incorrect API key. Create one on the Account page.")
        if not visitor.access.use:
            raise _unauthorized(
                "An API key is required. Create one on the Account page and send it as "
                "Authorization: Bearer pdk_…"
            )
        return visitor


def is_key(text: str) -> bool:
    """Whether it is an API key of Paddock, correct or not.

    Anything else is a placeholder that a client sends because it requires a key, such as
    :data:`GUEST_KEY`, ``EMPTY`` or ``sk-no-key-required``: it means no key.
    """
    return text.startswith(PREFIX)


def sent_key(headers: Headers) -> str | None:
    """Return the key or placeholder that was sent; None if the header has another scheme."""
    scheme, _, key = headers.get("authorization", "bearer").strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _unauthorized(sentence: str) -> ApiError:
    return ApiError(401, sentence, kind=AUTHENTICATION, code="invalid_api_key", headers=_CHALLENGE)
