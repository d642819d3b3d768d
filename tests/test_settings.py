"""Tests of settings from the environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.errors import UserError
from core.settings import CHECKOUT, AuthMode, Registration, Settings, load_settings


def test_defaults(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PADDOCK_HOME")
    settings = load_settings()
    assert settings.home == CHECKOUT / ".paddock"
    assert (CHECKOUT / "requirements.txt").is_file()
    assert settings.models_dir == settings.home / "models"
    assert settings.downloads_dir == settings.home / "downloads"
    assert settings.resolved_database_url == f"sqlite:///{settings.home.as_posix()}/paddock.db"


def test_home_and_database_from_the_environment(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "there"))
    monkeypatch.setenv("PADDOCK_DATABASE_URL", "sqlite:///elsewhere.db")
    settings = load_settings()
    assert settings.home == tmp_path / "there"
    assert settings.resolved_database_url == "sqlite:///elsewhere.db"


def test_home_is_absolute_and_a_tilde_is_expanded(monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PADDOCK_HOME", "here")
    assert load_settings().home == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("PADDOCK_HOME", "~/models")
    assert load_settings().home == tmp_path / "models"


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch):
    for name in ("HOME", "DATABASE_URL", "MAX_QUEUE"):
        monkeypatch.setenv(f"PADDOCK_{name}", "")
    settings = load_settings()
    assert settings.home == CHECKOUT / ".paddock"
    assert settings.database_url is None and settings.max_queue == 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PADDOCK_MAX_QUEUE", "abc"),
        ("PADDOCK_MAX_QUEUE", "0"),
        ("PADDOCK_MAX_LOADED_MODELS", "-1"),
        ("PADDOCK_MEMORY_RESERVE_MIB", "1.5"),
        ("PADDOCK_GENERATION_TIMEOUT_S", "0"),
        ("PADDOCK_AUTH", "never"),
        ("PADDOCK_REGISTRATION", "sometimes"),
        ("PADDOCK_SESSION_IDLE_H", "inf"),
        ("PADDOCK_SESSION_MAX_H", "0"),
        ("PADDOCK_FAILURES_PER_ACCOUNT", "101"),
        ("PADDOCK_FAILURE_WINDOW_S", "nan"),
        ("PADDOCK_MAX_HASHINGS", "0"),
    ],
)
def test_invalid_value_is_a_one_line_error(name: str, value: str, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as failure:
        load_settings()
    sentence = str(failure.value)
    assert sentence.startswith(f"The environment variable {name} is {value!r}")
    assert (
        "\n" not in sentence
        and "http" not in sentence
        and sentence.endswith(". Correct or unset it.")
    )


def test_settings_compare_by_value():
    assert Settings(home=Path("a")) == Settings(home=Path("a"))


def test_modes_are_case_insensitive(monkeypatch: pytest.MonkeyPatch):
    assert (load_settings().auth, load_settings().registration) == ("auto", "invitation")
    monkeypatch.setenv("PADDOCK_AUTH", " Required")
    monkeypatch.setenv("PADDOCK_REGISTRATION", "OPEN")
    settings = load_settings()
    assert settings.auth is AuthMode.REQUIRED
    assert settings.registration is Registration.OPEN


def test_docs_list_every_setting_with_its_default():
    document = (CHECKOUT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(PADDOCK_\w+)` \| ([^|]+) \|", document, re.MULTILINE))
    assert set(rows) == {f"PADDOCK_{name}".upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        shown = rows[f"PADDOCK_{name}".upper()].strip("` ")
        if isinstance(field.default, int | float | str):
            assert shown == (
                field.default if isinstance(field.default, str) else f"{field.default:g}"
            )
