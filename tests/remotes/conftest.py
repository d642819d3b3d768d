"""A directory with one remote: a scripted server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.remotes import Directory, Remote, RemoteBook
from core.settings import Settings
from tests.remotes.scripted_server import ScriptedServer, serving


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that answers as OpenAI's protocol has it, until a test says otherwise."""
    with serving() as script:
        yield script


@pytest.fixture
def directory_of(tmp_path: Path) -> Callable[..., tuple[Directory, Remote]]:
    """Makes the directory of one remote."""

    def make(url: str, key: str = "", **options: object) -> tuple[Directory, Remote]:
        settings = Settings(home=tmp_path / "home", **options)
        book = RemoteBook(settings)
        return Directory(book, settings), book.add("office", url, key)

    return make
