"""Sign-in with an OpenID Connect provider, here a small one on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from core.auth import Accounts
from core.db import AccountStore
from core.settings import CHECKOUT, Settings
from tests.browser.conftest import free_port, serving
from tests.server.provider import Provider
from tests.server.world import CSRF_TOKEN
from tests.waiting import PATIENCE_S

APP = "tests/browser/app_with_scripted_runtime.py"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("provider")


@pytest.fixture(scope="module")
def url(home: Path, provider: Provider) -> Iterator[str]:
    port = free_port()
    secrets = home / ".streamlit" / "secrets.toml"  # in the server's home folder
    secrets.parent.mkdir()
    secrets.write_text(provider.secrets_toml(f"http://127.0.0.1:{port}"))
    rules = {"PADDOCK_AUTH": "required", "PADDOCK_REGISTRATION": "open"}
    with serving(APP, home, port=port, **rules) as address:
        yield address


PAGE = {"Accept": "text/html"}
"""Without it, ``/models`` is taken for a request of a program that lacks ``/v1``."""


def come_by_the_provider(browser: httpx.Client) -> httpx.Response:
    """Follow the link on the sign-in form to the provider and back."""
    form = browser.get("/models?q=x", follow_redirects=True)
    found = [part.split('"')[0] for part in form.text.split('href="') if "auth/login" in part]
    assert "Sign in with your organisation" in form.text
    answer = browser.get(f"/{found[0]}")
    for _ in range(8):
        if not answer.is_redirect or str(answer.next_request.url).endswith("/register"):
            break
        answer = browser.send(answer.next_request)
    return answer


def test_user_of_a_provider_registers_once(url: str, home: Path, provider: Provider) -> None:
    with httpx.Client(base_url=url, timeout=PATIENCE_S, headers=PAGE) as browser:
        come_by_the_provider(browser)
        form = browser.get("/register")
        assert 'value="Hedy.Lamarr"' in form.text and 'type="password"' not in form.text
        csrf_token = CSRF_TOKEN.search(form.text)
        assert csrf_token
        answer = browser.post("/register", data={"csrf_token": csrf_token[1], "name": "Hedy"})
        assert answer.status_code == 303, answer.text
        assert browser.get("/models").status_code == 200
        assert "_streamlit_user" not in browser.cookies, "only the Paddock session remains"

    with httpx.Client(
        base_url=url, timeout=PATIENCE_S, headers={"Accept": "text/html"}
    ) as other:  # another browser of the same user
        come_by_the_provider(other)
        assert other.get("/models").status_code == 200

    store = AccountStore.open(Settings(home=home / "paddock"))
    accounts = Accounts(store, Settings(home=home / "paddock"))
    account = accounts.find("Hedy")
    assert account is not None and account.subject == f"{provider.url} 1234"
    assert len(accounts.administration.everybody()) == 1
    store.change(account.id, disabled=True, end_sessions=True)
    with httpx.Client(base_url=url, timeout=PATIENCE_S, headers=PAGE) as other:
        answer = come_by_the_provider(other)
        assert "This account is disabled" in answer.text
        assert other.get("/models").status_code == 303
    store.change(account.id, disabled=False)
    store.close()


def test_another_subject_is_another_user(url: str, provider: Provider) -> None:
    provider.subject = "5678"
    with httpx.Client(base_url=url, timeout=PATIENCE_S, headers=PAGE) as browser:
        come_by_the_provider(browser)
        assert browser.get("/models").status_code == 303, "no account yet"
        assert "Create an account" in browser.get("/register").text
    provider.subject = "1234"


@pytest.mark.parametrize("value", ["", "x", "eyJpc3MiOiJ4In0.x.y", "a" * 3000])
def test_forged_provider_cookie_is_rejected(url: str, value: str) -> None:
    cookies = {"cookie": f"_streamlit_user={value}"}
    answer = httpx.get(f"{url}/sign-in", headers=cookies)
    assert answer.status_code == 200 and 'type="password"' in answer.text
    assert 'type="password"' in httpx.get(f"{url}/register", headers=cookies).text


def test_checkout_has_no_secrets_file() -> None:
    assert not (CHECKOUT / ".streamlit" / "secrets.toml").exists()
