"""Permissions by account and place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.auth.permissions import Access, Place, access, is_loopback, is_loopback_host
from core.db import Account, Role
from core.errors import AccessDeniedError
from core.settings import AuthMode
from tests.auth.samples import HOSTILE, Clock, hostile_texts

BROWSER = [("Host", "localhost:8501"), ("User-Agent", "Browser"), ("Accept", "*/*")]


def a_place(*more: tuple[str, str], bound: str | None = "127.0.0.1", **options: Any) -> Place:
    return Place.of([*BROWSER, *more], bound=bound, **options)


def an_account(role: Role = Role.USER, *, disabled: bool = False) -> Account:
    now = Clock().now
    return Account(
        id="a1",
        name="Ada",
        key="ada",
        look="ada",
        password_hash="x",
        device_key="00",
        role=role,
        disabled=disabled,
        created_at=now,
        password_changed_at=now,
    )


def may(place: Place, account: Account | None = None, auth: AuthMode = AuthMode.AUTO) -> str:
    """The permissions as letters: use, manage, administer."""
    found = access(place, auth, account)
    rights = {"u": found.use, "m": found.manage, "a": found.administer}
    return "".join(letter for letter, has in rights.items() if has)


@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9"])
@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8501", "127.0.0.1:8501", "127.1.2.3", "[::1]:8501", "[::1]"]
)
def test_guests_on_this_machine_may_use_and_manage(bound: str, host: str):
    place = Place.of([("host", host)], bound=bound)
    assert may(place) == "um"
    assert may(place, auth=AuthMode.REQUIRED) == ""


@pytest.mark.parametrize("bound", [None, "", "0.0.0.0", "::", "192.168.0.5", "10.0.0.1", "host"])
def test_sign_in_is_required_unless_bound_to_loopback(bound: str | None):
    assert may(a_place(bound=bound)) == ""


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "localhost.example.org",
        "localhost.",
        "app.localhost",
        "127.0.0.1.nip.io",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.01",
        "0.0.0.0",
        "[::]",
        "192.168.0.5:8501",
        "localhost:99999999",
        "localhost:",
        "localhost:80:80",
        "localhost,example.org",
        "localhost example.org",
        "localhost@example.org",
        "user@localhost",
        "localhost/",
        "localhost#",
        "[::1",
        "::1",
        "[::1%25eth0]",
        "localhost\n",
        "localhost\x00",
        "ⓛocalhost",
        "ｌocalhost",
        "LOCALHOST\u0130",
        "127.0.0.١",
        "",
        *HOSTILE,
    ],
)
def test_sign_in_is_required_for_a_host_other_than_loopback(host: str):
    place = Place.of([("Host", host)], bound="127.0.0.1")
    assert not place.on_this_machine and may(place) == ""


@settings(max_examples=700)
@given(st.one_of(hostile_texts, hostile_texts.map(lambda text: f"localhost{text}")))
def test_hostile_host_headers_are_not_loopback(host: str):
    if is_loopback_host(host):
        name, _, port = host.strip(" \t").lower().partition(":")
        assert name == "localhost" or name.startswith(("127.", "[")), host
        assert name.startswith("[") or port == "" or port.isdecimal()


def test_sign_in_is_required_without_exactly_one_host():
    assert may(Place.of([], bound="127.0.0.1")) == ""
    assert may(a_place(("host", "localhost"))) == ""
    assert may(a_place(("HOST", "example.org"))) == ""


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For",
        "x-forwarded-host",
        "X-FORWARDED-PROTO",
        "X-Forwarded-Prefix",
        "X_Forwarded_For",
        "x-forwarded",
        "Forwarded",
        "Via",
        "X-Real-IP",
        "CF-Connecting-IP",
        "True-Client-IP",
        " X-Forwarded-For ",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", "", "203.0.113.9"])
def test_sign_in_is_required_with_a_proxy_header(header: str, value: str):
    assert may(a_place((header, value))) == ""


def test_remote_address_must_be_loopback_if_known():
    assert may(a_place(peer="127.0.0.1")) == may(a_place(peer="::1")) == "um"
    assert may(a_place(peer="::ffff:127.0.0.1")) == "um"
    for peer in ("192.168.0.9", "2001:db8::1", "", "nonsense"):
        assert may(a_place(peer=peer)) == ""


@pytest.mark.parametrize(
    ("role", "here", "elsewhere"),
    [(Role.USER, "um", "u"), (Role.MANAGER, "um", "um"), (Role.ADMINISTRATOR, "uma", "uma")],
)
def test_permissions_of_signed_in_users(role: Role, here: str, elsewhere: str):
    account = an_account(role)
    assert may(a_place(), account) == here
    for place in (a_place(("Via", "1.1 proxy")), a_place(bound="0.0.0.0")):
        assert may(place, account) == elsewhere
    assert may(a_place(), account, AuthMode.REQUIRED) == elsewhere


def test_disabled_account_is_a_guest():
    account = an_account(Role.ADMINISTRATOR, disabled=True)
    assert may(a_place(), account) == "um"
    assert may(a_place(bound="0.0.0.0"), account) == ""


def test_missing_permissions_are_errors():
    nothing = Access(use=False, manage=False, administer=False)
    for check in (nothing.check_use, nothing.check_manage):
        with pytest.raises(AccessDeniedError, match=r"^Sign-in is required\..*\.$"):
            check()
    user = Access(use=True, manage=False, administer=False)
    user.check_use()
    with pytest.raises(AccessDeniedError, match=r"Requires the Manage permission\. Ask"):
        user.check_manage()
    everything = Access(use=True, manage=True, administer=True)
    everything.check_manage()


def test_loopback_addresses():
    for mine in ("127.0.0.1", "127.255.0.1", "::1", "localhost", "::ffff:127.0.0.1"):
        assert is_loopback(mine)
    for other in (None, "", "0.0.0.0", "::", "example.org", "::ffff:10.0.0.1", "169.254.1.1"):
        assert not is_loopback(other)
