"""Which remotes there are, and where their keys are."""

from __future__ import annotations

import stat
import sys
import threading
from pathlib import Path

import pytest

from core.errors import PersonMistake, RemoteError, UnknownModelError
from core.remotes import RemoteBook
from core.remotes.registry import FILE_NAME
from core.settings import Settings

KEY = "sk-very-secret"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_a_remote_is_kept_on_disk_with_its_key_apart(settings: Settings):
    added = RemoteBook(settings).add("Office", "http://box:8000/v1/", f" {KEY}\n")
    book = RemoteBook(settings)
    assert book.list() == [added] == [book.get("office")]
    assert (added.url, added.host, added.has_key) == ("http://box:8000/v1", "box:8000", True)
    assert book.key(added) == KEY
    assert KEY not in repr(added) + repr(book.__dict__) + str(book.list())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_file_is_its_owners_alone(settings: Settings):
    book = RemoteBook(settings)
    for name in ("one", "two"):
        book.add(name, "http://box/v1", KEY)
    path = settings.home / FILE_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    left = {each.name for each in settings.home.iterdir()}
    assert left <= {FILE_NAME, "remotes.lock"}


def test_a_removed_remote_leaves_no_key(settings: Settings):
    book = RemoteBook(settings)
    book.add("office", "http://box/v1", KEY)
    assert book.remove("office")
    assert not book.remove("office")
    assert book.list() == []
    assert KEY not in (settings.home / FILE_NAME).read_text()
    with pytest.raises(UnknownModelError, match="'office'"):
        book.get("office")


def test_two_books_see_each_others_changes(settings: Settings):
    first, second = RemoteBook(settings), RemoteBook(settings)
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


def test_the_environment_names_remotes_and_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = Settings(home=tmp_path, remotes="lab-2=https://llm.example/v3, office=http://box/v1")
    monkeypatch.setenv("PADDOCK_REMOTE_KEY_LAB_2", KEY)
    book = RemoteBook(settings)
    assert [remote.name for remote in book.list()] == ["lab-2", "office"]
    assert book.key(book.get("lab-2")) == KEY
    assert book.key(book.get("office")) is None
    assert book.get("lab-2").from_environment
    for change in (lambda: book.add("office", "http://other/v1"), lambda: book.remove("office")):
        with pytest.raises(PersonMistake, match="PADDOCK_REMOTES"):
            change()


def test_a_kept_remotes_key_may_come_from_the_environment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    book = RemoteBook(settings)
    book.add("office", "http://box/v1", "in-the-file")
    monkeypatch.setenv("PADDOCK_REMOTE_KEY_OFFICE", KEY)
    assert book.key(book.get("office")) == KEY
    assert book.key(book.add("office", "http://box/v1/")) == KEY


def test_the_environment_s_key_goes_to_no_server_that_somebody_adds_by_its_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    book = RemoteBook(settings)
    book.add("office", "http://box/v1")
    monkeypatch.setenv("PADDOCK_REMOTE_KEY_OFFICE", KEY)
    monkeypatch.setenv("PADDOCK_REMOTE_KEY_LAB", KEY)
    for name in ("office", "lab", "Lab"):
        for key in ("", "its-own"):
            with pytest.raises(PersonMistake, match="choose another name"):
                book.add(name, "http://elsewhere/v1", key)
    assert [remote.url for remote in book.list()] == ["http://box/v1"]


def test_a_key_is_for_the_address_that_its_name_stands_for(settings: Settings):
    book = RemoteBook(settings)
    before = book.add("office", "http://box/v1", "of-the-box")
    now = book.add("office", "http://elsewhere/v1", KEY)
    assert book.key(now) == KEY
    with pytest.raises(RemoteError, match="changed or removed"):
        book.key(before)
    book.remove("office")
    with pytest.raises(RemoteError, match="changed or removed"):
        book.key(now)


@pytest.mark.parametrize("text", ["office", "office=", "=http://box/v1", "o=http://u:p@box/v1"])
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, text: str):
    with pytest.raises(PersonMistake, match="PADDOCK_REMOTES takes NAME=URL"):
        RemoteBook(Settings(home=tmp_path, remotes=text))


@pytest.mark.parametrize("key", ["two words", "new\nline", "schlüssel", "k" * 5000])
def test_a_key_that_cannot_stand_in_a_header_is_refused(settings: Settings, key: str):
    with pytest.raises(PersonMistake, match="key") as refused:
        RemoteBook(settings).add("office", "http://box/v1", key)
    assert key not in str(refused.value)
    assert not (settings.home / FILE_NAME).exists()


def test_a_home_folder_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "home").write_text("a file in the place of the folder")
    with pytest.raises(RemoteError, match="nothing was changed"):
        RemoteBook(Settings(home=tmp_path / "home")).add("office", "http://box/v1")


def test_a_broken_file_is_said_and_never_overwritten(settings: Settings):
    settings.home.mkdir()
    path = settings.home / FILE_NAME
    path.write_text('{"remotes": ')
    book = RemoteBook(settings)
    assert book.list() == []
    with pytest.raises(RemoteError, match="cannot be read"):
        book.add("office", "http://box/v1")
    assert path.read_text() == '{"remotes": '
