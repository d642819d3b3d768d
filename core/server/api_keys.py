"""Authentication of API requests: the key in the ``Authorization`` header, or a local guest.

Cookies are ignored, so that no page of another site can send requests as the signed-in user.
:mod:`core.server.cross_site` refuses cross-origin requests without a key.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import HTTPConnection

from core.api.errors import AUTHENTICATION, PERMISSION, SERVER, ApiError, api_error
from core.api.service import Caller
from core.auth.keys import PREFIX
from core.db import GUEST
from core.errors import RecordsError, UserError
from core.server.visitor import Visitors

GUEST_KEY = "guest"
"""Placeholder in the documentation for clients that require a key; see :func:`is_key`."""
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class ApiAuthentication:
    """Authenticates API requests by key, or as a guest."""

    def __init__(self, visitors: Callable[[], Visitors]) -> None:
        self._visitors = visitors

    def authenticate(self, connection: HTTPConnection) -> Caller:
        """Identify the caller; see :class:`core.api.service.Authenticate`.

        Raises:
            ApiError: the key is incorrect or missing, or the database cannot be read.
        """
        sent = _key_of(connection)
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
        owner, lane = GUEST, f"{GUEST} {visitor.client.address}"  # guests are limited by address
        if visitor.account is not None:
            owner = lane = visitor.account.id
        return Caller(owner, lane, visitor.access.manage)

    def authenticate_manager(self, connection: HTTPConnection) -> None:
        """Check that the caller has the Manage permission, to see all users' metrics.

        Raises:
            ApiError: the caller is not authenticated or lacks the permission.
        """
        if not self.authenticate(connection).manages:
            raise ApiError(
                403,
                "Requires the API key of an account with the Manage permission. Ask an "
                "administrator.",
                kind=PERMISSION,
                code="forbidden",
            )


def is_key(text: str) -> bool:
    """Whether it is an API key of Paddock, correct or not.

    Anything else is a placeholder that a client sends because it requires a key, such as
    :data:`GUEST_KEY`, ``EMPTY`` or ``sk-no-key-required``: it means no key.
    """
    return text.startswith(PREFIX)


def _key_of(connection: HTTPConnection) -> str:
    """Return the key or placeholder that was sent, or an empty text."""
    header = connection.headers.get("authorization")
    if header is None:
        return ""
    scheme, _, key = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized(
            "The Authorization header is not supported. Send the API key as "
            "Authorization: Bearer pdk_…"
        )
    return key.strip()


def _unauthorized(sentence: str) -> ApiError:
    return ApiError(401, sentence, kind=AUTHENTICATION, code="invalid_api_key", headers=_CHALLENGE)
