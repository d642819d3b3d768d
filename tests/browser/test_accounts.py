"""Accounts on a server with required sign-in: sessions, privacy, permissions and API keys."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from core.settings import CHECKOUT
from tests.auth.samples import GOOD, OTHER
from tests.browser.conftest import free_port, serving
from tests.browser.screen import Screen, eventually
from tests.waiting import PATIENCE_S

APP = "tests/browser/app_with_scripted_runtime.py"
PAGES = ("instruct", "compare", "metrics", "models", "account")
NAVIGATION = ["Instruct", "Compare", "Test sets", "Metrics", "Models", "Account"]


@dataclass
class Team:
    """A server with required sign-in."""

    url: str
    home: Path


@pytest.fixture(scope="module")
def team(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    home = tmp_path_factory.mktemp("team")
    (home / "paddock").mkdir()
    subprocess.run(
        [sys.executable, "-m", "core", "admin", "Boss", "--password-stdin"],
        input=f"{OTHER}\n",
        text=True,
        cwd=CHECKOUT,
        env=os.environ | {"PADDOCK_HOME": str(home / "paddock")},
        check=True,
    )
    with serving(APP, home, PADDOCK_AUTH="required", PADDOCK_REGISTRATION="open") as url:
        yield Team(url, home)


@pytest.fixture
def person(team: Team, open_screen: Callable[..., Screen]) -> Callable[..., Screen]:
    """Return a function that signs a user in in a new browser, creating the account if needed."""

    def enter(name: str, page: str = "instruct", password: str = GOOD) -> Screen:
        screen = open_screen(f"{team.url}/{page}", fresh=True)
        if name != "Boss":
            screen.page.get_by_role("link", name="Create an account").click()
            screen.page.get_by_label("Confirm password").fill(password)
        screen.page.get_by_label("User name").fill(name)
        screen.page.get_by_label("Password", exact=True).fill(password)
        screen.page.get_by_role("button").click()
        screen.page.get_by_role("link", name="Account", exact=True).wait_for()
        return screen

    return enter


def await_navigation(screen: Screen) -> None:
    """Wait for the links to all pages, which Streamlit shows after it has measured them."""
    links = screen.page.get_by_test_id("stTopNavLink")

    def names() -> list[str]:
        return [text.split("\n")[-1] for text in links.all_inner_texts()]

    eventually(lambda: names() == NAVIGATION, "the links")


def test_session_survives_reload_and_restart(
    tmp_path: Path, open_screen: Callable[..., Screen]
) -> None:
    port, rules = free_port(), {"PADDOCK_AUTH": "required", "PADDOCK_REGISTRATION": "open"}
    with serving(APP, tmp_path, port=port, **rules) as url:
        screen = open_screen(f"{url}/models?q=dolly", fresh=True)
        for page in PAGES:  # on a fresh server, signed out
            screen.page.goto(f"{url}/{page}")
            assert screen.path == "/sign-in"
            assert screen.page.locator("input:visible").count() == 2
            assert "stApp" not in screen.page.content(), "nothing of the pages is there"
        screen.page.goto(f"{url}/models?q=dolly")
        screen.page.get_by_role("link", name="Create an account").click()
        screen.page.get_by_label("User name").fill("Ada")
        screen.page.get_by_label("Password", exact=True).fill(GOOD)
        screen.page.get_by_label("Confirm password").fill(GOOD)
        screen.page.get_by_role("button", name="Create account").click()
        await_navigation(screen)
        assert screen.path == "/models" and "q=dolly" in screen.url
        screen.page.reload()
        await_navigation(screen)
        screen.page.goto("about:blank")  # the page must not look for a stopped server
    with serving(APP, tmp_path, port=port, **rules) as url:
        for page in PAGES:
            screen.page.goto(f"{url}/{page}")
            await_navigation(screen)
            assert screen.path == f"/{page}"


def test_signing_out_closes_every_open_page_of_the_session(
    team: Team, person: Callable[..., Screen]
) -> None:
    first = person("Cleo")
    second = first.page.context.new_page()
    second.goto(f"{team.url}/metrics")
    second.get_by_role("link", name="Account", exact=True).wait_for()
    first.go_to("Account")
    first.page.get_by_role("button", name="Sign out").click()
    first.page.wait_for_url("**/sign-out")  # its button has the same name
    first.page.get_by_role("button", name="Sign out", exact=True).click()
    first.page.get_by_text("You are signed out.").wait_for()
    second.get_by_text("Your session has ended.").wait_for()
    second.goto(f"{team.url}/metrics")
    second.get_by_label("Password").wait_for()


def test_answers_are_private_to_their_account(team: Team, person: Callable[..., Screen]) -> None:
    dora, egon = person("Dora"), person("Egon", "account")
    dora.ready()
    dora.ask("A secret of Dora's?")
    dora.await_answer()
    as_json = dora.page.get_by_role("button", name="JSON").first
    dora.open(dora.newest.get_by_role("button", name="More"), as_json)
    with dora.page.expect_response(lambda answer: "/media/" in answer.url) as fetched:
        as_json.click()
    address = fetched.value.url
    assert dora.page.context.request.get(address).status == 200
    assert egon.page.context.request.get(address).status == 404

    dora.go_to("Account")
    mine = dora.page.get_by_text("A secret of Dora's?")
    mine.first.wait_for()
    egon.page.reload()
    egon.page.get_by_text("Your answers", exact=True).wait_for()
    assert egon.page.get_by_text("secret").count() == 0
    for page in PAGES:
        egon.page.goto(f"{team.url}/{page}")
        egon.page.get_by_role("link", name="Account", exact=True).wait_for()
        eventually(lambda: egon.page.get_by_test_id("stApp").count(), "it is drawn")
        assert "secret" not in egon.page.content()


def page_session(url: str, cookies: str, wanted: str = "") -> str:
    """Open a page's websocket, request a session, and return the id of the one assigned."""
    asked = ["streamlit", "xsrf", wanted] if wanted else ["streamlit"]
    with connect(
        f"{url.replace('http', 'ws')}/_stcore/stream",
        subprotocols=[Subprotocol(each) for each in asked],
        additional_headers={"Cookie": cookies},
        max_size=None,
    ) as page:
        page.send(BackMsg(rerun_script=ClientState(page_name="account")).SerializeToString())
        while True:
            said = ForwardMsg.FromString(page.recv(timeout=PATIENCE_S))
            if said.WhichOneof("type") == "new_session":
                return said.new_session.initialize.session_id


def test_page_session_of_another_user_cannot_be_taken_over(
    team: Team, person: Callable[..., Screen]
) -> None:
    cookies = [
        "; ".join(f"{each['name']}={each['value']}" for each in screen.page.context.cookies())
        for screen in (person("Hugo"), person("Ines"))
    ]
    hugos = page_session(team.url, cookies[0])
    assert page_session(team.url, cookies[1], hugos) != hugos
    assert page_session(team.url, cookies[0], hugos) == hugos, (
        "a user's own session continues after an interruption"
    )


def test_administrator_grants_the_manage_permission(
    person: Callable[..., Screen],
) -> None:
    fred = person("Fred", "models")
    fred.page.get_by_text("requires the Manage permission").first.wait_for()
    assert fred.page.get_by_role("button", name="Add a model").count() == 0
    fred.page.get_by_role("button", name="Paddock NeoX").first.click()
    convert = fred.page.get_by_role("button", name="Convert to")
    convert.first.wait_for()
    assert convert.first.is_disabled()

    boss = person("Boss", "account", OTHER)
    boss.page.get_by_text("All accounts", exact=True).wait_for()
    manager = boss.page.get_by_role("option", name="Manager")
    boss.choose(boss.page.get_by_role("combobox", name="Role of Fred"), manager)
    boss.page.locator('[class*="st-key-role_"][class*="_manager"]').first.wait_for()
    fred.page.reload()
    fred.page.get_by_role("button", name="Add a model").wait_for()
    assert fred.page.get_by_text("requires the Manage permission").count() == 0

    row = boss.page.locator('[class*="st-key-able_"]')

    def closed() -> int:
        return sum(each.get_by_role("button").is_disabled() for each in row.all())

    eventually(lambda: row.count() > closed() == 1, "only other accounts can be disabled")


def test_api_key_is_shown_once_and_works_until_revoked(
    team: Team, person: Callable[..., Screen]
) -> None:
    jana = person("Jana", "account")
    keys = jana.page.locator(".st-key-api_keys")
    keys.get_by_text("You have no API keys.").wait_for()
    jana.page.get_by_role(
        "button", name="Delete your answers"
    ).wait_for()  # last element of the page
    keys.get_by_role("button", name="Create API key").click()
    make = jana.page.locator(".st-key-make_api_key").get_by_role("button")
    make.click()
    jana.page.get_by_text("The name of the key is empty").wait_for()
    jana.page.locator(".st-key-api_key_name input").fill("The notebook's")
    make.click()
    secret = keys.locator("code").inner_text().strip()
    assert secret.startswith("pdk_")
    make.wait_for(state="detached")  # a second click would hide the first key
    program = openai.OpenAI(base_url=f"{team.url}/v1", api_key=secret, max_retries=0)
    assert "paddock-neox" in [model.id for model in program.models.list()]

    jana.page.reload()
    keys.get_by_text("The notebook's").first.wait_for()
    keys.get_by_text("last used just now").wait_for()
    assert secret not in jana.page.content() and keys.locator("code").count() == 0

    keys.get_by_role("button", name="Revoke The notebook's").click()
    jana.page.locator('[class*="st-key-revoke_"]').get_by_role("button").click()
    keys.get_by_text("You have no API keys.").wait_for()
    with pytest.raises(openai.AuthenticationError):
        program.models.list()


def test_disabled_account_is_signed_out_within_seconds(person: Callable[..., Screen]) -> None:
    gina = person("Gina", "metrics")
    boss = person("Boss", "account", OTHER)
    line = boss.page.get_by_text("Gina", exact=True).locator(
        'xpath=ancestor::*[@data-testid="stHorizontalBlock" or @data-testid="stLayoutWrapper"][1]'
    )
    line.get_by_role("button", name="Disable").click()
    gina.page.get_by_text("Your session has ended.").wait_for()
    gina.page.get_by_label("User name").fill("Gina")
    gina.page.get_by_label("Password").fill(GOOD)
    gina.errors.clear()
    gina.page.get_by_role("button", name="Sign in").click()
    gina.page.get_by_text("This account is disabled").wait_for()
    gina.errors.clear()  # HTTP status of the rejection
