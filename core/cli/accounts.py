"""``admin`` and ``accounts``: manage accounts from the server's terminal."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from core.errors import AccountInputError, BadRequestError
from core.settings import Settings

if TYPE_CHECKING:
    from core.auth import Accounts
    from core.db import AccountSummary


def admin(options: argparse.Namespace, settings: Settings) -> int:
    """Create an administrator account, or make an existing account one."""
    with _accounts(settings) as accounts:
        existing = accounts.find(options.name)
        password = _password(existing is not None, from_stdin=options.password_stdin)
        account = accounts.make_administrator(options.name, password)
    if existing is None:
        print(f"{account.name} is an administrator, with a new account.")
        return 0
    since = f"account since {_day(account.created_at)}"
    also = " and has the new password" if password else ""
    print(f"{account.name} ({since}) is an administrator{also}.")
    return 0


def accounts(options: argparse.Namespace, settings: Settings) -> int:
    """Print all accounts, ordered by name."""
    with _accounts(settings) as service:
        rows = service.administration.everybody()
    if options.json:
        print(json.dumps([_as_json(row) for row in rows], indent=2, ensure_ascii=False))
        return 0
    if not rows:
        print("There are no accounts. `python -m core admin NAME` creates an administrator.")
    for row in rows:
        account = row.account
        state = "disabled" if account.disabled else f"signed in: {row.sessions}"
        last = _day(account.signed_in_at) if account.signed_in_at else "never"
        print(
            f"{account.name:32} {account.role:14} {state:14} since {_day(account.created_at)}  "
            f"last {last}"
        )
    return 0


@contextmanager
def _accounts(settings: Settings) -> Iterator[Accounts]:
    from core.auth import Accounts
    from core.db import AccountStore

    store = AccountStore.open(settings)
    try:
        yield Accounts(store, settings)
    finally:
        store.close()


def _password(existing: bool, *, from_stdin: bool) -> str | None:
    """Return the password to set; None if an existing account keeps its own.

    Raises:
        BadRequestError: no password was given.
        AccountInputError: the repeated password differs.
    """
    if from_stdin:
        line = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
        if not line:
            raise BadRequestError("Standard input has no password. Pipe in one line.")
        return line
    if existing:
        return None
    if not sys.stdin.isatty():
        raise BadRequestError(
            "Standard input is not a terminal. Pipe in the password with --password-stdin."
        )
    try:
        first = getpass.getpass("Password (not shown): ")
        second = getpass.getpass("Repeat the password: ")
    except EOFError:
        raise BadRequestError("No password was entered. Nothing was changed.") from None
    if first != second:
        raise AccountInputError("The passwords differ. Nothing was changed. Try again.")
    return first


def _as_json(row: AccountSummary) -> dict[str, Any]:
    account = row.account
    return {
        "id": account.id,
        "name": account.name,
        "role": account.role.value,
        "disabled": account.disabled,
        "created_at": account.created_at.isoformat(),
        "password_changed_at": account.password_changed_at.isoformat(),
        "signed_in_at": account.signed_in_at.isoformat() if account.signed_in_at else None,
        "sessions": row.sessions,
    }


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
