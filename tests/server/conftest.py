"""Fixtures of the server tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.server.world import Site


@pytest.fixture(scope="session")
def loop() -> Iterator[BlockingPortal]:
    """The event loop of all requests, as on a server, because shared objects belong to a loop."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def site_with(tmp_path: Path, loop: BlockingPortal) -> Iterator[Callable[..., Site]]:
    """Create a site with these settings."""
    with ExitStack() as opened:

        def make(**settings: object) -> Site:
            site = Site(tmp_path, loop, **settings)
            opened.callback(site.store.close)
            return site

        yield make


@pytest.fixture
def site(site_with: Callable[..., Site]) -> Site:
    """A site where sign-in is required and anybody may register."""
    return site_with(auth="required")
