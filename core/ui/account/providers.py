"""Sign-in with OpenID Connect providers from the ``[auth]`` section of Streamlit's secrets.

Streamlit's own routes talk to the provider and set a signed cookie with the user's identity. That
cookie is exchanged once for a Paddock session and then deleted, so that these users are signed out,
disabled and limited like all others.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from streamlit import auth_util
from streamlit.errors import StreamlitAuthError
from streamlit.user_info import generate_login_redirect_url
from streamlit.web.server.starlette import starlette_auth_routes as signed_cookies
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from core.auth import ProviderUser
from core.server.routes import Providers

_DEFAULT = "default"
_LOGIN = "auth/login"
"""Streamlit's sign-in route, below the URL prefix."""
_LONGEST_SUBJECT = 1024

logger = logging.getLogger(__name__)


class SecretsProviders(Providers):
    """Providers of ``.streamlit/secrets.toml``."""

    def links(self) -> list[tuple[str, str]]:
        """Return address and text of the link to each configured provider."""
        found = []
        for name in _names():
            try:
                auth_util.validate_auth_credentials(name)
                address = _LOGIN + generate_login_redirect_url(name).rpartition(_LOGIN)[2]
            except StreamlitAuthError as error:
                logger.warning("Sign-in with the provider %s is not available: %s", name, error)
                continue
            label = "your organisation" if name == _DEFAULT else name.capitalize()
            found.append((address, f"Sign in with {label}"))
        return found

    def user(self, request: Request) -> ProviderUser | None:
        """Return the user whom a provider has authenticated in this browser."""
        if USER_COOKIE_NAME not in request.cookies or not _names():
            return None
        claims = _claims(request)
        issuer, subject = claims.get("iss"), claims.get("sub")
        ours = claims.get("origin") == auth_util.get_origin_from_redirect_uri()
        if not (ours and claims.get("is_logged_in") is True and issuer and subject):
            return None
        whole = f"{issuer} {subject}"
        if len(whole) > _LONGEST_SUBJECT:
            return None
        return ProviderUser(whole, _suggested_name(claims))

    def forget(self, request: Request, response: Response) -> None:
        """Delete Streamlit's sign-in cookies."""
        if any(name.startswith(USER_COOKIE_NAME) for name in request.cookies):
            signed_cookies._clear_auth_cookie(response, request)


def _names() -> list[str]:
    section = auth_util.get_secrets_auth_section()
    named = [
        str(name)
        for name in section
        if hasattr(section[name], "get") and section[name].get("client_id")
    ]
    return [*([_DEFAULT] if section.get("client_id") else []), *named]


def _claims(request: Request) -> dict[str, Any]:
    """Return the claims of the signed cookie; empty if it is missing, invalid or incomplete."""
    value = signed_cookies._get_cookie_value_from_request(request, USER_COOKIE_NAME)
    try:
        claims = json.loads(value) if value else {}
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def _suggested_name(claims: dict[str, Any]) -> str:
    for claim in ("preferred_username", "name", "email"):
        text = str(claims.get(claim) or "").partition("@")[0].strip()
        if text:
            return ".".join(text.split())[:32]
    return ""
