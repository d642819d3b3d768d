"""The health route, the order of the middleware, and garbage collection in the server."""

from __future__ import annotations

import tomllib

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.app import health_routes, middleware, page_routes
from core.server.cross_site import CrossSiteMiddleware
from core.server.headers import SecurityHeaders
from core.server.middleware import AuthMiddleware
from core.settings import CHECKOUT
from core.ui.widgets import scripts


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


@pytest.mark.parametrize("prefix", ["", "/team"])
def test_every_page_has_the_scripts_that_the_policy_allows(prefix: str):
    client = TestClient(Starlette(routes=page_routes(prefix)), follow_redirects=False)
    page = client.get(f"{prefix}/models?model=x", headers={"accept": "text/html"})
    assert page.text.count(f"<script>{scripts.HEAD}</script></head>") == 1
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["set-cookie"].startswith("paddock_browser=")
    again = client.get(f"{prefix}/models", headers={"accept": "text/html"})
    assert "set-cookie" not in again.headers, "the browser has its cookie"
    root = client.get(f"{prefix}/?model=x")
    assert (root.status_code, root.headers["location"]) == (
        307,
        f"{prefix}/instruct?model=x".removeprefix("" if prefix else "/"),
    )
    for chunk in ("PlotlyChart.", "rehype-raw."):
        assert chunk in scripts.PRELOAD, "the file exists in this Streamlit"
    assert scripts.HEAD in scripts.ALL and scripts.PRELOAD in scripts.HEAD
    assert not scripts._imports("NoSuchPartOfIt")
