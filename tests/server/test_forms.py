"""Reading submitted forms, the redirect after sign-in, and CSRF tokens."""

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
from core.server.forms import BadForm, CsrfTokens, read_form
from core.server.paths import FIRST_PAGE, MAX_LINK, PAGES, safe_next, sign_in_link
from tests.auth.samples import HOSTILE, hostile_texts

_LOOP = ThreadPoolExecutor(1, initializer=lambda: asyncio.set_event_loop(asyncio.new_event_loop()))
"""A thread with one event loop for all reads, because Playwright's runs in the tests' thread."""

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


def status_of(*args: object, **options: object) -> int:
    with pytest.raises(BadForm) as raised:
        read(*args, **options)
    assert str(raised.value).endswith(".")
    return raised.value.status


# Reading


def test_form_is_read_in_one_or_several_chunks():
    fields = {"name": "Ådä", "password": "a&b=c+d %41 \N{SNOWMAN}", "empty": ""}
    body = urlencode(fields).encode()
    assert read(body) == read(body, pieces=7) == fields
    assert read(body, KIND + b"; charset=utf-8") == fields


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
        (b"&".join(b"f%d=1" % n for n in range(forms.MAX_FIELDS + 1)), KIND, 400),
        (b"name=" + b"a" * forms.MAX_BYTES, KIND, 413),
    ],
)
def test_invalid_forms_are_rejected(body: bytes, kind: bytes, status: int):
    assert status_of(body, kind) == status
    assert status_of(body, kind, pieces=5) == status


def test_incorrect_content_length_does_not_bypass_the_limit():
    assert status_of(b"a=b", content_length=str(10**9)) == 413, "rejected before it is read"
    assert status_of(b"a=" + b"b" * forms.MAX_BYTES, content_length="3") == 413
    assert read(b"a=b", content_length="\u0663") == {"a": "b"}


def test_form_that_arrives_too_slowly_is_rejected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forms, "READ_TIMEOUT_S", 0.05)

    async def receive() -> dict[str, object]:
        await asyncio.sleep(10)
        raise AssertionError("it did not time out")

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", KIND)]}
    with pytest.raises(BadForm) as raised:
        finished(read_form(Request(scope, receive)))
    assert raised.value.status == 408


@settings(max_examples=500)
@given(st.one_of(st.binary(max_size=300), hostile_texts.map(lambda t: t.encode("utf-8", "ignore"))))
def test_random_bytes_are_fields_or_an_error(body: bytes):
    try:
        fields = read(body)
    except BadForm as bad:
        assert 400 <= bad.status < 500
    else:
        assert all(isinstance(text, str) for pair in fields.items() for text in pair)
        "".join([*fields, *fields.values()]).encode()  # no lone surrogates


@settings(max_examples=500)
@given(hostile_texts)
def test_hostile_text_is_read_unchanged(text: str):
    whole = text.encode("utf-8", "replace").decode()
    assert read(f"name={quote_plus(whole)}".encode())["name"] == whole


# Redirect after sign-in


@pytest.mark.parametrize("page", PAGES)
def test_links_to_pages_are_kept(page: str):
    assert safe_next(page) == page
    assert safe_next(f"{page}?model=dolly%2Fv2&x=%20y") == f"{page}?model=dolly%2Fv2&x=%20y"


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
        "instruct?" + "a" * MAX_LINK,
        *HOSTILE,
    ],
)
def test_other_links_are_replaced_by_the_first_page(elsewhere: str | None):
    assert safe_next(elsewhere) == FIRST_PAGE


def test_sign_in_link_keeps_the_link():
    assert sign_in_link("instruct", "") == "sign-in"
    assert sign_in_link("models", "q=a&b=%2F") == "sign-in?next=models%3Fq%3Da%26b%3D%252F"


# CSRF tokens


class Now:
    at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


def test_token_is_valid_once_for_its_form_browser_and_session():
    now = Now()
    tokens, nonce, other = CsrfTokens(now), CsrfTokens.new_nonce(), CsrfTokens.new_nonce()
    token = tokens.issue("sign-in", nonce, None)
    assert tokens.is_valid(token, "sign-in", nonce, None)
    assert tokens.is_valid(token, "sign-in", nonce, None), "checking does not invalidate it"
    assert not tokens.is_valid(token, "register", nonce, None)
    assert not tokens.is_valid(token, "sign-in", other, None)
    assert not tokens.is_valid(token, "sign-in", None, None)
    assert not tokens.is_valid(token, "sign-in", nonce, "token")
    assert not CsrfTokens(now).is_valid(token, "sign-in", nonce, None), "another process"
    tokens.mark_used(token)
    assert not tokens.is_valid(token, "sign-in", nonce, None)
    assert tokens.is_valid(tokens.issue("sign-in", nonce, None), "sign-in", nonce, None)


def test_token_expires_and_is_not_valid_before_it_was_issued():
    now = Now()
    tokens, nonce = CsrfTokens(now), CsrfTokens.new_nonce()
    token = tokens.issue("sign-in", nonce, None)
    now.at += forms.TOKEN_AGE_S
    assert tokens.is_valid(token, "sign-in", nonce, None)
    now.at += 1
    assert not tokens.is_valid(token, "sign-in", nonce, None)
    now.at -= 2 * forms.TOKEN_AGE_S
    assert not tokens.is_valid(token, "sign-in", nonce, None)


@given(hostile_texts, st.integers(0, 200), st.characters())
def test_other_texts_are_not_valid_tokens(text: str, place: int, letter: str):
    tokens, nonce = CsrfTokens(), CsrfTokens.new_nonce()
    assert not tokens.is_valid(text, "sign-in", nonce, None)
    assert not tokens.is_valid(text, "sign-in", text, None)
    token = tokens.issue("sign-in", nonce, None)
    changed = token[:place] + letter + token[place + 1 :]
    assert tokens.is_valid(changed, "sign-in", nonce, None) is (changed == token)


def test_number_of_used_tokens_is_limited(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forms, "_MAX_USED_TOKENS", 100)
    tokens, nonce = CsrfTokens(), CsrfTokens.new_nonce()
    for _ in range(300):
        tokens.mark_used(tokens.issue("sign-in", nonce, None))
    assert len(tokens._used) <= 100
