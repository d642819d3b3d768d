"""Fixtures of the account tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.auth.samples import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Accounts with open registration, cheap hashing and a manual clock."""
    made = World(tmp_path)
    yield made
    made.store.close()
