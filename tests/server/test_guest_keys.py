"""Placeholder keys that clients send where no key is required."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal

from tests.server.test_api_keys import ProgramSite, ask
from tests.server.world import ELSEWHERE, HERE

KEYS_OF_CLIENTS = ("EMPTY", "none", "sk-no-key-required", "sk-1234", "ollama", "lm-studio", "GUEST")


@pytest.fixture
def site(tmp_path: Path, loop: BlockingPortal) -> ProgramSite:
    return ProgramSite(tmp_path, loop, registration="open")


@pytest.mark.parametrize("key", KEYS_OF_CLIENTS)
def test_placeholder_key_is_a_guest(site: ProgramSite, key: str) -> None:
    assert ask(site.program(HERE, key)).status_code == 200
    assert site.stand_in.asked[-1][1].owner == "guest"


@pytest.mark.parametrize("key", KEYS_OF_CLIENTS)
def test_placeholder_key_is_rejected_where_guests_are_not_allowed(
    site: ProgramSite, key: str
) -> None:
    assert ask(site.program(ELSEWHERE, key)).status_code == 401


@pytest.mark.parametrize("key", ["pdk_wrong", "pdk_" + 43 * "a"])
def test_incorrect_paddock_key_is_rejected_everywhere(site: ProgramSite, key: str) -> None:
    for base in (HERE, ELSEWHERE):
        assert ask(site.program(base, key)).status_code == 401
