"""Names of remote models, and base URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.remotes import is_remote, model_name, split_name
from core.remotes.address import clean_name, clean_url, on_this_machine


@pytest.mark.parametrize("model", ["tiny", "org/large-model", "a/b/c:latest", "wörter 7b"])
def test_name_round_trip(model: str):
    name = model_name("office-2", model)
    assert is_remote(name)
    assert split_name(name) == ("office-2", model)


@pytest.mark.parametrize(
    "name",
    ["remote:", "remote:office", "remote:office/", "remote:Office/x", "remote:../x/y", "a/b"],
)
def test_invalid_names_are_rejected(name: str):
    with pytest.raises(UserError, match="remote:NAME/MODEL"):
        split_name(name)


@pytest.mark.parametrize(
    ("entered", "stored"),
    [
        (" http://box:8000/v1/ ", "http://box:8000/v1"),
        ("https://LLM.example/V3", "https://llm.example/V3"),
        ("http://[::1]:9/v1", "http://[::1]:9/v1"),
    ],
)
def test_base_url_is_stored_without_its_trailing_slash(entered: str, stored: str):
    assert clean_url(entered) == stored


@pytest.mark.parametrize(
    "url",
    [
        "",
        "box:8000/v1",
        "ftp://box/v1",
        "file:///etc/passwd",
        "http:///v1",
        "http://box:port/v1",
        "http://user:secret@box/v1",
        "http://box/v1?key=secret",
        "http://box/v1#here",
        "http://box/v1\nHost: other",
        "http://box\\@other/v1",
        "http://" + "a" * 600,
    ],
)
def test_invalid_base_urls_are_rejected_without_quoting_them(url: str):
    with pytest.raises(UserError) as caught:
        clean_url(url)
    assert "secret" not in str(caught.value)


@given(st.text())
def test_random_texts_are_errors_or_stable(text: str):
    for check in (clean_url, clean_name):
        try:
            kept = check(text)
        except UserError:
            continue
        assert check(kept) == kept


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1/v1", True),
        ("http://127.0.0.1:1/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://box:1/v1", False),
        ("http://192.168.0.7:1/v1", False),
    ],
)
def test_only_loopback_is_on_this_machine(url: str, here: bool):
    assert on_this_machine(url) is here
