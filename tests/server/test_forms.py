"""What is read of a form, and the seals that tell a genuine one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from core.server import forms
from core.server.forms import BadForm, Seals, from_this_site, read_form, same_origin
from core.server.paths import FIRST_PAGE, LONGEST, PAGES, onward, sign_in_for
from tests.auth.samples import HOSTILE, hostile_texts

_LOOP = ThreadPoolExecutor(1, initializer=lambda: asyncio.set_event_loop(asyncio.new_event_loop()))
"""A thread with one loop for thousands of readings: Playwright's own runs in the tests' thread."""

KIND = b"application/x-www-form-urlencoded"


def request(body: bytes, kind: bytes = KIND, pieces: int = 1, **headers: str) -> Request:
    size = max(1, -(-len(body) // pieces))
    parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", kind)]}
    scope["headers"] += given
    return Request(scope, receive)


def finished(reading: Coroutine[Any, Any, dict[str, str]]) -> dict[str, str]:
    return _LOOP.submit(lambda: asyncio.get_event_loop().run_until_complete(reading)).result()


def read(*args: object, **options: object) -> dict[str, str]:
    return finished(read_form(request(*args, **options)))  # type: ignore[arg-type]


def refusal(*args: object, **options: object) -> int:
    with pytest.raises(BadForm) as raised:
        read(*args, **options)
    assert str(raised.value).endswith(".")
    return raised.value.status


# Reading


def test_a_form_is_read_whatever_it_is_cut_into():
    typed = {"name": "Ådä", "password": "a&b=c+d %41 \N{SNOWMAN}", "empty": ""}
    body = urlencode(typed).encode()
    assert read(body) == read(body, pieces=7) == typed
    assert read(body, KIND + b"; charset=utf-8") == typed


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"name": "Ada"}', b"application/json", 415),
        (b"name=Ada", b"text/plain", 415),
        (b"name=Ada", b"multipart/form-data; boundary=x", 415),
        (b"name=Ada", b"", 415),
        (b"name=%ff%fe", KIND, 400),
        (b"name=%ED%A0%80", KIND, 400),
        (b"name=\xff", KIND, 400),
        (b"name=Ada&name=Bo", KIND, 400),
        (b"&".join(b"f%d=1" % n for n in range(forms.MOST_FIELDS + 1)), KIND, 400),
        (b"name=" + b"a" * forms.LARGEST, KIND, 413),
    ],
)
def test_what_is_no_form_of_ours_is_refused(body: bytes, kind: bytes, status: int):
    assert refusal(body, kind) == status
    assert refusal(body, kind, pieces=5) == status


def test_a_length_that_is_a_lie_opens_nothing():
    assert refusal(b"a=b", content_length=str(10**9)) == 413, "refused before it is read"
    assert refusal(b"a=" + b"b" * forms.LARGEST, content_length="3") == 413
    assert read(b"a=b", content_length="\u0663") == {"a": "b"}


def test_a_form_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forms, "SLOWEST_S", 0.05)

    async def receive() -> dict[str, object]:
        await asyncio.sleep(10)
        raise AssertionError("it was waited for")

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", KIND)]}
    with pytest.raises(BadForm) as raised:
        finished(read_form(Request(scope, receive)))
    assert raised.value.status == 408


@settings(max_examples=1500, deadline=None)
@given(st.one_of(st.binary(max_size=300), hostile_texts.map(lambda t: t.encode("utf-8", "ignore"))))
def test_whatever_bytes_come_are_fields_or_a_refusal(body: bytes):
    try:
        fields = read(body)
    except BadForm as bad:
        assert 400 <= bad.status < 500
    else:
        assert all(isinstance(text, str) for pair in fields.items() for text in pair)
        "".join([*fields, *fields.values()]).encode()  # no half characters


@settings(max_examples=1500, deadline=None)
@given(hostile_texts)
def test_a_hostile_text_comes_out_as_it_was_put_in(text: str):
    whole = text.encode("utf-8", "replace").decode()
    assert read(f"name={quote_plus(whole)}".encode())["name"] == whole


# Where it comes from


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "cross-site", "origin": "http://a.example"}, False),
        ({"origin": "http://a.example"}, True),
        ({"origin": "https://A.example"}, True),
        ({"origin": "http://a.example.evil"}, False),
        ({"origin": "http://a.example:8080"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://evil@a.example"}, False),
        ({"origin": ""}, False),
        ({}, True),
    ],
)
def test_a_form_from_another_site_is_told(headers: dict[str, str], ours: bool):
    assert from_this_site(request(b"", host="a.example", **headers)) is ours


@settings(deadline=None)
@given(hostile_texts)
def test_no_hostile_origin_is_ours(text: str):
    if text.strip().lower() not in ("http://a.example", "https://a.example"):
        assert not same_origin(text, "a.example")


# Where it leads


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_led_on_to_with_its_link(page: str):
    assert onward(page) == page
    assert onward(f"{page}?model=dolly%2Fv2&x=%20y") == f"{page}?model=dolly%2Fv2&x=%20y"


@pytest.mark.parametrize(
    "elsewhere",
    [
        None,
        "",
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "instruct/../../x",
        "instruct@evil.example",
        "instruct?a b",
        "instruct?a\r\nSet-Cookie: x=y",
        "models#x",
        "sign-out",
        "instruct?" + "a" * LONGEST,
        *HOSTILE,
    ],
)
def test_nothing_else_is_led_on_to(elsewhere: str | None):
    assert onward(elsewhere) == FIRST_PAGE


def test_the_way_to_the_form_keeps_the_link():
    assert sign_in_for("instruct", "") == "sign-in"
    assert sign_in_for("models", "q=a&b=%2F") == "sign-in?next=models%3Fq%3Da%26b%3D%252F"


# Seals


class Now:
    at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


def test_a_seal_holds_for_its_form_browser_and_session_once():
    now = Now()
    seals, nonce, other = Seals(now), Seals.new_nonce(), Seals.new_nonce()
    seal = seals.seal("sign-in", nonce, None)
    assert seals.holds(seal, "sign-in", nonce, None)
    assert seals.holds(seal, "sign-in", nonce, None), "looking does not spend it"
    assert not seals.holds(seal, "register", nonce, None)
    assert not seals.holds(seal, "sign-in", other, None)
    assert not seals.holds(seal, "sign-in", None, None)
    assert not seals.holds(seal, "sign-in", nonce, "token")
    assert not Seals(now).holds(seal, "sign-in", nonce, None), "another process"
    seals.spend(seal)
    assert not seals.holds(seal, "sign-in", nonce, None)
    assert seals.holds(seals.seal("sign-in", nonce, None), "sign-in", nonce, None)


def test_a_seal_grows_old_and_does_not_come_from_the_future():
    now = Now()
    seals, nonce = Seals(now), Seals.new_nonce()
    seal = seals.seal("sign-in", nonce, None)
    now.at += forms.AGE_S
    assert seals.holds(seal, "sign-in", nonce, None)
    now.at += 1
    assert not seals.holds(seal, "sign-in", nonce, None)
    now.at -= 2 * forms.AGE_S
    assert not seals.holds(seal, "sign-in", nonce, None)


@settings(deadline=None)
@given(hostile_texts, st.integers(0, 200), st.characters())
def test_no_other_text_is_a_seal(text: str, place: int, letter: str):
    seals, nonce = Seals(), Seals.new_nonce()
    assert not seals.holds(text, "sign-in", nonce, None)
    assert not seals.holds(text, "sign-in", text, None)
    seal = seals.seal("sign-in", nonce, None)
    bent = seal[:place] + letter + seal[place + 1 :]
    assert seals.holds(bent, "sign-in", nonce, None) is (bent == seal)


def test_spent_seals_do_not_pile_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forms, "_MOST_SPENT", 100)
    seals, nonce = Seals(), Seals.new_nonce()
    for _ in range(300):
        seals.spend(seals.seal("sign-in", nonce, None))
    assert len(seals._spent) <= 100
