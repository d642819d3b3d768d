"""Names of remote models (``remote:NAME/MODEL``), and base URLs of remote servers."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from core.errors import UserError

MARK = "remote:"
"""Prefix of the names of remote models; catalogue keys, hub ids and folders never have it."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_MAX_MODEL = 300
_MAX_URL = 500


class RemoteModelName(NamedTuple):
    """The two parts of ``remote:NAME/MODEL``."""

    remote: str
    model: str
    """The server's name of the model, which may contain slashes."""


def is_remote(name: str) -> bool:
    """Whether this is the name of a remote model."""
    return name.startswith(MARK)


def model_name(remote: str, model: str) -> str:
    """Return the name of a remote server's model."""
    return f"{MARK}{remote}/{model}"


def split_name(name: str) -> RemoteModelName:
    """Split the name of a remote model into server and model.

    Raises:
        UserError: it is not of the form ``remote:NAME/MODEL``.
    """
    remote, _, model = name.removeprefix(MARK).partition("/")
    valid = is_remote(name) and _NAME.fullmatch(remote) and model.isprintable()
    if not (valid and 0 < len(model.strip()) <= _MAX_MODEL):
        raise UserError(
            f"{name[:_MAX_MODEL]!r} is not the name of a remote model. Write remote:NAME/MODEL, "
            "such as remote:office/qwen3-8b."
        )
    return RemoteModelName(remote, model)


def clean_name(text: str) -> str:
    """Validate the name of a remote server and return it in lower case.

    Raises:
        UserError: it is not valid.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{text.strip()[:40]!r} is not a valid server name. Use 1 to 32 lower-case letters, "
            "digits and hyphens, such as office."
        )
    return name


def clean_url(text: str) -> str:
    """Validate a base URL and return it without a trailing slash.

    Raises:
        UserError: it is not an http(s) URL, or has credentials, a query or a fragment.
    """
    url = text.strip()
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError if it is not a number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > _MAX_URL:
        raise UserError(
            "The address is not an http or https URL. Enter the base URL of the API, such as "
            "http://box:8000/v1."
        )
    if "@" in parts.netloc:
        raise UserError(
            "The address contains a user name or password. Remove them, and enter the API key in "
            "its own field."
        )
    if parts.query or parts.fragment or not url.isprintable() or " " in url or "\\" in url:
        raise UserError(
            "The address has more than scheme, host, port and path. Enter the base URL of the API, "
            "such as http://box:8000/v1."
        )
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path.rstrip("/"), "", ""))


def on_this_machine(url: str) -> bool:
    """Whether the server certainly runs on this machine, because its host is loopback."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
