"""Fixtures of the store's tests: tiny checkpoints, built once, and what was converted from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.settings import Settings
from core.store import ModelStore, StoredModel, resolve
from tests.builders import tiny_checkpoint


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run offline: a hub that refuses connections at once, and no token."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose home folder is this test's own."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> ModelStore:
    """An empty store."""
    return ModelStore(settings)


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny checkpoint of an architecture; do not change what is in it."""
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda architecture: tiny_checkpoint(architecture, root / architecture))


@pytest.fixture(scope="session")
def converted(
    tmp_path_factory: pytest.TempPathFactory, checkpoint_of: Callable[[str], Path]
) -> Callable[[str, Precision], StoredModel]:
    """A converted tiny checkpoint, made once per architecture and precision; leave it as it is."""
    shared = ModelStore(Settings(home=tmp_path_factory.mktemp("home")))

    @cache
    def make(architecture: str, precision: Precision) -> StoredModel:
        return shared.ensure(resolve(str(checkpoint_of(architecture))), precision)

    return make
