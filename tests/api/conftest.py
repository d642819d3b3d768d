"""A running Paddock with its demo models, for API clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.inference.engine import Engine
from core.settings import Settings
from tests.auth.samples import GOOD
from tests.browser.conftest import serving


@dataclass(frozen=True)
class Served:
    """Its URL, and direct access to its records and accounts."""

    url: str
    engine: Engine

    @property
    def base(self) -> str:
        """The base URL for clients."""
        return f"{self.url}/v1"

    def key(self, name: str) -> str:
        """A new API key of an account, which is created if needed."""
        account = self.engine.accounts.make_administrator(name, GOOD)
        return self.engine.accounts.keys.make(account.id, "test")


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, put_demo: Callable[..., None]
) -> Iterator[Served]:
    """The app with its default configuration."""
    home: Path = tmp_path_factory.mktemp("api")
    put_demo(home / "paddock", Precision.INT8)
    with serving("streamlit_app.py", home) as url:
        engine = Engine(Settings(home=home / "paddock"))
        yield Served(url, engine)
        engine.close()
