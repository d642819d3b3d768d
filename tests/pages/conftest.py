"""Fixtures of the page tests. By default the user is a guest at this machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.auth import Client, Place, access
from core.benchmark import decode_rate
from core.server.visitor import Visitor
from core.settings import AuthMode
from core.ui.widgets import person
from tests.fakes import FakeCores

HERE = Place(bound="127.0.0.1", hosts=("localhost:8501",), forwarded=False, peer="127.0.0.1")
GUEST_HERE = Visitor(
    access(HERE, AuthMode.AUTO, None),
    HERE,
    Client("127.0.0.1"),
    secure=False,
)


@pytest.fixture(autouse=True)
def visitor(monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """Make the user of the pages a guest at this machine."""
    monkeypatch.setattr(person, "_current_visitor", lambda: GUEST_HERE)
    return GUEST_HERE


@pytest.fixture(autouse=True)
def _near_cores(cores: FakeCores) -> None:
    """Simulate near cores, so that no measurement is marked because of this machine's host."""


@pytest.fixture(autouse=True)
def _known_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the process that measures the memory read bandwidth for estimated rates."""
    monkeypatch.setattr(decode_rate, "read_bandwidth_apart", lambda seconds: 20e9)


@pytest.fixture
def without_rights(monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """Make the user a remote one without the Manage permission."""
    elsewhere = replace(
        GUEST_HERE,
        access=replace(GUEST_HERE.access, manage=False),
        place=replace(HERE, hosts=("paddock.example",)),
    )
    monkeypatch.setattr(person, "_current_visitor", lambda: elsewhere)
    return elsewhere
