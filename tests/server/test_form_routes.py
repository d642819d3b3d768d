"""Who gets through the door, and what the forms do, over HTTP."""

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

from core.auth import Outsider
from core.db import GUEST, Role, RunStore, VoteStore
from core.server.connections import Connections
from core.server.headers import ALWAYS, FORM_POLICY
from core.server.middleware import CONNECTION_HEADER, OWNER_HEADER, Guard
from core.server.paths import PAGES
from core.server.routes import Providers
from tests.auth.samples import GOOD, HOSTILE, OTHER
from tests.db.run_samples import a_result, a_start
from tests.server.world import ELSEWHERE, HERE, Browser, Site, errors

FORMS = ("sign-in", "register", "sign-out", "change-password", "delete-account")
PATIENCE_S = 10.0
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
_NOBODY = "Name and password do not go together; check both and try again."


# The door


@pytest.mark.parametrize("page", [*PAGES, ""])
def test_signed_out_every_page_leads_to_the_form_and_nothing_runs(site: Site, page: str) -> None:
    answer = site.browser().get(f"{page}?model=x")
    assert answer.status_code == 303
    wanted = page or "instruct"
    assert answer.headers["location"] == f"sign-in?next={wanted}%3Fmodel%3Dx"
    assert answer.headers["cache-control"] == "no-store"
    assert site.ran == []


@pytest.mark.parametrize("path", ["/instruct/", "//instruct", "/instruct//"])
def test_strokes_too_many_lead_to_the_form_all_the_same(site: Site, path: str) -> None:
    answer = site.browser().http.get(f"{HERE}{path}")
    assert urljoin(f"{HERE}{path}", answer.headers["location"]) == f"{HERE}/sign-in"


@pytest.mark.parametrize("path", INSIDE)
def test_signed_out_nothing_else_is_reached(site: Site, path: str) -> None:
    browser = site.browser()
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert browser.http.request(method, f"/{path}").status_code == 401, method
    assert site.ran == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_not_posted_to(site: Site, path: str) -> None:
    assert site.browser().http.post(f"/{path}").status_code == 401


def test_signed_out_there_is_no_websocket(site: Site) -> None:
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
        site.browser().stream().__enter__()
    assert site.ran == []


def test_health_and_the_forms_are_reached_by_everybody(site: Site) -> None:
    browser = site.browser(ELSEWHERE, "203.0.113.9", **PROXY)
    assert browser.get("healthz").text == "behind the door"
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
def test_guests_are_let_in_on_this_machine_alone(
    site_with: Callable[..., Site], base: str, peer: str, headers: dict[str, str], guest: bool
) -> None:
    site = site_with()
    answer = site.browser(base, peer, **headers).get("models")
    assert (answer.status_code == 200) is guest
    assert bool(site.ran) is guest


def test_a_websocket_from_another_site_is_refused(site_with: Callable[..., Site]) -> None:
    site = site_with()
    for origin in ("http://evil.example", "http://localhost:3000", "null", "http://127.0.0.1:8501"):
        with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
            site.browser(origin=origin).stream().__enter__()
    assert site.ran == []
    with site.browser(origin=HERE).stream() as page:
        page.send_bytes(b"hello")
        assert page.receive_bytes() == b"hello"


def test_only_the_pages_websocket_is_open(site_with: Callable[..., Site]) -> None:
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
        site_with().browser().stream("unknown").__enter__()


@pytest.mark.parametrize("name", [CONNECTION_HEADER, OWNER_HEADER, "X_PADDOCK_OWNER"])
def test_what_the_door_tells_the_pages_cannot_be_sent_from_outside(site: Site, name: str) -> None:
    ada = site.person()
    mine = site.accounts.find("Ada")
    with ada.stream(**{name: "forged"}):
        assert mine is not None and site.headers[OWNER_HEADER] == mine.id
        assert "forged" not in site.headers.values()
        visitor = site.connections.visitor(site.headers[CONNECTION_HEADER])
        assert visitor is not None and visitor.account == site.accounts.visit(ada.token).account
    assert site.connections.visitor(site.headers[CONNECTION_HEADER]) is None, "it has closed"


# Coming


def test_register_reload_restart_and_still_signed_in(site: Site) -> None:
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
    assert "paddock_session" in browser.cookies, "the form takes it away"
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


def test_over_https_a_planted_plain_cookie_signs_nobody_in(site: Site) -> None:
    token = site.person().token
    secure = site.browser(ELSEWHERE.replace("http:", "https:"))
    secure.http.cookies.set("paddock_session", token)
    assert secure.get("models").status_code == 303


@pytest.mark.parametrize(
    "token", [text for text in HOSTILE if text.isascii() and text.isprintable()]
)
def test_hostile_cookies_sign_nobody_in(site: Site, token: str) -> None:
    browser = site.browser()
    answer = browser.get("models", headers={"cookie": f"paddock_session={token[:3000]}"})
    assert answer.status_code == 303
    answer = browser.get("sign-in", headers={"cookie": f"paddock_session={token[:3000]}"})
    assert answer.status_code == 200


def test_an_unknown_name_and_a_wrong_password_are_told_apart_by_nothing(site: Site) -> None:
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
    assert errors(site.browser().sign_in("Nobody", OTHER)) == [_NOBODY]


def test_attempts_are_limited_under_fifty_at_once(site_with: Callable[..., Site]) -> None:
    site = site_with(auth="required", failures_per_address=10)
    site.person()
    before = site.hasher.hashings
    browsers = [site.browser(ELSEWHERE, "198.51.100.7") for _ in range(50)]
    seals = [(browser, browser.seal("sign-in")) for browser in browsers]

    def guess(at: tuple[Browser, str]) -> int:
        browser, seal = at
        return browser.http.post(
            "/sign-in", data={"seal": seal, "name": "Ada", "password": OTHER}
        ).status_code

    with ThreadPoolExecutor(50) as people:
        statuses = list(people.map(guess, seals))
    assert (statuses.count(403), statuses.count(429)) == (10, 40)
    assert site.hasher.hashings - before == 10
    late = site.browser(ELSEWHERE, "198.51.100.7").sign_in("Ada")
    assert late.status_code == 429, "the right password does not tell a guesser that it is right"
    assert site.browser(ELSEWHERE, "198.51.100.8").sign_in("Ada").status_code == 303


def test_registration_by_invitation_and_closed(site_with: Callable[..., Site]) -> None:
    site = site_with(auth="required", registration="invitation")
    code = site.others.invite(site.administrator()).code
    browser = site.browser()
    assert "invitation code" in browser.get("register").text
    refused = browser.send("register", name="Ada", password=GOOD, again=GOOD, code="no")
    assert refused.status_code == 422
    assert 'id="code-error"' in refused.text, "it stands beside its field"
    answer = browser.send("register", name="Ada", password=GOOD, again=GOOD, code=code)
    assert answer.status_code == 303
    used_up = site.browser().send("register", name="Bo", password=GOOD, again=GOOD, code=code)
    assert used_up.status_code == 422 and site.accounts.find("Bo") is None


def test_where_registration_is_closed_there_is_no_form(site_with: Callable[..., Site]) -> None:
    site = site_with(auth="required", registration="closed")
    page = site.browser().get("register")
    assert page.status_code == 403 and "<form" not in page.text
    assert "register" not in site.browser().get("sign-in").text


def test_what_is_wrong_stands_beside_its_field(site: Site) -> None:
    answer = site.browser().send("register", name="a b", password="short", again="other")
    assert answer.status_code == 422
    assert 'id="name-error"' in answer.text and 'id="password-error"' in answer.text
    assert 'value="a b"' in answer.text and "short" not in answer.text
    answer = site.browser().send("register", name="Ada", password=GOOD, again=OTHER)
    assert 'id="again-error"' in answer.text and GOOD not in answer.text
    site.person("Bo")
    taken = site.browser().send("register", name="BO", password=GOOD, again=GOOD)
    assert 'id="name-error"' in taken.text


def test_signing_in_as_another_ends_the_session_of_before(site: Site) -> None:
    site.person("Bo")
    browser = site.person("Ada")
    before = browser.token
    data = {"seal": site_seal(browser), "name": "Bo", "password": GOOD}
    assert browser.http.post("/sign-in", data=data).status_code == 303
    assert browser.token != before and site.accounts.visit(before) is None


def site_seal(browser: Browser) -> str:
    """A seal of the sign-in form for a browser that is signed in, and so is not shown it."""
    nonce = browser.site.pages.seals.new_nonce()
    browser.http.cookies.set("paddock_form", nonce, domain="paddock.example")
    return browser.site.pages.seals.seal("sign-in", nonce, browser.token)


# Going, and one's own account


def test_signing_out_ends_this_session_or_all(site: Site) -> None:
    here, there = site.person(), site.person()
    answer = here.send("sign-out", do="here")
    assert (answer.status_code, answer.headers["location"]) == (303, "sign-in?left")
    assert "paddock_session" not in here.cookies
    assert here.get("models").status_code == 303 and there.get("models").status_code == 200
    third = site.person()
    third.send("sign-out", do="everywhere")
    assert there.get("models").status_code == third.get("models").status_code == 303


def test_an_open_page_is_cut_off_when_its_session_ends(site: Site) -> None:
    ada = site.person()
    with ada.stream() as page:
        page.send_bytes(b"hello")
        assert page.receive_bytes() == b"hello"
        site.accounts.sign_out(ada.token)  # by another process, say
        page.portal.call(site.connections.sweep)
        assert page.receive_bytes() == b"farewell"
        with pytest.raises(WebSocketDisconnect) as closed:
            page.receive_bytes()
        assert closed.value.code == 4401
    assert site.ran[-1] == "disconnected", "what was behind it has ended too"


def test_pages_of_others_and_of_guests_stay_open(site_with: Callable[..., Site]) -> None:
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
        first.portal.call(site.connections.sweep)
        assert first.receive_bytes() == b"farewell"
        for page in (second, third):
            page.send_bytes(b"on")
            assert page.receive_bytes() == b"on"


def a_watch(monkeypatch: pytest.MonkeyPatch) -> tuple[Connections, Callable[..., None]]:
    """Pages of which every session has ended, and what opens one that is sent to in this way."""

    class NoneHolds:
        def holding(self, tokens: set[str]) -> set[str]:
            return set()

    monkeypatch.setattr("core.server.connections.SWEEP_S", 0.001)
    watched = Connections(NoneHolds, farewell=lambda: b"farewell", media_in=lambda _: ())

    def open_page(send: Any) -> None:
        page = watched.opened(SimpleNamespace(token="ended", owner="ada"), None, send)
        page._accepted = True

    return watched, open_page


def test_a_browser_that_is_stuck_keeps_no_other_page_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.server.connections.CUT_S", 0.01)
    told: list[Any] = []

    async def stuck(message: Any) -> None:
        await asyncio.Event().wait()

    async def fails(message: Any) -> None:
        raise KeyError("of the server")

    async def hears(message: Any) -> None:
        told.append(message.get("bytes") or message.get("code"))

    async def sweep() -> None:
        watched, open_page = a_watch(monkeypatch)
        for send in (stuck, fails, hears):
            open_page(send)
        await asyncio.wait_for(watched.sweep(), PATIENCE_S)

    in_its_own_loop(sweep)
    assert told == [b"farewell", 4401]


def test_the_watch_over_sessions_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch() -> None:
        watched, _ = a_watch(monkeypatch)
        again, failures = asyncio.Event(), [RuntimeError("never thought of")]

        async def sweep() -> None:
            if failures:
                raise failures.pop()
            again.set()

        watched.sweep = sweep
        watching = asyncio.create_task(watched.watch())
        try:
            await asyncio.wait_for(again.wait(), PATIENCE_S)
        finally:
            watching.cancel()

    in_its_own_loop(watch)


def in_its_own_loop(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(work())).result(2 * PATIENCE_S)


def test_changing_the_password_signs_all_others_out(site: Site) -> None:
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


def test_deleting_the_account_takes_all_that_belongs_to_it(site: Site) -> None:
    ada, account = site.person(), site.accounts.find("Ada")
    assert account is not None
    runs, votes = RunStore(site.store.database), VoteStore(site.store.database)
    runs.add(a_start(owner=account.id), a_result())
    runs.add(a_start(owner=GUEST), a_result())
    site.store.save_preferences(account.id, {"model": "x"}, site.clock())
    wrong = ada.send("delete-account", password=OTHER)
    assert wrong.status_code == 403 and site.left == []
    answer = ada.send("delete-account", password=GOOD)
    assert (answer.status_code, answer.headers["location"]) == (303, "sign-in?deleted")
    assert site.left == [account.id], "its answers under way are stopped first"
    assert (runs.count(), runs.count(owner=GUEST), votes.count()) == (1, 1, 0)
    assert site.store.preferences(account.id) == {}
    assert ada.cookies.keys() & {"paddock_session", "paddock_device"} == set()
    assert site.browser().sign_in("Ada").status_code == 403


@pytest.mark.parametrize("form", ["sign-out", "change-password", "delete-account"])
def test_signed_out_the_forms_of_an_account_lead_to_signing_in(site: Site, form: str) -> None:
    for method in ("GET", "POST"):
        answer = site.browser().http.request(method, f"/{form}")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("sign-in")


# Forged and replayed


def fields_of(form: str) -> dict[str, str]:
    """What does something, if it is let."""
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
def test_a_form_sent_from_elsewhere_does_nothing(
    site: Site, form: str, headers: dict[str, str]
) -> None:
    browser = browser_for(site, form)
    accounts = site.others.everybody()
    answer = browser.send(form, headers, **fields_of(form))
    assert answer.status_code == 403 and errors(answer)
    assert site.others.everybody() == accounts


@pytest.mark.parametrize("form", FORMS)
def test_a_form_without_its_seal_does_nothing(site: Site, form: str) -> None:
    browser = browser_for(site, form)
    other = site.person("Cleo").seal("sign-out")
    accounts = site.others.everybody()
    for seal in ("", "x", "1.2.3", other, browser.seal(form)[:-1] + "g"):
        answer = browser.http.post(f"/{form}", data={"seal": seal} | fields_of(form))
        assert answer.status_code == 403 and errors(answer)
        assert 'name="seal"' in answer.text, "the form is there again"
    assert browser.http.post(f"/{form}", data=fields_of(form)).status_code == 403
    assert site.others.everybody() == accounts


@pytest.mark.parametrize("form", FORMS)
def test_a_seal_is_void_in_another_browser(site: Site, form: str) -> None:
    browser = browser_for(site, form)
    stranger = browser_for(site, form)
    stranger.get(form)
    data = {"seal": browser.seal(form)} | fields_of(form)
    assert stranger.http.post(f"/{form}", data=data).status_code == 403


@pytest.mark.parametrize("form", FORMS)
def test_a_request_that_is_sent_again_does_nothing(site: Site, form: str) -> None:
    browser = browser_for(site, form)
    data = {"seal": browser.seal(form)} | fields_of(form)
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    assert browser.http.post(f"/{form}", data=data).status_code == 303
    accounts = site.others.everybody()
    replay = site.browser(ELSEWHERE).http.post(f"/{form}", data=data, headers={"cookie": cookies})
    gone = replay.status_code == 303 and replay.headers["location"].startswith("sign-in")
    assert replay.status_code == 403 or gone
    assert "paddock_session" not in str(replay.headers.get_list("set-cookie")) or gone
    assert site.others.everybody() == accounts


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
                data["seal"] = typed  # there is nothing else to type
            else:
                data["seal"] = browser.seal(form)
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


def test_what_was_typed_is_never_markup(site: Site) -> None:
    typed = '"><script>alert(1)</script>'
    answer = site.browser().send("sign-in", name=typed, password=OTHER)
    assert typed not in answer.text
    assert "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text


# Headers


def test_every_answer_carries_the_headers(site: Site) -> None:
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


def test_an_unencrypted_form_over_the_network_says_so(site: Site) -> None:
    assert "not encrypted" in site.browser(ELSEWHERE, "203.0.113.9").get("sign-in").text
    assert "not encrypted" not in site.browser().get("sign-in").text
    secure = site.browser(ELSEWHERE.replace("http:", "https:"), "203.0.113.9")
    assert "not encrypted" not in secure.get("sign-in").text


# What is another's


def test_files_and_uploads_are_their_persons_alone(site: Site) -> None:
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


def test_rights_follow_the_role_and_the_place(site_with: Callable[..., Site]) -> None:
    site = site_with()
    ada, account = site.person(), site.accounts.find("Ada")
    assert account is not None

    def seen(browser: Browser) -> Any:
        with browser.stream():
            at_the_door = site.connections.visitor(site.headers[CONNECTION_HEADER])
            assert at_the_door is not None
            return site.visitors.again(at_the_door)

    assert not seen(ada).access.manage
    site.others.set_role(site.administrator(), account.id, Role.MANAGER)
    assert seen(ada).access.manage and not seen(ada).access.administer
    guest = seen(site.browser())
    assert guest.access.manage and not guest.access.administer and guest.owner == GUEST


def test_somebody_signed_out_becomes_nobody_and_no_guest(site_with: Callable[..., Site]) -> None:
    site = site_with()
    ada = site.person("Ada", HERE)
    with ada.stream():
        at_the_door = site.connections.visitor(site.headers[CONNECTION_HEADER])
        assert at_the_door is not None and at_the_door.account is not None
        site.accounts.sign_out(ada.token)
        now = site.visitors.again(at_the_door)
        assert now.account is None and not now.access.use and not now.access.manage
        assert not site.visitors.again(now).access.use


def test_a_database_that_fails_lets_nobody_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.errors import RecordsError

    ada = site.person()

    def fail(token: str | None) -> None:
        raise RecordsError("The run database /secret/place is locked.")

    monkeypatch.setattr(site.accounts, "visit", fail)
    for path in ("models", "sign-in", "media/x"):
        answer = ada.get(path)
        assert answer.status_code == 503 and "secret" not in answer.text
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
        ada.stream().__enter__()
    assert [path for path in site.ran if path != "/healthz"] == []


# By a provider


class Vouching(Providers):
    """Vouches for whoever has its cookie."""

    def outsider(self, request: Request) -> Outsider | None:
        subject = request.cookies.get("vouched")
        return Outsider(f"https://provider {subject}", subject) if subject else None

    def forget(self, request: Request, response: Response) -> None:
        response.delete_cookie("vouched")


def test_who_came_by_a_provider_still_finds_the_form_for_a_password(site: Site) -> None:
    site.person("Ada")
    site.pages.providers = Vouching()
    browser = site.browser()
    browser.http.cookies.set("vouched", "bo", domain="localhost.local", path="/")
    answer = browser.get("sign-in?next=models")
    assert (answer.status_code, answer.headers["location"]) == (303, "register?next=models")
    form = browser.get("register?next=models")
    assert 'value="bo"' in form.text and 'type="password"' not in form.text
    [back] = re.findall(r'<a href="([^"]+)">I have an account</a>', form.text)
    own = browser.get(unescape(back))
    assert own.status_code == 200 and 'type="password"' in own.text
    assert 'name="next" value="models"' in own.text
    assert "vouched" not in browser.cookies, "nobody else makes an account for them here"
    assert 'type="password"' in browser.get("register").text
    assert browser.sign_in("Ada").status_code == 303


def test_who_signs_in_by_a_password_leaves_no_provider_s_word(site: Site) -> None:
    site.person("Ada")
    browser = site.browser()
    fields = {"seal": browser.seal("sign-in"), "name": "Ada", "password": GOOD}
    site.pages.providers = Vouching()
    browser.http.cookies.set("vouched", "bo", domain="localhost.local", path="/")
    assert browser.http.post("/sign-in", data=fields).status_code == 303
    assert "vouched" not in browser.cookies


# Below a prefix


def test_below_a_prefix_the_way_to_the_form_is_below_it_too(site: Site) -> None:
    site.app.user_middleware[1] = Middleware(
        Guard,
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
