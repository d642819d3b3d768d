"""The health route, and garbage collection in the server."""

from __future__ import annotations

import tomllib

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.app import health_routes
from core.settings import CHECKOUT


def test_script_runs_do_not_trigger_full_garbage_collections():
    with (CHECKOUT / ".streamlit" / "config.toml").open("rb") as file:
        assert tomllib.load(file)["runner"]["postScriptGC"] is False


@pytest.mark.parametrize("prefix", ["", "/team"])
def test_health_route_at_the_root_and_below_the_prefix(prefix: str):
    client = TestClient(Starlette(routes=health_routes(prefix)))
    for path in ("/healthz", f"{prefix}/healthz"):
        assert client.get(path).text == "ok", path
