"""The health route, the order of the middleware, and garbage collection in the server."""

from __future__ import annotations

import tomllib

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.app import health_routes, middleware
from core.server.cross_site import CrossSiteMiddleware
from core.server.headers import SecurityHeaders
from core.server.middleware import AuthMiddleware
from core.settings import CHECKOUT


def test_script_runs_do_not_trigger_full_garbage_collections():
    with (CHECKOUT / ".streamlit" / "config.toml").open("rb") as file:
        assert tomllib.load(file)["runner"]["postScriptGC"] is False


def test_cross_site_requests_are_refused_before_authentication_and_with_security_headers():
    classes = [each.cls for each in middleware]
    assert classes[:3] == [SecurityHeaders, CrossSiteMiddleware, AuthMiddleware]


@pytest.mark.parametrize("prefix", ["", "/team"])
def test_health_route_at_the_root_and_below_the_prefix(prefix: str):
    client = TestClient(Starlette(routes=health_routes(prefix)))
    for path in ("/healthz", f"{prefix}/healthz"):
        assert client.get(path).text == "ok", path
