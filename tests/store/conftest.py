"""Fixtures of the store's tests: tiny checkpoints, created once, and models converted from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest
from huggingface_hub import constants

from core.catalogue import Precision
from core.settings import Settings
from core.store import ModelStore, StoredModel, resolve
from tests.builders import tiny_checkpoint
from tests.store.hub_server import Hub


def conversion_children() -> list[psutil.Process]:
    """Return the child processes of this one that convert or download."""

    def converts(child: psutil.Process) -> bool:
        try:
            return "core.store.worker" in " ".join(child.cmdline())
        except psutil.NoSuchProcess:  # ended, but perhaps still a zombie
            return False

    return [child for child in psutil.Process().children() if converts(child)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run tests offline: the hub refuses connections at once, and there is no token."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``huggingface_hub`` send requests, to a local hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """A local hub without repositories."""
    with Hub() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home folder for this test."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> ModelStore:
    """An empty store."""
    return ModelStore(settings)


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny checkpoint of an architecture; do not change its content."""
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda architecture: tiny_checkpoint(architecture, root / architecture))


@pytest.fixture(scope="session")
def converted(
    tmp_path_factory: pytest.TempPathFactory, checkpoint_of: Callable[[str], Path]
) -> Callable[[str, Precision], StoredModel]:
    """A converted tiny checkpoint, created once per case; do not change it."""
    shared = ModelStore(Settings(home=tmp_path_factory.mktemp("home")))

    @cache
    def make(architecture: str, precision: Precision) -> StoredModel:
        return shared.ensure(resolve(str(checkpoint_of(architecture))), precision)

    return make
