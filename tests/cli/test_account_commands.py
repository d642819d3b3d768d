"""``admin`` and ``accounts`` on the command line."""

from __future__ import annotations

import getpass
import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.__main__ import main
from core.auth import Accounts, Client
from core.auth import service as module
from core.auth.hashing import Hasher
from core.db import AccountStore, Role
from core.db import database as records
from core.errors import SignInError
from core.settings import load_settings
from tests.auth.samples import CHEAP, GOOD, HERE, OTHER

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _cheap_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Hasher", lambda **_: Hasher(CHEAP))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with this standard input; return exit code, stdout, stderr."""

    def call(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accounts]:
    """The accounts of the home folder, as a server sees them."""
    monkeypatch.setenv("PADDOCK_REGISTRATION", "open")
    settings = load_settings()
    store = AccountStore.open(settings)
    yield Accounts(store, settings, hasher=Hasher(CHEAP))
    store.close()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", Terminal())
    code = main(arguments)
    return code, *capsys.readouterr()


def test_a_new_administrator_with_a_password_from_standard_input(run: Run, accounts: Accounts):
    code, out, err = run("admin", "Admin", "--password-stdin", stdin=f"{GOOD}\r\nmore\n")
    assert (code, out, err) == (0, "Admin is an administrator, with a new account.\n", "")
    assert accounts.sign_in("admin", GOOD, HERE).account.role is Role.ADMINISTRATOR


def test_password_is_prompted_twice_without_echo(monkeypatch, capsys, accounts: Accounts):
    asked: list[str] = []
    monkeypatch.setattr(getpass, "getpass", lambda prompt: asked.append(prompt) or GOOD)
    code, out, err = at_a_terminal(monkeypatch, capsys, "admin", "boss")
    assert (code, err) == (0, "") and len(asked) == 2
    assert GOOD not in out and accounts.sign_in("boss", GOOD, HERE)


def test_different_passwords_create_no_account(monkeypatch, capsys, accounts: Accounts):
    answers = [GOOD, OTHER]
    monkeypatch.setattr(getpass, "getpass", lambda _: answers.pop())
    code, out, err = at_a_terminal(monkeypatch, capsys, "admin", "boss")
    assert (code, out) == (2, "") and err.startswith("The passwords differ. Nothing was")
    assert accounts.administration.everybody() == []


def test_missing_password_creates_no_account(run: Run, monkeypatch, capsys, accounts: Accounts):
    code, _, err = run("admin", "boss", "--password-stdin")
    assert code == 2 and err == "Standard input has no password. Pipe in one line.\n"
    code, _, err = run("admin", "boss")
    assert code == 2 and "--password-stdin" in err

    def end_of_input(_: str) -> str:
        raise EOFError

    monkeypatch.setattr(getpass, "getpass", end_of_input)
    code, _, err = at_a_terminal(monkeypatch, capsys, "admin", "boss")
    assert code == 2 and err == "No password was entered. Nothing was changed.\n"
    assert accounts.administration.everybody() == []


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("x", GOOD, "2 to 32 characters"),
        ("<b>", GOOD, "letters and digits"),
        ("boss", "short", "8 to 256 characters"),
        ("boss", "password123", "too common"),
        ("kettle-99", "Kettle-99", "same as the user name"),
        ("boss", "\ud800abcdefgh", "not allowed"),
    ],
)
def test_invalid_name_or_password_is_one_line(
    run: Run, accounts, name: str, password: str, said: str
):
    code, out, err = run("admin", name, "--password-stdin", stdin=password + "\n")
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert accounts.administration.everybody() == []


def test_existing_account_becomes_administrator_and_keeps_its_password(
    run: Run, accounts: Accounts
):
    ada = accounts.register("Ada", GOOD, HERE)
    code, out, err = run("admin", "ADA")
    assert (code, err) == (0, "")
    assert out == f"Ada (account since {ada.account.created_at.date()}) is an administrator.\n"
    assert accounts.sessions.visit(ada.token).account.role is Role.ADMINISTRATOR


def test_forgotten_password_is_replaced(run: Run, accounts: Accounts):
    ada = accounts.register("Ada", GOOD, HERE)
    code, out, _ = run("admin", "Ada", "--password-stdin", stdin=OTHER)
    assert code == 0 and out.endswith("is an administrator and has the new password.\n")
    assert accounts.sessions.visit(ada.token) is None and accounts.sign_in("Ada", OTHER, HERE)
    with pytest.raises(SignInError):
        accounts.sign_in("Ada", GOOD, HERE)


def test_accounts_are_listed(run: Run, accounts: Accounts):
    code, out, _ = run("accounts")
    assert code == 0 and out.startswith("There are no accounts. `python -m core admin NAME`")
    assert run("accounts", "--json") == (0, "[]\n", "")
    run("admin", "boss", "--password-stdin", stdin=GOOD)
    ada = accounts.register("Ådä", GOOD, Client())
    accounts.sign_in("Ådä", GOOD, Client())
    code, out, err = run("accounts")
    today = ada.account.created_at.date().isoformat()
    assert (code, err) == (0, "") and len(out.splitlines()) == 2
    first, second = (line.split() for line in out.splitlines())
    assert first == ["boss", "administrator", "signed", "in:", "0", "since", today, "last", "never"]
    assert second == ["Ådä", "user", "signed", "in:", "2", "since", today, "last", today]
    listed = json.loads(run("accounts", "--json")[1])
    assert [row["name"] for row in listed] == ["boss", "Ådä"]
    assert listed[1] | {"signed_in_at": None} == {
        "id": ada.account.id,
        "name": "Ådä",
        "role": "user",
        "disabled": False,
        "created_at": ada.account.created_at.isoformat(),
        "password_changed_at": ada.account.created_at.isoformat(),
        "signed_in_at": None,
        "sessions": 2,
    }


def test_a_disabled_account_is_shown_as_such(run: Run, accounts: Accounts):
    boss = accounts.make_administrator("boss", GOOD)
    ada = accounts.register("Ada", GOOD, HERE)
    accounts.administration.set_disabled(boss.id, ada.account.id, True)
    assert "disabled" in run("accounts")[1].splitlines()[0]
    assert run("admin", "Ada")[0] == 0
    assert "disabled" not in run("accounts")[1]


def test_a_locked_database_is_one_sentence(run: Run, accounts: Accounts, monkeypatch):
    accounts.register("Ada", GOOD, HERE)
    file = Path(os.environ["PADDOCK_HOME"]) / "paddock.db"
    monkeypatch.setattr(AccountStore, "open", _impatient)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        code, out, err = run("admin", "Ada")
        other.execute("ROLLBACK")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "is locked by another program. Close it and try again." in err


def _impatient(settings) -> AccountStore:
    return AccountStore(records.Database.open(settings, patience_s=0.1))
