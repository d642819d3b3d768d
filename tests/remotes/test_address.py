"""How remotes and their models are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import PersonMistake
from core.remotes import is_remote, model_name, split_name
from core.remotes.address import clean_name, clean_url, host_of, on_this_machine


@pytest.mark.parametrize("model", ["tiny", "org/large-model", "a/b/c:latest", "wörter 7b"])
def test_a_name_is_made_and_split(model: str):
    name = model_name("office-2", model)
    assert is_remote(name)
    assert split_name(name) == ("office-2", model)


@pytest.mark.parametrize(
    "name",
    ["remote:", "remote:office", "remote:office/", "remote:Office/x", "remote:../x/y", "a/b"],
)
def test_what_is_no_name_is_refused(name: str):
    with pytest.raises(PersonMistake, match="remote:NAME/MODEL"):
        split_name(name)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" http://box:8000/v1/ ", "http://box:8000/v1"),
        ("https://LLM.example/V3", "https://llm.example/V3"),
        ("http://[::1]:9/v1", "http://[::1]:9/v1"),
    ],
)
def test_a_base_url_is_kept_without_its_last_slash(typed: str, kept: str):
    assert clean_url(typed) == kept


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
def test_what_is_no_base_url_is_refused_without_repeating_it(url: str):
    with pytest.raises(PersonMistake) as refused:
        clean_url(url)
    assert "secret" not in str(refused.value)


@given(st.text())
def test_no_text_breaks_the_check(text: str):
    for check in (clean_url, clean_name):
        try:
            kept = check(text)
        except PersonMistake:
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
def test_only_loopback_is_this_machine(url: str, here: bool):
    assert on_this_machine(url) is here
    assert host_of(url).endswith(":1")
