"""The store of accounts, sessions and invitations."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from core.db import (
    Account,
    AccountStore,
    Invitation,
    Role,
    RunStore,
    Session,
    VoteStore,
)
from core.db.rows import to_row
from core.db.tables import accounts, invitations, sessions
from core.errors import RecordsError
from core.settings import Settings
from tests.db.account_samples import NOW, an_account
from tests.db.run_samples import a_result, a_start
from tests.db.test_votes import a_vote


def a_session(account: Account, token: str = "t1", **changes: Any) -> Session:
    """Return a session of this account."""
    values: dict[str, Any] = {
        "token_hash": f"hash-of-{token}",
        "account": account.id,
        "created_at": NOW,
        "seen_at": NOW,
        "expires_at": NOW + timedelta(days=30),
        "agent": "Browser ✓",
    }
    return Session(**(values | changes))


def an_invitation(account: Account, code: str = "c1", **changes: Any) -> Invitation:
    """Return an invitation created by this account."""
    values: dict[str, Any] = {
        "code_hash": f"hash-of-{code}",
        "made_by": account.id,
        "uses": 3,
        "uses_left": 2,
        "created_at": NOW,
        "expires_at": NOW + timedelta(days=1),
    }
    return Invitation(**(values | changes))


@pytest.fixture
def store(tmp_path: Path):
    store = AccountStore.open(Settings(home=tmp_path))
    yield store
    store.close()


@pytest.fixture
def ada(store: AccountStore) -> Account:
    account = an_account()
    assert store.add(account)
    return account


def insert(store: AccountStore, table: Table, value: Session | Invitation) -> None:
    store.database.change(table.insert().values(to_row(value)))


def count(store: AccountStore, table: Table) -> int:
    return store.database.value(select(func.count()).select_from(table))


# Accounts


def test_every_field_survives_the_round_trip(store: AccountStore, ada: Account):
    assert store.get(ada.id) == store.find(key="ada") == ada
    assert store.get("nobody") is None and store.find(key="Ada") is None
    assert isinstance(store.get(ada.id).role, Role)
    bare = an_account("bo", disabled=True, signed_in_at=None)
    assert store.add(bare) and store.get(bare.id) == bare
    session = a_session(ada)
    insert(store, sessions, session)
    own = sessions.c.account == ada.id
    assert store.with_account(Session, sessions, own) == (session, ada)
    store.change(ada.id, disabled=True)
    assert store.with_account(Session, sessions, own) is None


def test_secrets_are_not_in_repr(ada: Account):
    shown = repr((ada, a_session(ada), an_invitation(ada)))
    assert not any(secret in shown for secret in ("argon2id", "ab" * 8, "hash-of"))


@pytest.mark.parametrize(("key", "look"), [("ada", "other"), ("other", "ada"), ("ada", "ada")])
def test_key_and_look_are_unique(store: AccountStore, ada: Account, key: str, look: str):
    assert not store.add(an_account(key, look=look))
    assert store.taken(key, look) and not store.taken("other", "third")
    assert count(store, accounts) == 1


def test_name_inserted_by_another_server_is_taken(store: AccountStore, monkeypatch):
    from core.db import accounts as module

    looked, answers = module._taken, []
    monkeypatch.setattr(
        module, "_taken", lambda *arguments: answers.pop() if answers else looked(*arguments)
    )
    assert store.add(an_account())
    answers.append(False)
    assert store.add(an_account()) is False
    answers.append(False)
    with pytest.raises(RecordsError, match="NOT NULL"):
        store.add(an_account("bo", name=None))


def test_changes_affect_one_account_only(store: AccountStore, ada: Account):
    bo = an_account("bo")
    store.add(bo)
    insert(store, sessions, a_session(ada))
    insert(store, sessions, a_session(bo, "t2"))
    assert store.change(ada.id, role=Role.ADMINISTRATOR, disabled=True)
    assert store.get(ada.id) == replace(ada, role=Role.ADMINISTRATOR, disabled=True)
    assert store.get(bo.id) == bo and count(store, sessions) == 2
    assert store.change(ada.id, end_sessions=True, device_key="cd" * 32)
    assert count(store, sessions) == 1
    assert not store.change("nobody", end_sessions=True, role=Role.USER)
    with pytest.raises(RecordsError, match="king"):
        store.change(ada.id, role="king")


def test_change_with_a_checked_password_is_made_only_if_it_is_unchanged(
    store: AccountStore, ada: Account
):
    insert(store, sessions, a_session(ada))
    assert not store.change(ada.id, "another", end_sessions=True, password_hash="new")
    assert count(store, sessions) == 1 and store.get(ada.id) == ada
    assert store.change(ada.id, ada.password_hash, end_sessions=True, password_hash="new")
    assert count(store, sessions) == 0
    assert store.get(ada.id) == replace(ada, password_hash="new")


def test_deleting_an_account_deletes_all_its_rows_or_nothing(store: AccountStore, ada: Account):
    bo = an_account("bo")
    store.add(bo)
    runs, votes = RunStore(store.database), VoteStore(store.database)
    for owner in (ada, ada, bo):
        runs.add(a_start(owner=owner.id), a_result())
        votes.cast(a_vote(owner=owner.id))
        insert(store, sessions, a_session(owner, token=str(runs.count())))
        insert(store, invitations, an_invitation(owner, code=str(runs.count())))
    assert not store.delete(ada.id, old_hash="another") and not store.delete("nobody")
    assert (runs.count(), votes.count()) == (3, 3)
    assert count(store, invitations) == count(store, sessions) == 3
    assert store.delete(ada.id, old_hash=ada.password_hash)
    assert (runs.count(owner=bo.id), runs.count(), votes.count()) == (1, 1, 1)
    assert store.database.value(select(invitations.c.made_by)) == bo.id
    assert count(store, invitations) == count(store, sessions) == 1


def test_run_of_a_deleted_account_is_not_stored(store: AccountStore, ada: Account):
    runs, votes = RunStore(store.database), VoteStore(store.database)
    under_way = runs.start(a_start(owner=ada.id))
    assert store.delete(ada.id)
    assert not runs.finish(under_way, a_result())
    with pytest.raises(RecordsError, match="was deleted"):
        runs.start(a_start(owner=ada.id))  # it had been queued
    with pytest.raises(RecordsError, match="was deleted"):
        runs.add(a_start(owner=ada.id), a_result())
    with pytest.raises(RecordsError, match="was deleted"):
        votes.cast(a_vote(owner=ada.id))
    assert runs.count() == votes.count() == 0


def test_a_session_is_found_by_an_index(store: AccountStore):
    query = "SELECT id FROM sessions WHERE token_hash = 'x'"
    with store.database.reading() as connection:
        plan = " ".join(row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
    assert "ix_sessions_token_hash" in plan


# Invitations


def test_account_and_invitation_use_are_one_transaction(store: AccountStore, ada: Account):
    def uses_left() -> int:
        return store.database.value(select(invitations.c.uses_left))

    expired = NOW + timedelta(days=1)
    insert(store, invitations, an_invitation(ada))
    assert store.add(an_account("ada", created_at=NOW), "hash-of-c1") is False
    assert store.add(an_account("bo", created_at=NOW), "hash-of-c2") is None
    assert store.add(an_account("bo", created_at=expired), "hash-of-c1") is None
    assert uses_left() == 2
    assert store.add(an_account("bo", created_at=NOW), "hash-of-c1") is True
    assert store.invitation_is_valid("hash-of-c1", NOW)
    assert not store.invitation_is_valid("hash-of-c1", expired)
    assert store.add(an_account("cy", created_at=NOW), "hash-of-c1") is True
    assert not store.invitation_is_valid("hash-of-c1", NOW) and uses_left() == 0
    assert store.add(an_account("di", created_at=NOW), "hash-of-c1") is None
    keys = store.database.rows(select(accounts.c.key).order_by(accounts.c.key))
    assert [row["key"] for row in keys] == ["ada", "bo", "cy"]


def test_last_invitation_use_is_taken_once(store: AccountStore, ada: Account):
    insert(store, invitations, an_invitation(ada, uses_left=1))

    def add(number: int) -> bool | None:
        return store.add(an_account(f"p{number}x", created_at=NOW), "hash-of-c1")

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(add, range(8)))
    assert sorted(map(str, outcomes)) == ["None"] * 7 + ["True"]


# The database


def test_locked_database_is_reported(store: AccountStore, ada: Account):
    home = Path(store.database.place).parent
    store.close()
    store = AccountStore.open(Settings(home=home), patience_s=0.02)
    calls = [
        lambda: store.add(an_account("bo")),
        lambda: store.add(an_account("bo"), "x"),
        lambda: store.change(ada.id, role=Role.USER),
        lambda: store.change(ada.id, end_sessions=True, device_key="cd"),
        lambda: store.delete(ada.id),
    ]
    with closing(sqlite3.connect(store.database.place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for call in calls:
            with pytest.raises(RecordsError, match="is locked by another program"):
                call()
        assert store.find(key="ada") == ada, "readers do not wait for the writer"
        other.execute("ROLLBACK")
    assert store.get(ada.id) == ada


def test_full_disk_is_reported_and_rolled_back(store: AccountStore, ada: Account):
    insert(store, invitations, an_invitation(ada))
    with store.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    long = an_account("bo", password_hash="x" * 100_000, created_at=NOW)
    with pytest.raises(RecordsError, match=r"is full.* Free some disk space"):
        store.add(long, "hash-of-c1")
    assert store.database.value(select(invitations.c.uses_left)) == 2
    with store.database.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert store.add(long, "hash-of-c1")


def test_damaged_database_is_reported(store: AccountStore):
    with store.database.writing() as connection:
        connection.execute(text("DROP TABLE sessions"))
    with pytest.raises(RecordsError, match="no such table"):
        store.with_account(Session, sessions)


def test_the_tables_can_be_created_on_postgresql():
    for table in (accounts, sessions, invitations):
        statement = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert "TIMESTAMP WITHOUT TIME ZONE NOT NULL" in statement
