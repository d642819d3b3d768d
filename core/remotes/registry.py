"""Which remotes there are: those of the home folder and those of the environment.

``remotes.json`` in the home folder is readable by its owner alone and written whole or not at all.
Keys are in no value that is handed around: whoever connects asks for the key of a remote, and gets
it as long as the name still stands for that address.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from core.errors import PersonMistake, RemoteError, UnknownModelError
from core.remotes.address import clean_name, clean_url, host_of, on_this_machine
from core.settings import Settings

FILE_NAME = "remotes.json"
KEY_VARIABLE = "PADDOCK_REMOTE_KEY_"
"""Environment variable of a remote's key, followed by its name in capitals, ``-`` as ``_``."""
_LONGEST_KEY = 4096
_OWNER_ONLY = 0o600


@dataclass(frozen=True)
class Remote:
    """A server elsewhere; never its key."""

    name: str
    url: str
    """Base URL, as ``/v1`` or ``/v3`` ends it."""
    has_key: bool
    from_environment: bool
    """Set by ``PADDOCK_REMOTES``: it cannot be changed here."""

    @property
    def host(self) -> str:
        """Host and port, for people."""
        return host_of(self.url)

    @property
    def on_this_machine(self) -> bool:
        """Whether it certainly runs here, so that work here takes its processor's time."""
        return on_this_machine(self.url)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore")

    url: str
    key: SecretStr | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    remotes: dict[str, _Entry] = Field(default_factory=dict)


class RemoteBook:
    """The remotes of one home folder; safe to use from several threads and processes."""

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            PersonMistake: ``PADDOCK_REMOTES`` cannot be read.
        """
        self._path = settings.home / FILE_NAME
        self._set = parse_setting(settings.remotes or "")
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, int], _File] | None = None

    def list(self) -> list[Remote]:
        """All remotes by name; a file that cannot be read counts as empty here."""
        try:
            kept = self._file().remotes
        except RemoteError:
            kept = {}
        urls = {name: entry.url for name, entry in kept.items()} | self._set
        return [
            Remote(name, urls[name], self._key(name, kept.get(name)) is not None, name in self._set)
            for name in sorted(urls)
        ]

    def get(self, name: str) -> Remote:
        """The remote of this name.

        Raises:
            UnknownModelError: there is none (any more).
        """
        for remote in self.list():
            if remote.name == name:
                return remote
        raise UnknownModelError(
            f"There is no remote server named {name!r} here; choose another model, or have "
            "somebody with the right to manage add it on the Models page."
        )

    def key(self, remote: Remote) -> str | None:
        """The key of a remote, the environment's before the file's; None where it has none.

        Raises:
            RemoteError: its name stands for another address by now, or for none; or the file
                cannot be read.
        """
        name = remote.name
        entry = None if name in self._set else self._file().remotes.get(name)
        url = self._set.get(name) or (entry.url if entry else None)
        if url != remote.url:
            raise RemoteError(
                f"{name} was changed or removed meanwhile; choose the model anew and try again."
            )
        return self._key(name, entry)

    def add(self, name: str, url: str, key: str = "") -> Remote:
        """Keep a remote, in the place of one of the same name.

        Raises:
            PersonMistake: name, address or key cannot be used, or the environment holds a key for
                a server of this name that is not kept with this address.
            RemoteError: the file cannot be read or written.
        """
        name, url, key = clean_name(name), clean_url(url), clean_key(key)
        self._refuse_set(name)
        with self._changing() as file:
            kept = file.remotes.get(name)
            if _environment_key(name) and (kept is None or kept.url != url):
                raise PersonMistake(
                    f"{key_variable(name)} holds the key of another server, which this one would "
                    "get; choose another name, or set this server by PADDOCK_REMOTES."
                )
            entry = _Entry(url=url, key=SecretStr(key) if key else None)
            file.remotes[name] = entry
            self._write(file)
        return Remote(name, url, self._key(name, entry) is not None, from_environment=False)

    def remove(self, name: str) -> bool:
        """Forget a remote and its key; False where there was none.

        Raises:
            PersonMistake: the environment sets it.
            RemoteError: the file cannot be read or written.
        """
        self._refuse_set(name)
        with self._changing() as file:
            known = file.remotes.pop(name, None) is not None
            if known:
                self._write(file)
        return known

    def _refuse_set(self, name: str) -> None:
        if name in self._set:
            raise PersonMistake(f"{name} is set by PADDOCK_REMOTES; change it there.")

    def _key(self, name: str, entry: _Entry | None) -> str | None:
        kept = None if name in self._set or entry is None else entry.key
        return _environment_key(name) or (kept.get_secret_value() if kept else None) or None

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        """Hold the file against other threads and processes from reading to writing."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, FileLock(self._path.with_suffix(".lock")):
                yield self._file()
        except OSError as error:
            raise RemoteError(
                f"{FILE_NAME} cannot be written in {self._path.parent} "
                f"({error.strerror or error}); nothing was changed."
            ) from error

    def _file(self) -> _File:
        """
        Raises:
            RemoteError: it is there and cannot be read.
        """
        try:
            state = self._path.stat()
            stamp = (state.st_ino, state.st_mtime_ns)
            read = self._read
            if read is None or read[0] != stamp:
                read = (stamp, _File.model_validate_json(self._path.read_bytes()))
                self._read = read
        except FileNotFoundError:
            return _File()
        except (OSError, ValidationError) as error:
            raise RemoteError(
                f"{FILE_NAME} in {self._path.parent} cannot be read; mend or remove it."
            ) from error
        return read[1].model_copy(deep=True)

    def _write(self, file: _File) -> None:
        """
        Raises:
            OSError: it cannot be written, and is as it was.
        """
        rows = {
            name: {"url": entry.url, "key": entry.key.get_secret_value() if entry.key else None}
            for name, entry in file.remotes.items()
        }
        write_secret(self._path, json.dumps({"remotes": rows}, indent=2))


def write_secret(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
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
    """Base URLs by name, of ``NAME=URL`` pairs with white space or commas between them.

    Raises:
        PersonMistake: it is not that.
    """
    found: dict[str, str] = {}
    for pair in text.replace(",", " ").split():
        name, separator, url = pair.partition("=")
        try:
            if not separator:
                raise PersonMistake("There is no = in it.")
            found[clean_name(name)] = clean_url(url)
        except PersonMistake as error:
            raise PersonMistake(
                "PADDOCK_REMOTES takes NAME=URL pairs, such as office=http://box:8000/v1, and one "
                f"of them cannot be used: {error}"
            ) from error
    return found


def _environment_key(name: str) -> str:
    return os.environ.get(key_variable(name), "").strip()


def key_variable(name: str) -> str:
    """The environment variable that may hold a remote's key."""
    return KEY_VARIABLE + name.upper().replace("-", "_")


def clean_key(text: str) -> str:
    """
    Raises:
        PersonMistake: it cannot stand in a header.
    """
    key = text.strip()
    if not all(33 <= ord(character) <= 126 for character in key) or len(key) > _LONGEST_KEY:
        raise PersonMistake(
            "The key holds characters that no key has (spaces, line ends, letters outside ASCII); "
            "paste it again."
        )
    return key
