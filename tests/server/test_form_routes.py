"""The middleware and the forms over HTTP."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin

import pytest
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from core.auth import ProviderUser
from core.db import GUEST, Role, RunStore, VoteStore
from core.errors import RecordsError
from core.server.connections import Connections
from core.server.headers import ALWAYS, FORM_POLICY
from core.server.middleware import CONNECTION_HEADER, OWNER_HEADER, AuthMiddleware
from core.server.paths import PAGES
from core.server.routes import Providers
from tests.auth.samples import GOOD, HOSTILE, OTHER
from tests.db.run_samples import a_result, a_start
from tests.server.world import ELSEWHERE, HERE, Browser, Site, errors
from tests.waiting import PATIENCE_S

FORMS = ("sign-in", "register", "sign-out", "change-password", "delete-account")
PROXY = {"x-forwarded-for": "203.0.113.9"}
INSIDE = (
    "media/0123456789abcdef.json",
    "_stcore/upload_file/session/file",
    "component/x/y.js",
    "_stcore/host-config",
    "_stcore/metrics",
    "_stcore/agent/interact",
    "_stcore/bidi-components/x/y.js",
    "static/js/index.js",
    "unknown",
    "instruct/_stcore/health",
)
_INCORRECT = "Incorrect user name or password."


# The middleware


@pytest.mark.parametrize("page", [*PAGES, ""])
def test_signed_out_pages_redirect_to_sign_in_and_nothing_runs(site: Site, page: str) -> None:
    answer = site.browser().get(f"{page}?model=x")
    assert answer.status_code == 303
    wanted = page or "instruct"
    assert answer.headers["location"] == f"sign-in?next={wanted}%3Fmodel%3Dx"
    assert answer.headers["cache-control"] == "no-store"
    assert site.ran == []


@pytest.mark.parametrize("path", ["/instruct/", "//instruct", "/instruct//"])
def test_additional_slashes_redirect_to_sign_in(site: Site, path: str) -> None:
    answer = site.browser().http.get(f"{HERE}{path}")
    assert urljoin(f"{HERE}{path}", answer.headers["location"]) == f"{HERE}/sign-in"


@pytest.mark.parametrize("path", INSIDE)
def test_signed_out_other_paths_are_rejected(site: Site, path: str) -> None:
    browser = site.browser()
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert browser.http.request(method, f"/{path}").status_code == 401, method
    assert site.ran == []


@pytest.mark.parametrize("path", PAGES)
def test_post_to_a_page_is_rejected(site: Site, path: str) -> None:
    assert site.browser().http.post(f"/{path}").status_code == 401


def test_signed_out_websocket_is_rejected(site: Site) -> None:
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
        site.browser().stream().__enter__()
    assert site.ran == []


def test_health_and_forms_are_public(site: Site) -> None:
    browser = site.browser(ELSEWHERE, "203.0.113.9", **PROXY)
    assert browser.get("healthz").text == "the page"
    for path in ("sign-in", "register", "paddock.css", "paddock.svg"):
        assert browser.get(path).status_code == 200, path


@pytest.mark.parametrize(
    ("base", "peer", "headers", "guest"),
    [
        (HERE, "127.0.0.1", {}, True),
        ("http://127.0.0.1:8501", "127.0.0.1", {}, True),
        ("http://[::1]:8501", "::1", {}, True),
        (HERE, "127.0.0.1", PROXY, False),
        (HERE, "127.0.0.1", {"forwarded": "for=1.2.3.4"}, False),
        (HERE, "127.0.0.1", {"via": "1.1 proxy"}, False),
        (HERE, "127.0.0.1", {"X_Forwarded_For": "1.2.3.4"}, False),
        (HERE, "203.0.113.9", {}, False),
        (ELSEWHERE, "127.0.0.1", {}, False),
        ("http://localhost.evil.example", "127.0.0.1", {}, False),
        ("http://paddock.localhost", "127.0.0.1", {}, False),
    ],
)
def test_guests_are_allowed_on_this_machine_only(
    site_with: Callable[..., Site], base: str, peer: str, headers: dict[str, str], guest: bool
) -> None:
    site = site_with()
    answer = site.browser(base, peer, **headers).get("models")
    assert (answer.status_code == 200) is guest
    assert bool(site.ran) is guest


def test_cross_origin_websocket_is_rejected(site_with: Callable[..., Site]) -> None:
    site = site_with()
    for origin in ("http://evil.example", "http://localhost:3000", "null", "http://127.0.0.1:8501"):
        with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
            site.browser(origin=origin).stream().__enter__()
    assert site.ran == []
    with site.browser(origin=HERE).stream() as page:
        page.send_bytes(b"hello")
        assert page.receive_bytes() == b"hello"


def test_other_websockets_are_rejected(site_with: Callable[..., Site]) -> None:
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
        site_with().browser().stream("unknown").__enter__()


@pytest.mark.parametrize("name", [CONNECTION_HEADER, OWNER_HEADER, "X_PADDOCK_OWNER"])
def test_internal_headers_cannot_be_sent_by_clients(site: Site, name: str) -> None:
    ada = site.person()
    mine = site.accounts.find("Ada")
    with ada.stream(**{name: "forged"}):
        assert mine is not None and site.headers[OWNER_HEADER] == mine.id
        assert "forged" not in site.headers.values()
        visitor = site.connections.visitor(site.headers[CONNECTION_HEADER])
        assert visitor is not None and visitor.account == site.visit(ada.token).account
    assert site.connections.visitor(site.headers[CONNECTION_HEADER]) is None, (
        "the connection was closed"
    )


# Sign-in and registration


def test_session_survives_reload_and_restart(site: Site) -> None:
    browser = site.browser(ELSEWHERE)
    answer = browser.send("register", name="Ada", password=GOOD, again=GOOD, next="models?q=a")
    assert (answer.status_code, answer.headers["location"]) == (303, "models?q=a")
    assert browser.get("models").status_code == 200
    site.accounts = site.started()
    assert browser.get("models").status_code == 200
    assert browser.get("sign-in?next=compare").headers["location"] == "compare"
    site.clock.forward(hours=site.settings.session_idle_h)
    ended = browser.get("models")
    assert ended.status_code == 303
    assert "paddock_session" in browser.cookies, "only the form deletes it"
    browser.get("sign-in")
    assert "paddock_session" not in browser.cookies


def test_cookies_have_their_flags(site: Site) -> None:
    site.person()
    for base in (ELSEWHERE, ELSEWHERE.replace("http:", "https:")):
        answer = site.browser(base).sign_in("Ada")
        flags = {
            name: value.lower()
            for name, _, value in (
                header.partition("=") for header in answer.headers.get_list("set-cookie")
            )
        }
        prefix = "__Host-" if base.startswith("https:") else ""
        session, device = flags[f"{prefix}paddock_session"], flags[f"{prefix}paddock_device"]
        for flag in ("; httponly", "; samesite=lax", "; path=/"):
            assert flag in session and flag in device
        assert ("; secure" in session) == ("; secure" in device) == bool(prefix)
        assert f"max-age={int(site.settings.session_max_h * 3600)}" in session
        assert "domain" not in session


def test_cookie_without_the_host_prefix_is_ignored_over_https(site: Site) -> None:
    token = site.person().token
    secure = site.browser(ELSEWHERE.replace("http:", "https:"))
    secure.http.cookies.set("paddock_session", token)
    assert secure.get("models").status_code == 303


@pytest.mark.parametrize(
    "token", [text for text in HOSTILE if text.isascii() and text.isprintable()]
)
def test_hostile_cookies_do_not_sign_in(site: Site, token: str) -> None:
    browser = site.browser()
    answer = browser.get("models", headers={"cookie": f"paddock_session={token[:3000]}"})
    assert answer.status_code == 303
    answer = browser.get("sign-in", headers={"cookie": f"paddock_session={token[:3000]}"})
    assert answer.status_code == 200


def test_unknown_name_and_incorrect_password_have_the_same_response(site: Site) -> None:
    site.person()
    answers = []
    for name in ("Ada", "Nobody"):
        before = site.hasher.hashings
        answer = site.browser(ELSEWHERE).sign_in(name, OTHER)
        assert site.hasher.hashings - before == 1, "exactly as many hashings"
        text = re.sub(r'value="[^"]*"', "", answer.text)
        answers.append((answer.status_code, text, sorted(answer.headers)))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403
    assert errors(site.browser().sign_in("Nobody", OTHER)) == [_INCORRECT]


def test_attempts_are_limited_for_fifty_concurrent_requests(site_with: Callable[..., Site]) -> None:
    site = site_with(auth="required", failures_per_address=10)
    site.person()
    before = site.hasher.hashings
    browsers = [site.browser(ELSEWHERE, "198.51.100.7") for _ in range(50)]
    tokens = [(browser, browser.csrf_token("sign-in")) for browser in browsers]

    def guess(at: tuple[Browser, str]) -> int:
        browser, token = at
        return browser.http.post(
            "/sign-in", data={"csrf_token": token, "name": "Ada", "password": OTHER}
        ).status_code

    with ThreadPoolExecutor(50) as people:
        statuses = list(people.map(guess, tokens))
    assert (statuses.count(403), statuses.count(429)) == (10, 40)
    assert site.hasher.hashings - before == 10
    late = site.browser(ELSEWHERE, "198.51.100.7").sign_in("Ada")
    assert late.status_code == 429, "a correct guess is not recognizable"
    assert site.browser(ELSEWHERE, "198.51.100.8").sign_in("Ada").status_code == 303


def test_registration_by_invitation_and_closed(site_with: Callable[..., Site]) -> None:
    site = site_with(auth="required", registration="invitation")
    code = site.others.invite(site.administrator())
    browser = site.browser()
    assert "invitation code" in browser.get("register").text
    rejected = browser.send("register", name="Ada", password=GOOD, again=GOOD, code="no")
    assert rejected.status_code == 422
    assert 'id="code-error"' in rejected.text, "the error is at the field"
    answer = browser.send("register", name="Ada", password=GOOD, again=GOOD, code=code)
    assert answer.status_code == 303
    used_up = site.browser().send("register", name="Bo", password=GOOD, again=GOOD, code=code)
    assert used_up.status_code == 422 and site.accounts.find("Bo") is None


def test_closed_registration_has_no_form(site_with: Callable[..., Site]) -> None:
    site = site_with(auth="required", registration="closed")
    page = site.browser().get("register")
    assert page.status_code == 403 and "<form" not in page.text
    assert "register" not in site.browser().get("sign-in").text


def test_errors_are_shown_at_their_fields(site: Site) -> None:
    answer = site.browser().send("register", name="a b", password="tiny", again="other")
    assert answer.status_code == 422
    assert 'id="name-error"' in answer.text and 'id="password-error"' in answer.text
    assert 'value="a b"' in answer.text and "tiny" not in answer.text
    answer = site.browser().send("register", name="Ada", password=GOOD, again=OTHER)
    assert 'id="again-error"' in answer.text and GOOD not in answer.text
    site.person("Bo")
    taken = site.browser().send("register", name="BO", password=GOOD, again=GOOD)
    assert 'id="name-error"' in taken.text


def test_signing_in_as_another_user_ends_the_previous_session(site: Site) -> None:
    site.person("Bo")
    browser = site.person("Ada")
    before = browser.token
    data = {"csrf_token": sign_in_token(browser), "name": "Bo", "password": GOOD}
    assert browser.http.post("/sign-in", data=data).status_code == 303
    assert browser.token != before and site.visit(before) is None


def sign_in_token(browser: Browser) -> str:
    """A CSRF token of the sign-in form for a signed-in browser, which is not shown the form."""
    nonce = browser.site.pages.csrf_tokens.new_nonce()
    browser.http.cookies.set("paddock_form", nonce, domain="paddock.example")
    return browser.site.pages.csrf_tokens.issue("sign-in", nonce, browser.token)


# Sign-out, password change and account deletion


def test_sign_out_here_and_everywhere(site: Site) -> None:
    here, there = site.person(), site.person()
    answer = here.send("sign-out", do="here")
    assert (answer.status_code, answer.headers["location"]) == (303, "sign-in?left")
    assert "paddock_session" not in here.cookies
    assert here.get("models").status_code == 303 and there.get("models").status_code == 200
    third = site.person()
    third.send("sign-out", do="everywhere")
    assert there.get("models").status_code == third.get("models").status_code == 303


def test_open_page_is_disconnected_when_its_session_ends(site: Site) -> None:
    ada = site.person()
    with ada.stream() as page:
        page.send_bytes(b"hello")
        assert page.receive_bytes() == b"hello"
        site.accounts.sessions.end(ada.token)  # as another process does
        page.portal.call(site.connections.close_ended)
        assert page.receive_bytes() == b"redirect"
        with pytest.raises(WebSocketDisconnect) as closed:
            page.receive_bytes()
        assert closed.value.code == 4401
    assert site.ran[-1] == "disconnected", "the page has ended"


def test_pages_of_other_users_and_guests_stay_open(site_with: Callable[..., Site]) -> None:
    site = site_with()
    ada, bo, guest = site.person("Ada"), site.person("Bo"), site.browser()
    with (
        ada.stream() as first,
        bo.stream() as second,
        guest.stream() as third,
    ):
        account = site.accounts.find("Ada")
        assert account is not None
        site.others.set_disabled(site.administrator(), account.id, True)
        first.portal.call(site.connections.close_ended)
        assert first.receive_bytes() == b"redirect"
        for page in (second, third):
            page.send_bytes(b"on")
            assert page.receive_bytes() == b"on"


def ended_connections(monkeypatch: pytest.MonkeyPatch) -> tuple[Connections, Callable[..., None]]:
    """Connections whose sessions have all ended, and a function that adds a connection."""

    class NoneValid:
        def valid_tokens(self, tokens: set[str]) -> set[str]:
            return set()

    monkeypatch.setattr("core.server.connections.CHECK_INTERVAL_S", 0.001)
    accounts = SimpleNamespace(sessions=NoneValid())
    watched = Connections(lambda: accounts, redirect=lambda: b"redirect", media_in=lambda _: ())

    def open_page(send: Any) -> None:
        page = watched.add(SimpleNamespace(token="ended", owner="ada"), None, send)
        page._accepted = True

    return watched, open_page


def test_stuck_browser_does_not_delay_closing_other_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.server.connections.CLOSE_TIMEOUT_S", 0.01)
    received: list[Any] = []

    async def stuck(message: Any) -> None:
        await asyncio.Event().wait()

    async def fails(message: Any) -> None:
        raise KeyError("of the server")

    async def hears(message: Any) -> None:
        received.append(message.get("bytes") or message.get("code"))

    async def close_ended() -> None:
        watched, open_page = ended_connections(monkeypatch)
        for send in (stuck, fails, hears):
            open_page(send)
        await asyncio.wait_for(watched.close_ended(), PATIENCE_S)

    in_its_own_loop(close_ended)
    assert received == [b"redirect", 4401]


def test_watch_continues_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch() -> None:
        watched, _ = ended_connections(monkeypatch)
        again, failures = asyncio.Event(), [RuntimeError("unexpected")]

        async def close_ended() -> None:
            if failures:
                raise failures.pop()
            again.set()

        watched.close_ended = close_ended
        watching = asyncio.create_task(watched.watch())
        try:
            await asyncio.wait_for(again.wait(), PATIENCE_S)
        finally:
            watching.cancel()

    in_its_own_loop(watch)


def in_its_own_loop(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(work())).result(PATIENCE_S)


def test_password_change_signs_out_other_browsers(site: Site) -> None:
    here, there = site.person(), site.person()
    wrong = here.send("change-password", old=OTHER, password=OTHER, again=OTHER)
    assert wrong.status_code == 403 and 'id="old-error"' in wrong.text
    unequal = here.send("change-password", old=GOOD, password=OTHER, again=GOOD)
    assert unequal.status_code == 422 and 'id="again-error"' in unequal.text
    weak = here.send("change-password", old=GOOD, password="password1", again="password1")
    assert weak.status_code == 422 and 'id="password-error"' in weak.text
    before = here.token
    answer = here.send("change-password", old=GOOD, password=OTHER, again=OTHER)
    assert (answer.status_code, answer.headers["location"]) == (303, "account")
    assert here.token != before and here.get("models").status_code == 200
    assert there.get("models").status_code == 303
    assert site.browser().sign_in("Ada", GOOD).status_code == 403
    assert site.browser().sign_in("Ada", OTHER).status_code == 303


def test_account_deletion_deletes_its_data(site: Site) -> None:
    ada, account = site.person(), site.accounts.find("Ada")
    assert account is not None
    runs, votes = RunStore(site.store.database), VoteStore(site.store.database)
    runs.add(a_start(owner=account.id), a_result())
    runs.add(a_start(owner=GUEST), a_result())
    site.store.save_preferences(account.id, {"model": "x"}, site.clock())
    wrong = ada.send("delete-account", password=OTHER)
    assert wrong.status_code == 403 and site.stopped == []
    answer = ada.send("delete-account", password=GOOD)
    assert (answer.status_code, answer.headers["location"]) == (303, "sign-in?deleted")
    assert site.stopped == [account.id], "its running answers are stopped first"
    assert (runs.count(), runs.count(owner=GUEST), votes.count()) == (1, 1, 0)
    assert site.store.preferences(account.id) == {}
    assert ada.cookies.keys() & {"paddock_session", "paddock_device"} == set()
    assert site.browser().sign_in("Ada").status_code == 403


@pytest.mark.parametrize("form", ["sign-out", "change-password", "delete-account"])
def test_signed_out_account_forms_redirect_to_sign_in(site: Site, form: str) -> None:
    for method in ("GET", "POST"):
        answer = site.browser().http.request(method, f"/{form}")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("sign-in")


# Cross-site request forgery and replay


def fields_of(form: str) -> dict[str, str]:
    """Valid fields of each form."""
    return {
        "sign-in": {"name": "Ada", "password": GOOD},
        "register": {"name": "Bo", "password": GOOD, "again": GOOD},
        "sign-out": {"do": "everywhere"},
        "change-password": {"old": GOOD, "password": OTHER, "again": OTHER},
        "delete-account": {"password": GOOD},
    }[form]


def browser_for(site: Site, form: str) -> Browser:
    site.person()
    return site.browser(ELSEWHERE) if form in ("sign-in", "register") else site.person()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": ELSEWHERE},
    ],
    ids=lambda headers: "+".join(headers.values()),
)
def test_cross_origin_form_is_rejected(site: Site, form: str, headers: dict[str, str]) -> None:
    browser = browser_for(site, form)
    accounts = site.others.everybody()
    answer = browser.send(form, headers, **fields_of(form))
    assert answer.status_code == 403 and errors(answer)
    assert site.others.everybody() == accounts


@pytest.mark.parametrize("form", FORMS)
def test_form_without_a_valid_csrf_token_is_rejected(site: Site, form: str) -> None:
    browser = browser_for(site, form)
    other = site.person("Cleo").csrf_token("sign-out")
    accounts = site.others.everybody()
    for token in ("", "x", "1.2.3", other, browser.csrf_token(form)[:-1] + "g"):
        answer = browser.http.post(f"/{form}", data={"csrf_token": token} | fields_of(form))
        assert answer.status_code == 403 and errors(answer)
        assert 'name="csrf_token"' in answer.text, "the form is shown again"
    assert browser.http.post(f"/{form}", data=fields_of(form)).status_code == 403
    assert site.others.everybody() == accounts


@pytest.mark.parametrize("form", FORMS)
def test_csrf_token_is_not_valid_in_another_browser(site: Site, form: str) -> None:
    browser = browser_for(site, form)
    stranger = browser_for(site, form)
    stranger.get(form)
    data = {"csrf_token": browser.csrf_token(form)} | fields_of(form)
    assert stranger.http.post(f"/{form}", data=data).status_code == 403


@pytest.mark.parametrize("form", FORMS)
def test_replayed_form_is_rejected(site: Site, form: str) -> None:
    browser = browser_for(site, form)
    data = {"csrf_token": browser.csrf_token(form)} | fields_of(form)
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    assert browser.http.post(f"/{form}", data=data).status_code == 303
    accounts = site.others.everybody()
    replay = site.browser(ELSEWHERE).http.post(f"/{form}", data=data, headers={"cookie": cookies})
    gone = replay.status_code == 303 and replay.headers["location"].startswith("sign-in")
    assert replay.status_code == 403 or gone
    assert "paddock_session" not in str(replay.headers.get_list("set-cookie")) or gone
    assert site.others.everybody() == accounts


def test_failed_form_cannot_be_sent_again_after_signing_in_and_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RecordsError("The run database is locked.")

    site.person("Ada")
    browser = site.browser(ELSEWHERE)
    data = {"csrf_token": browser.csrf_token("sign-in"), "name": "Ada", "password": GOOD}
    with monkeypatch.context() as patch:
        patch.setattr(site.accounts, "sign_in", fail)
        assert browser.http.post("/sign-in", data=data).status_code == 503
    assert browser.sign_in("Ada").status_code == 303
    assert browser.send("sign-out", do="here").status_code == 303
    browser.get("sign-in")
    assert browser.http.post("/sign-in", data=data).status_code == 403
    assert "paddock_session" not in browser.cookies


# Hostile inputs


@pytest.mark.parametrize("form", FORMS)
def test_two_hundred_hostile_inputs_to_each_form(
    site: Site, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    browser = browser_for(site, form)
    accounts = [row.account for row in site.others.everybody()]
    names = [name for name in fields_of(form) if name != "do"] or ["do"]
    texts = [text[:2000] for text in HOSTILE]
    tried = 0
    while tried < 200:
        for text in texts:
            typed = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
            if form == "sign-out" and typed == "everywhere":
                continue
            data = fields_of(form) | dict.fromkeys(names, typed)
            if form == "sign-out":
                data["csrf_token"] = typed  # the form has no input
            else:
                data["csrf_token"] = browser.csrf_token(form)
                data[names[tried % len(names)]] = typed
            answer = browser.http.post(f"/{form}", data=data)
            assert answer.status_code in (400, 403, 413, 422, 429, 503), (text, answer.text)
            assert errors(answer) and "Traceback" not in answer.text
            assert (
                "<script>alert" not in answer.text
                and "onerror=alert"
                not in answer.text.replace("&lt;img src=x onerror=alert(1)&gt;", "")
            )
            tried += 1
    assert [row.account for row in site.others.everybody()] == accounts, "nothing was stored"
    assert "Traceback" not in caplog.text and GOOD not in caplog.text


def test_input_is_escaped(site: Site) -> None:
    typed = '"><script>alert(1)</script>'
    answer = site.browser().send("sign-in", name=typed, password=OTHER)
    assert typed not in answer.text
    assert "&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text


# Headers


def test_every_response_has_the_security_headers(site: Site) -> None:
    browser = site.browser()
    for path in ("sign-in", "models", "healthz", "media/x", "paddock.css", "register"):
        answer = browser.get(path)
        for name, value in ALWAYS.items():
            assert answer.headers[name] == value, path
        assert "content-security-policy" in answer.headers
        assert "strict-transport-security" not in answer.headers
    assert browser.get("sign-in").headers["content-security-policy"] == FORM_POLICY
    assert browser.get("sign-in").headers["cache-control"] == "no-store"
    secure = site.browser(ELSEWHERE.replace("http:", "https:"))
    assert secure.get("sign-in").headers["strict-transport-security"].startswith("max-age=")


def test_form_warns_of_an_unencrypted_connection(site: Site) -> None:
    assert "not encrypted" in site.browser(ELSEWHERE, "203.0.113.9").get("sign-in").text
    assert "not encrypted" not in site.browser().get("sign-in").text
    secure = site.browser(ELSEWHERE.replace("http:", "https:"), "203.0.113.9")
    assert "not encrypted" not in secure.get("sign-in").text


# Other users' data


def test_media_files_and_uploads_are_private(site: Site) -> None:
    ada, bo = site.person("Ada"), site.person("Bo")
    with ada.stream() as page:
        page.send_bytes(b"give:abc123")
        page.receive_bytes()
    account = site.accounts.find("Ada")
    assert account is not None
    site.connections.note_owner("adas-page", account.id)
    for path in ("media/abc123.json", "_stcore/upload_file/adas-page/file"):
        assert ada.get(path).status_code == 200
        site.ran.clear()
        assert bo.get(path).status_code == 404
        assert bo.http.put(f"/{path}").status_code == bo.http.delete(f"/{path}").status_code == 404
        assert site.ran == []
    unknown = bo.get("media/unknown.json")
    assert (unknown.status_code, unknown.text) == (404, bo.get("media/abc123.json").text)


def test_permissions_follow_role_and_place(site_with: Callable[..., Site]) -> None:
    site = site_with()
    ada, account = site.person(), site.accounts.find("Ada")
    assert account is not None

    def seen(browser: Browser) -> Any:
        with browser.stream():
            visitor = site.connections.visitor(site.headers[CONNECTION_HEADER])
            assert visitor is not None
            return site.visitors.refresh(visitor)

    assert not seen(ada).access.manage
    site.others.set_role(site.administrator(), account.id, Role.MANAGER)
    assert seen(ada).access.manage and not seen(ada).access.administer
    guest = seen(site.browser())
    assert guest.access.manage and not guest.access.administer and guest.owner == GUEST


def test_signed_out_visitor_does_not_become_a_guest(site_with: Callable[..., Site]) -> None:
    site = site_with()
    ada = site.person("Ada", HERE)
    with ada.stream():
        visitor = site.connections.visitor(site.headers[CONNECTION_HEADER])
        assert visitor is not None and visitor.account is not None
        site.accounts.sessions.end(ada.token)
        now = site.visitors.refresh(visitor)
        assert now.account is None and not now.access.use and not now.access.manage
        assert not site.visitors.refresh(now).access.use


def test_database_error_denies_access(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = site.person()

    def fail(token: str | None) -> None:
        raise RecordsError("The run database /secret/place is locked.")

    monkeypatch.setattr(site.accounts.sessions, "visit", fail)
    for path in ("models", "sign-in", "media/x"):
        answer = ada.get(path)
        assert answer.status_code == 503 and "secret" not in answer.text
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
        ada.stream().__enter__()
    assert [path for path in site.ran if path != "/healthz"] == []


# OpenID Connect providers


class FakeProviders(Providers):
    """Authenticates browsers by a cookie."""

    def user(self, request: Request) -> ProviderUser | None:
        subject = request.cookies.get("provider_user")
        return ProviderUser(f"https://provider {subject}", subject) if subject else None

    def forget(self, request: Request, response: Response) -> None:
        response.delete_cookie("provider_user")


def test_provider_user_can_still_open_the_password_form(site: Site) -> None:
    site.person("Ada")
    site.pages.providers = FakeProviders()
    browser = site.browser()
    browser.http.cookies.set("provider_user", "bo", domain="localhost.local", path="/")
    answer = browser.get("sign-in?next=models")
    assert (answer.status_code, answer.headers["location"]) == (303, "register?next=models")
    form = browser.get("register?next=models")
    assert 'value="bo"' in form.text and 'type="password"' not in form.text
    [back] = re.findall(r'<a href="([^"]+)">I have an account</a>', form.text)
    own = browser.get(unescape(back))
    assert own.status_code == 200 and 'type="password"' in own.text
    assert 'name="next" value="models"' in own.text
    assert "provider_user" not in browser.cookies, "the provider's user is forgotten"
    assert 'type="password"' in browser.get("register").text
    assert browser.sign_in("Ada").status_code == 303


def test_password_sign_in_deletes_the_provider_cookie(site: Site) -> None:
    site.person("Ada")
    browser = site.browser()
    fields = {"csrf_token": browser.csrf_token("sign-in"), "name": "Ada", "password": GOOD}
    site.pages.providers = FakeProviders()
    browser.http.cookies.set("provider_user", "bo", domain="localhost.local", path="/")
    assert browser.http.post("/sign-in", data=fields).status_code == 303
    assert "provider_user" not in browser.cookies


# Below a prefix


def test_redirects_to_sign_in_keep_the_prefix(site: Site) -> None:
    site.app.user_middleware[2] = Middleware(
        AuthMiddleware,
        visitors=lambda: site.visitors,
        connections=site.connections,
        prefix="/team",
    )
    browser = site.browser()
    for path in ("team", "team/", "team/models", "team/account"):
        assert browser.get(path).headers["location"].startswith("/team/sign-in"), path
    assert browser.get("team/sign-in").status_code == 200
    assert browser.get("team/media/x").status_code == 401
    assert [path for path in site.ran if path != "/team/sign-in"] == []
