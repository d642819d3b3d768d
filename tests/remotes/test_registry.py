"""The registry of remote servers, and the sources of their keys."""

from __future__ import annotations

import stat
import sys
import threading
from pathlib import Path

import pytest

from core.errors import RemoteError, UnknownModelError, UserError
from core.remotes import RemoteRegistry
from core.remotes.registry import FILE_NAME
from core.settings import Settings

KEY = "sk-very-secret"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_remote_is_stored_and_does_not_show_its_key(settings: Settings):
    added = RemoteRegistry(settings).add("Office", "http://box:8000/v1/", f" {KEY}\n")
    book = RemoteRegistry(settings)
    assert book.list() == [added] == [book.get("office")]
    assert (added.url, added.host, added.has_key) == ("http://box:8000/v1", "box:8000", True)
    assert book.key(added) == KEY
    assert KEY not in repr(added) + repr(book.__dict__) + str(book.list())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_file_is_readable_by_its_owner_only(settings: Settings):
    book = RemoteRegistry(settings)
    for name in ("one", "two"):
        book.add(name, "http://box/v1", KEY)
    path = settings.home / FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    left = {each.name for each in settings.home.iterdir()}
    assert left <= {FILE_NAME, "remotes.lock"}


def test_removing_a_remote_deletes_its_key(settings: Settings):
    book = RemoteRegistry(settings)
    book.add("office", "http://box/v1", KEY)
    assert book.remove("office")
    assert not book.remove("office")
    assert book.list() == []
    assert KEY not in (settings.home / FILE_NAME).read_text()
    with pytest.raises(UnknownModelError, match="'office'"):
        book.get("office")


def test_two_registries_see_each_others_changes(settings: Settings):
    first, second = RemoteRegistry(settings), RemoteRegistry(settings)
    threads = [
        threading.Thread(target=book.add, args=(f"{name}-{n}", "http://box/v1"))
        for n in range(8)
        for name, book in (("a", first), ("b", second))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(first.list()) == len(second.list()) == 16


def test_remotes_and_keys_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = Settings(home=tmp_path, remotes="lab-2=https://llm.example/v3, office=http://box/v1")
    monkeypatch.setenv("PADDOCK_REMOTE_KEY_LAB_2", KEY)
    book = RemoteRegistry(settings)
    assert [remote.name for remote in book.list()] == ["lab-2", "office"]
    assert book.key(book.get("lab-2")) == KEY
    assert book.key(book.get("office")) is None
    assert book.get("lab-2").from_environment
    for change in (lambda: book.add("office", "http://other/v1"), lambda: book.remove("office")):
        with pytest.raises(UserError, match="PADDOCK_REMOTES"):
            change()


def test_key_of_a_stored_remote_from_the_environment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    book = RemoteRegistry(settings)
    book.add("office", "http://box/v1", "in-the-file")
    monkeypatch.setenv("PADDOCK_REMOTE_KEY_OFFICE", KEY)
    assert book.key(book.get("office")) == KEY
    assert book.key(book.add("office", "http://box/v1/")) == KEY


def test_key_of_the_environment_is_not_sent_to_an_added_server_of_the_same_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    book = RemoteRegistry(settings)
    book.add("office", "http://box/v1")
    monkeypatch.setenv("PADDOCK_REMOTE_KEY_OFFICE", KEY)
    monkeypatch.setenv("PADDOCK_REMOTE_KEY_LAB", KEY)
    for name in ("office", "lab", "Lab"):
        for key in ("", "its-own"):
            with pytest.raises(UserError, match="Choose another name"):
                book.add(name, "http://elsewhere/v1", key)
    assert [remote.url for remote in book.list()] == ["http://box/v1"]


def test_key_is_returned_only_for_the_current_address(settings: Settings):
    book = RemoteRegistry(settings)
    before = book.add("office", "http://box/v1", "of-the-box")
    now = book.add("office", "http://elsewhere/v1", KEY)
    assert book.key(now) == KEY
    with pytest.raises(RemoteError, match="changed or removed"):
        book.key(before)
    book.remove("office")
    with pytest.raises(RemoteError, match="changed or removed"):
        book.key(now)


@pytest.mark.parametrize("text", ["office", "office=", "=http://box/v1", "o=http://u:p@box/v1"])
def test_invalid_setting_is_an_error(tmp_path: Path, text: str):
    with pytest.raises(UserError, match="PADDOCK_REMOTES needs NAME=URL"):
        RemoteRegistry(Settings(home=tmp_path, remotes=text))


@pytest.mark.parametrize("key", ["two words", "new\nline", "schlüssel", "k" * 5000])
def test_key_that_cannot_be_sent_in_a_header_is_rejected(settings: Settings, key: str):
    with pytest.raises(UserError, match="key") as caught:
        RemoteRegistry(settings).add("office", "http://box/v1", key)
    assert key not in str(caught.value)
    assert not (settings.home / FILE_NAME).exists()


def test_unwritable_home_folder_is_an_error(tmp_path: Path):
    (tmp_path / "home").write_text("a file in the place of the folder")
    with pytest.raises(RemoteError, match="Nothing was changed"):
        RemoteRegistry(Settings(home=tmp_path / "home")).add("office", "http://box/v1")


def test_broken_file_is_an_error_and_not_overwritten(settings: Settings):
    settings.home.mkdir()
    path = settings.home / FILE_NAME
    path.write_text('{"remotes": ')
    book = RemoteRegistry(settings)
    assert book.list() == []
    with pytest.raises(RemoteError, match="cannot be read"):
        book.add("office", "http://box/v1")
    assert path.read_text() == '{"remotes": '
