"""Fixtures of the tests of accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.auth.samples import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Accounts where anybody may register, with cheap hashing and a clock set by hand."""
    made = World(tmp_path)
    yield made
    made.store.close()
