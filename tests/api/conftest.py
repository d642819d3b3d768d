"""One running Paddock with its own weights, for the clients of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.engine import Engine
from core.settings import Settings
from tests.auth.samples import GOOD
from tests.browser.conftest import serving


@dataclass(frozen=True)
class Served:
    """Where it is, and its records and accounts from aside."""

    url: str
    engine: Engine

    @property
    def base(self) -> str:
        """What clients call the base URL."""
        return f"{self.url}/v1"

    def key(self, name: str) -> str:
        """A new API key of an account, which is made where there is none."""
        account = self.engine.accounts.make_administrator(name, GOOD)
        return self.engine.accounts.keys.make(account.id, "test").secret


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The app as it is started by everybody, on this machine."""
    home: Path = tmp_path_factory.mktemp("api")
    with serving("streamlit_app.py", home) as url:
        engine = Engine(Settings(home=home / "paddock"))
        yield Served(url, engine)
        engine.close()
