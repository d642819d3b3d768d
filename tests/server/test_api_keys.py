"""Authentication of API requests: keys, guests, and cross-origin requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from starlette.testclient import TestClient

from core.errors import RecordsError
from core.server.api_keys import GUEST_KEY, ApiAuthentication
from core.server.api_routes import metrics_route, missing_v1_route
from tests.api.stand_ins import StandIn, chat
from tests.auth.samples import GOOD
from tests.server.world import ELSEWHERE, HERE, Site


class _Meters:
    def exposition(self, accept: str) -> tuple[bytes, str]:
        return b"figures", "text/plain"

    def count_request(self, *what: Any) -> None:
        pass


class ProgramSite(Site):
    """The site with the API routes."""

    def __init__(self, home: Path, loop: BlockingPortal, **settings: Any) -> None:
        super().__init__(home, loop, **settings)
        authentication = ApiAuthentication(lambda: self.visitors)
        self.stand_in = StandIn()
        self.app.router.routes[:0] = [
            *self.stand_in.app(authentication.authenticate).routes,
            metrics_route("", _Meters, authentication),
            missing_v1_route(""),
        ]

    def key(self, name: str = "Ada", **options: Any) -> str:
        account = self.accounts.find(name)
        if account is None:
            self.accounts.register(name, GOOD, self.browser().client_facts)
            account = self.accounts.find(name)
        assert account is not None
        return self.accounts.keys.make(account.id, "test", **options)

    def program(self, base: str = HERE, key: str | None = None, **headers: str) -> TestClient:
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return self.browser(base, **{"accept": "*/*"} | headers).http


@pytest.fixture
def site(tmp_path: Path, loop: BlockingPortal) -> ProgramSite:
    return ProgramSite(tmp_path, loop, registration="open")


def ask(client: TestClient) -> Any:
    return client.post("/v1/chat/completions", json=chat())


def code(answer: Any) -> str:
    return answer.json()["error"]["code"]


@pytest.mark.parametrize("key", [None, "", GUEST_KEY])
def test_guests_are_allowed_on_this_machine_only(site: ProgramSite, key: str | None):
    assert ask(site.program(HERE, key)).status_code == 200
    _, caller = site.stand_in.asked[-1]
    assert (caller.owner, caller.lane) == ("guest", "guest 127.0.0.1")
    refused = ask(site.program(ELSEWHERE, key))
    assert (refused.status_code, code(refused)) == (401, "invalid_api_key")
    assert refused.headers["www-authenticate"] == "Bearer"


def test_key_is_required_where_sign_in_is_required(tmp_path: Path, loop: BlockingPortal):
    site = ProgramSite(tmp_path, loop, auth="required", registration="open")
    assert ask(site.program(HERE)).status_code == 401
    assert ask(site.program(HERE, site.key())).status_code == 200


def test_key_identifies_its_user_from_every_machine(site: ProgramSite):
    key, ada = site.key(), site.accounts.find("Ada")
    for base in (HERE, ELSEWHERE):
        assert ask(site.program(base, key)).status_code == 200
        assert site.stand_in.asked[-1][1].owner == ada.id == site.stand_in.asked[-1][1].lane


def test_incorrect_key_is_rejected_where_none_is_required(site: ProgramSite):
    for key in ("pdk_", "pdk_" + 43 * "a", site.key() + "x"):
        assert ask(site.program(HERE, key)).status_code == 401
    basic = site.browser(HERE, authorization="Basic YTpi").http
    assert ask(basic).status_code == 401


def test_key_gives_no_access_to_pages(site: ProgramSite):
    program = site.program(ELSEWHERE, site.key())
    assert program.get("/instruct").status_code == 303
    assert program.get("/_stcore/host-config").status_code == 401
    assert site.ran == []


def test_cookies_do_not_authenticate_api_requests(site: ProgramSite):
    browser = site.person("Ada")
    assert browser.get("instruct").status_code == 200
    assert ask(browser.http).status_code == 401


@pytest.mark.parametrize("header", [{"sec-fetch-site": "cross-site"}, {"origin": "http://evil"}])
def test_cross_origin_requests_of_guests_are_rejected(site: ProgramSite, header: dict[str, str]):
    refused = ask(site.program(HERE, **header))
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    assert site.stand_in.asked == []


def test_database_error_does_not_show_the_path(site: ProgramSite, monkeypatch: pytest.MonkeyPatch):
    def fail(key: str) -> None:
        raise RecordsError("The run database /secret/place is locked.")

    monkeypatch.setattr(site.accounts.keys, "holder", fail)
    refused = ask(site.program(ELSEWHERE, "pdk_" + 43 * "a"))
    assert (refused.status_code, code(refused)) == (503, "unavailable")
    assert "secret" not in refused.text


def test_guest_may_open_an_address_directly_but_not_post(site: ProgramSite):
    typed = {"sec-fetch-site": "none"}
    assert site.program(HERE, **typed).get("/v1/models").status_code == 200
    assert ask(site.program(HERE, **typed)).status_code == 403
    assert site.program(ELSEWHERE, **typed).get("/v1/models").status_code == 401
    for other in ("cross-site", "same-site"):
        other_site = {"sec-fetch-site": other}
        assert site.program(HERE, **other_site).get("/v1/models").status_code == 403


def test_prometheus_metrics_require_the_manage_permission(site: ProgramSite):
    assert site.program(HERE).get("/metrics").text == "figures"
    assert site.program(ELSEWHERE).get("/metrics").status_code == 401
    assert site.program(ELSEWHERE, site.key()).get("/metrics").status_code == 403
    site.accounts.make_administrator("Ada", None)
    assert site.program(ELSEWHERE, site.key()).get("/metrics").text == "figures"
    page = {"accept": "text/html,application/xhtml+xml"}
    assert site.browser(HERE).get("metrics", headers=page).text == "the page"
    assert site.browser(ELSEWHERE).get("metrics", headers=page).status_code == 303


def test_paths_not_below_v1_are_rejected(site: ProgramSite):
    for path in ("//v1/models", "/v1models", "/x/v1/models"):
        answer = site.browser(ELSEWHERE).http.get(f"{ELSEWHERE}{path}")
        assert answer.status_code in (303, 401), path
    assert site.ran == []


@pytest.mark.parametrize("key", [None, "sk-1"])
@pytest.mark.parametrize("base", [HERE, ELSEWHERE])
def test_error_of_a_missing_v1_says_so(site: ProgramSite, base: str, key: str | None):
    program = site.program(base, key)
    for path in ("chat/completions", "completions", "responses"):
        answer = program.post(f"/{path}", json={})
        assert (answer.status_code, code(answer)) == (404, "unknown_url")
        assert f"/v1/{path}" in answer.json()["error"]["message"]
    assert site.ran == [] and site.stand_in.asked == []


@pytest.mark.parametrize(
    "path",
    ["/health", "/models", "/api/tags", "/api/v1/models", "/props", "/v3/models", "/V1/models"],
)
@pytest.mark.parametrize("base", [HERE, ELSEWHERE])
def test_probes_for_other_servers_apis_are_404(site: ProgramSite, base: str, path: str):
    answer = site.program(base).get(path)
    assert (answer.status_code, code(answer)) == (404, "unknown_url")
    assert "/v1" in answer.json()["error"]["message"] and answer.headers["x-request-id"]
    assert site.program(base).head(path).status_code == 404
    assert site.ran == []


def test_models_page_is_shown_and_api_requests_get_the_missing_v1_error(site: ProgramSite):
    answer = site.program(HERE, "guest").get("/models")
    assert (answer.status_code, code(answer)) == (404, "unknown_url")
    page = {"accept": "text/html,application/xhtml+xml"}
    for browser in (site.browser(HERE), site.browser(HERE, authorization="Bearer of a proxy")):
        assert browser.get("models", headers=page).text == "the page"
    assert site.program(HERE, "guest").get("/chat/completions").text == "the page"
