"""The server beside its pages: its health, and what keeps the garbage collector out of the way."""

from __future__ import annotations

import tomllib

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.app import health_routes
from core.settings import CHECKOUT


def test_no_full_collection_follows_each_drawing():
    with (CHECKOUT / ".streamlit" / "config.toml").open("rb") as file:
        assert tomllib.load(file)["runner"]["postScriptGC"] is False


@pytest.mark.parametrize("prefix", ["", "/team"])
def test_health_is_told_at_the_root_and_below_the_prefix(prefix: str):
    client = TestClient(Starlette(routes=health_routes(prefix)))
    for path in ("/healthz", f"{prefix}/healthz"):
        assert client.get(path).text == "ok", path
