"""Registry of remote servers, stored in the home folder and set in the environment.

``remotes.json`` in the home folder is readable by its owner only and written atomically. API keys
are not part of :class:`Remote`: a client requests the key of a server, and gets it only if the name
still belongs to the same address.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from pydantic import BaseModel, Field, ValidationError

from core.errors import RemoteError, UnknownModelError, UserError
from core.remotes.address import clean_name, clean_url, on_this_machine
from core.settings import Settings

FILE_NAME = "remotes.json"
KEY_VARIABLE = "PADDOCK_REMOTE_KEY_"
"""Prefix of the environment variable with a server's key, followed by its name in capitals, with
``_`` for ``-``."""
_MAX_KEY = 4096
_OWNER_ONLY = 0o600


@dataclass(frozen=True)
class Remote:
    """A remote server, without its API key."""

    name: str
    url: str
    """Base URL, which usually ends in ``/v1`` or ``/v3``."""
    has_key: bool
    from_environment: bool
    """Set by ``PADDOCK_REMOTES`` and therefore read-only."""

    @property
    def host(self) -> str:
        """Host and port, for display."""
        return urlsplit(self.url).netloc

    @property
    def on_this_machine(self) -> bool:
        """Whether it certainly runs on this machine and shares its processor."""
        return on_this_machine(self.url)


class _Entry(BaseModel):
    url: str
    key: str | None = Field(None, repr=False)


class _File(BaseModel):
    remotes: dict[str, _Entry] = Field(default_factory=dict)


class RemoteRegistry:
    """The remote servers of one home folder; safe for several threads and processes."""

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            UserError: ``PADDOCK_REMOTES`` is invalid.
        """
        self._path = settings.home / FILE_NAME
        self._set = parse_setting(settings.remotes or "")

    def list(self) -> list[Remote]:
        """Return all servers by name; a file that cannot be read counts as empty."""
        try:
            stored = self._file().remotes
        except RemoteError:
            stored = {}
        urls = {name: entry.url for name, entry in stored.items()} | self._set
        return [
            Remote(
                name, urls[name], self._key(name, stored.get(name)) is not None, name in self._set
            )
            for name in sorted(urls)
        ]

    def get(self, name: str) -> Remote:
        """Return the server with this name.

        Raises:
            UnknownModelError: there is none.
        """
        for remote in self.list():
            if remote.name == name:
                return remote
        raise UnknownModelError(
            f"There is no remote server named {name!r}. Choose another model, or add the server on "
            "the Models page, which requires the Manage permission."
        )

    def key(self, remote: Remote) -> str | None:
        """Return a server's key, from the environment or else from the file, or None.

        Raises:
            RemoteError: the server was changed or removed, or the file cannot be read.
        """
        name = remote.name
        entry = None if name in self._set else self._file().remotes.get(name)
        url = self._set.get(name) or (entry.url if entry else None)
        if url != remote.url:
            raise RemoteError(
                f"The remote server {name} was changed or removed. Choose the model again."
            )
        return self._key(name, entry)

    def add(self, name: str, url: str, key: str = "") -> Remote:
        """Add a server, or replace the one with the same name.

        Raises:
            UserError: name, address or key is invalid, or the environment has a key for this
                name that was not meant for this address.
            RemoteError: the file cannot be read or written.
        """
        name, url, key = clean_name(name), clean_url(url), clean_key(key)
        self._check_changeable(name)
        with self._changing() as file:
            stored = file.remotes.get(name)
            if _environment_key(name) and (stored is None or stored.url != url):
                raise UserError(
                    f"{key_variable(name)} is the key of another server and would be sent to this "
                    "one. Choose another name, or set this server in PADDOCK_REMOTES."
                )
            entry = file.remotes[name] = _Entry(url=url, key=key or None)
            write_secret(self._path, file.model_dump_json(indent=2))
        return Remote(name, url, self._key(name, entry) is not None, from_environment=False)

    def remove(self, name: str) -> bool:
        """Remove a server and its key; return False if there was none.

        Raises:
            UserError: the server is set in the environment.
            RemoteError: the file cannot be read or written.
        """
        self._check_changeable(name)
        with self._changing() as file:
            known = file.remotes.pop(name, None) is not None
            if known:
                write_secret(self._path, file.model_dump_json(indent=2))
        return known

    def _check_changeable(self, name: str) -> None:
        if name in self._set:
            raise UserError(f"{name} is set in PADDOCK_REMOTES. Change it there.")

    def _key(self, name: str, entry: _Entry | None) -> str | None:
        stored = None if name in self._set or entry is None else entry.key
        return _environment_key(name) or stored or None

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        """Lock the file for other threads and processes while it is read and written."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._path.with_suffix(".lock")):
                yield self._file()
        except OSError as error:
            raise RemoteError(
                f"{FILE_NAME} in {self._path.parent} cannot be written "
                f"({error.strerror or error}). Nothing was changed."
            ) from error

    def _file(self) -> _File:
        """Return the content of the file, empty if it does not exist.

        Raises:
            RemoteError: it cannot be read.
        """
        try:
            return _File.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _File()
        except (OSError, ValidationError) as error:
            raise RemoteError(
                f"{FILE_NAME} in {self._path.parent} cannot be read. Repair or remove it."
            ) from error


def write_secret(path: Path, text: str) -> None:
    """Write a file atomically that only its owner can read.

    Raises:
        OSError: it cannot be written and is unchanged.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def parse_setting(text: str) -> dict[str, str]:
    """Parse ``NAME=URL`` pairs, separated by white space or commas, to base URLs by name.

    Raises:
        UserError: a pair is invalid.
    """
    found: dict[str, str] = {}
    for pair in text.replace(",", " ").split():
        name, separator, url = pair.partition("=")
        try:
            if not separator:
                raise UserError("It has no =.")
            found[clean_name(name)] = clean_url(url)
        except UserError as error:
            raise UserError(
                "PADDOCK_REMOTES needs NAME=URL pairs, such as office=http://box:8000/v1, and one "
                f"of them is invalid. {error}"
            ) from error
    return found


def _environment_key(name: str) -> str:
    return os.environ.get(key_variable(name), "").strip()


def key_variable(name: str) -> str:
    """Return the name of the environment variable for a server's key."""
    return KEY_VARIABLE + name.upper().replace("-", "_")


def clean_key(text: str) -> str:
    """Validate an API key and return it without surrounding white space.

    Raises:
        UserError: it cannot be sent in a header.
    """
    key = text.strip()
    if not all(33 <= ord(character) <= 126 for character in key) or len(key) > _MAX_KEY:
        raise UserError(
            "The API key is too long or has characters that are not allowed (spaces, line breaks, "
            "non-ASCII letters). Paste it again."
        )
    return key
