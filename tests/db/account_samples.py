"""Sample accounts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from core.db import Account, AccountStore, Role
from core.db.database import Database

NOW = datetime(2026, 3, 1, 12, 30, 0, 123456, UTC)


def an_account(key: str = "ada", **changes: Any) -> Account:
    """An account with every field set."""
    values: dict[str, Any] = {
        "name": key.title(),
        "key": key,
        "look": key.replace("1", "l"),
        "password_hash": f"$argon2id$of-{key}",
        "device_key": "ab" * 32,
        "role": Role.MANAGER,
        "disabled": False,
        "created_at": NOW - timedelta(days=30),
        "password_changed_at": NOW - timedelta(days=3),
        "signed_in_at": NOW - timedelta(days=2),
    }
    return Account(**(values | changes))


def add_account(database: Database, *ids: str) -> None:
    """Insert accounts with these ids, so that they can own rows."""
    for each in ids:
        assert AccountStore(database).add(an_account(each, id=each))
