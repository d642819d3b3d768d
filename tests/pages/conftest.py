"""Pages without a browser are those of whoever sits at the machine, unless told otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.auth import Client, Place, access
from core.server.visitor import Visitor
from core.settings import AuthMode, Registration
from core.ui.widgets import person
from tests.fakes import FakeCores

HERE = Place(bound="127.0.0.1", hosts=("localhost:8501",), forwarded=False, peer="127.0.0.1")
GUEST_HERE = Visitor(
    access(HERE, AuthMode.AUTO, Registration.INVITATION, None),
    HERE,
    Client("127.0.0.1"),
    secure=False,
)


@pytest.fixture(autouse=True)
def visitor(monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """The person of the pages: a guest on this machine."""
    monkeypatch.setattr(person, "_current_visitor", lambda: GUEST_HERE)
    return GUEST_HERE


@pytest.fixture(autouse=True)
def _near_cores(cores: FakeCores) -> None:
    """What was measured is not marked, however this machine's host treats it."""


@pytest.fixture
def without_rights(monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """Somebody who may use the pages from elsewhere, and has not the right to manage."""
    elsewhere = replace(
        GUEST_HERE,
        access=replace(GUEST_HERE.access, manage=False),
        place=replace(HERE, hosts=("paddock.example",)),
    )
    monkeypatch.setattr(person, "_current_visitor", lambda: elsewhere)
    return elsewhere
