"""How remote servers and their models are written: ``remote:NAME/MODEL``, and base URLs."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from core.errors import PersonMistake

MARK = "remote:"
"""What the name of a remote's model begins with; no key, hub id or folder does."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_LONGEST_MODEL = 300
_LONGEST_URL = 500


class RemoteModelName(NamedTuple):
    """The two halves of ``remote:NAME/MODEL``."""

    remote: str
    model: str
    """As the server calls it; it may hold slashes."""


def is_remote(name: str) -> bool:
    """Whether a model's name says that a server elsewhere has it."""
    return name.startswith(MARK)


def model_name(remote: str, model: str) -> str:
    """What a model of a remote is called here."""
    return f"{MARK}{remote}/{model}"


def split_name(name: str) -> RemoteModelName:
    """The remote and the model that a name means.

    Raises:
        PersonMistake: it is not of the form ``remote:NAME/MODEL``.
    """
    remote, _, model = name.removeprefix(MARK).partition("/")
    sound = is_remote(name) and _NAME.fullmatch(remote) and model.isprintable()
    if not (sound and 0 < len(model.strip()) <= _LONGEST_MODEL):
        raise PersonMistake(
            f"{name[:_LONGEST_MODEL]!r} names no model of a remote server; write "
            "remote:NAME/MODEL, such as remote:office/qwen3-8b."
        )
    return RemoteModelName(remote, model)


def clean_name(text: str) -> str:
    """The name of a remote.

    Raises:
        PersonMistake: it cannot be one.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise PersonMistake(
            f"{text.strip()[:40]!r} cannot be the name of a remote; take 1 to 32 small letters, "
            "digits and hyphens, such as office."
        )
    return name


def clean_url(text: str) -> str:
    """A base URL without a slash at its end.

    Raises:
        PersonMistake: it is not the http(s) address of a host, or holds more than an address.
    """
    url = text.strip()
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - a ValueError where it is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > _LONGEST_URL:
        raise PersonMistake(
            "The address is not one of a server; write the base URL of its API, such as "
            "http://box:8000/v1."
        )
    if "@" in parts.netloc:
        raise PersonMistake(
            "The address holds a name or password; leave them out, the key has a field of its own."
        )
    if parts.query or parts.fragment or not url.isprintable() or " " in url or "\\" in url:
        raise PersonMistake(
            "The address holds more than scheme, host, port and path; write the base URL of its "
            "API, such as http://box:8000/v1."
        )
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path.rstrip("/"), "", ""))


def host_of(url: str) -> str:
    """Host and port of a base URL, for people."""
    return urlsplit(url).netloc


def on_this_machine(url: str) -> bool:
    """Whether the server certainly runs on this machine: its host is a loopback address."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
