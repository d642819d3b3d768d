"""Requests that a page of another site sends, to the middleware alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from starlette.types import Message, Receive, Scope, Send

from core.server.api_keys import is_key
from core.server.cross_site import CrossSiteMiddleware
from core.server.headers import FORM_POLICY
from core.server.paths import PAGES
from tests.auth.samples import hostile_texts

_THREAD = ThreadPoolExecutor(1)
"""Its own thread, because Playwright's event loop runs in the tests' thread."""

CHANGES = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post")
FORM, UPLOAD, API, METRICS = "/sign-in", "/_stcore/upload_file/a/b", "/v1/models", "/metrics"
CROSS_SITE = (
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site", "origin": "http://a.example"},
    {"sec-fetch-site": ""},
    {"sec-fetch-site": "Same-Origin"},
    {"origin": "http://a.example.evil"},
    {"origin": "http://a.example:8080"},
    {"origin": "http://sub.a.example"},
    {"origin": "null"},
    {"origin": "http://evil@a.example"},
    {"origin": "chrome-extension://abcdef"},
    {"origin": "a.example"},
    {"origin": "http://[a.example"},
    {"origin": ""},
)
OWN = (
    {"sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "same-origin", "origin": "http://rewritten-by-a-proxy"},
    {"origin": "http://a.example"},
    {"origin": "https://A.example"},
    {},
)


def sent(
    path: str,
    method: str = "GET",
    *,
    kind: str = "http",
    prefix: str = "",
    is_key: Callable[[str], bool] = is_key,
    **headers: str,
) -> list[Message]:
    """Return the messages to a client; "passed" is the response of the application."""
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "passed"})

    async def receive() -> Message:
        return {"type": f"{kind}.connect"}

    async def send(message: Message) -> None:
        messages.append(message)

    given = {"host": "a.example"} | headers
    scope: dict[str, Any] = {
        "type": kind,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    if kind == "http":
        scope["method"] = method
    middleware = CrossSiteMiddleware(app, prefix=prefix, is_key=is_key)
    _THREAD.submit(lambda: asyncio.run(middleware(scope, receive, send))).result()
    return messages


def passed(path: str, method: str = "GET", **options: Any) -> bool:
    messages = sent(path, method, **options)
    if messages == [{"type": "passed"}]:
        return True
    assert messages[0]["type"] == "websocket.close" or messages[0]["status"] == 403
    return False


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize("path", [FORM, UPLOAD, API, "/unknown", "/models"])
def test_changes_are_accepted_from_this_site_only(path: str, method: str):
    assert all(passed(path, method, **headers) for headers in OWN)
    assert not any(passed(path, method, **headers) for headers in CROSS_SITE)
    assert not passed(path, method, **{"sec-fetch-site": "none"}), "no page was submitted"


@pytest.mark.parametrize("path", ["/", "/sign-in", *(f"/{page}" for page in PAGES)])
def test_links_of_other_sites_open_pages(path: str):
    page = {"accept": "text/html"}
    for headers in (*CROSS_SITE, *OWN, {"sec-fetch-site": "none"}):
        assert passed(path, **headers, **page) and passed(path, "HEAD", **headers, **page)


@pytest.mark.parametrize("path", [API, METRICS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_api_is_read_by_this_site_by_programs_and_by_hand(path: str, method: str):
    assert all(passed(path, method, **headers) for headers in OWN)
    assert passed(path, method, **{"sec-fetch-site": "none"})
    assert not any(passed(path, method, **headers) for headers in CROSS_SITE)


def test_api_key_is_accepted_from_every_origin_by_the_api_only():
    for headers in CROSS_SITE:
        key = headers | {"authorization": "Bearer pdk_x"}
        assert passed(API, "POST", **key) and passed(API, **key)
        assert not passed(FORM, "POST", **key) and not passed(UPLOAD, "PUT", **key)
        ignored = passed(API, "POST", is_key=lambda key: False, **key)
        assert not ignored, "a server that ignores keys"


@pytest.mark.parametrize(
    "sent_by_browsers_or_no_key",
    ["", "Bearer", "Bearer guest", "bearer  EMPTY ", "Bearer sk-1", "Basic YTpi"],
)
def test_other_authorization_is_no_api_key(sent_by_browsers_or_no_key: str):
    headers = {"sec-fetch-site": "cross-site", "authorization": sent_by_browsers_or_no_key}
    assert not passed(API, "POST", **headers) and not passed(API, **headers)


def test_websocket_is_accepted_by_its_origin():
    def opened(**headers: str) -> bool:
        return passed("/_stcore/stream", kind="websocket", **headers)

    assert opened() and opened(origin="http://a.example")
    assert opened(**{"origin": "http://a.example", "sec-fetch-site": "cross-site"})
    elsewhere = [each["origin"] for each in CROSS_SITE if "sec-fetch-site" not in each]
    assert not any(opened(origin=origin) for origin in elsewhere)
    assert not opened(**{"origin": "http://evil.example", "sec-fetch-site": "same-origin"})
    assert not opened(**{"origin": "http://evil.example", "authorization": "Bearer pdk_x"})
    refused = sent("/_stcore/stream", kind="websocket", origin="null")
    assert refused == [{"type": "websocket.close", "code": 1008}]


def test_origin_without_host_is_refused():
    for host in ("", " "):
        assert not passed(FORM, "POST", origin="http://", host=host)
        assert not passed(FORM, "POST", origin="http://a.example", host=host)


def test_refusal_is_json_for_the_api_and_a_page_without_links_of_the_sender_otherwise():
    api, form = (
        sent(path, "POST", prefix="/team", origin="http://evil.example")
        for path in ("/team/v1/completions", "/team/javascript:alert(1)")
    )
    assert b'"code":"forbidden"' in api[1]["body"]
    assert dict(form[0]["headers"])[b"content-security-policy"] == FORM_POLICY.encode()
    assert b"Cross-origin requests are not allowed." in form[1]["body"]
    assert b"alert(1)" not in form[1]["body"] and b"<script" not in form[1]["body"]


def test_lifespan_passes():
    assert passed("", kind="lifespan", origin="http://evil.example")


@given(hostile_texts)
def test_hostile_headers_are_cross_site(text: str):
    value = text.encode("utf-8", "replace").decode("latin-1")
    if value.strip().lower() not in ("http://a.example", "https://a.example"):
        assert not passed(FORM, "POST", origin=value)
    if value != "same-origin":
        assert not passed(FORM, "POST", **{"sec-fetch-site": value})
