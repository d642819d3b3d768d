"""Fixtures with one remote server, which is scripted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.remotes import Directory, Remote, RemoteRegistry
from core.settings import Settings
from tests.remotes.scripted_server import ScriptedServer, serving


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that follows OpenAI's protocol unless a test changes it."""
    with serving() as script:
        yield script


@pytest.fixture
def directory_of(tmp_path: Path) -> Callable[..., tuple[Directory, Remote]]:
    """Create the model lists of one remote server."""

    def make(url: str, key: str = "", **options: object) -> tuple[Directory, Remote]:
        settings = Settings(home=tmp_path / "home", **options)
        book = RemoteRegistry(settings)
        return Directory(book, settings), book.add("office", url, key)

    return make
