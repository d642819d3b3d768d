"""The store of accounts, sessions and invitations."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from core.db import (
    Account,
    AccountStore,
    Database,
    Invitation,
    Role,
    RunStore,
    Session,
    VoteStore,
)
from core.db.database import newest_revision
from core.db.tables import accounts, invitations, sessions
from core.errors import RecordsError
from core.settings import Settings
from tests.db.account_samples import NOW, an_account
from tests.db.former_database import former_database, table_names
from tests.db.run_samples import a_result, a_start
from tests.db.test_votes import a_vote

SEEN_AFTER = NOW - timedelta(days=7)


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


def begin(store: AccountStore, session: Session, account: Account) -> bool:
    return store.begin_session(session, account.password_hash, SEEN_AFTER)


# Accounts


def test_every_field_survives_the_round_trip(store: AccountStore, ada: Account):
    assert store.get(ada.id) == store.by_key("ada") == ada
    assert store.get("nobody") is None and store.by_key("Ada") is None
    assert isinstance(store.get(ada.id).role, Role)
    bare = an_account("bo", disabled=True, signed_in_at=None)
    assert store.add(bare) and store.get(bare.id) == bare
    session, invitation = a_session(ada), an_invitation(ada)
    assert begin(store, session, ada)
    assert store.session(session.token_hash) == (session, replace(ada, signed_in_at=NOW))
    store.invite(invitation)
    assert store.invitations(NOW) == [invitation]
    for value, table in ((ada, accounts), (session, sessions), (invitation, invitations)):
        assert [f.name for f in fields(value)] == [column.name for column in table.columns]


def test_secrets_are_not_in_repr(ada: Account):
    shown = repr((ada, a_session(ada), an_invitation(ada)))
    assert not any(secret in shown for secret in ("argon2id", "ab" * 8, "hash-of"))


@pytest.mark.parametrize(("key", "look"), [("ada", "other"), ("other", "ada"), ("ada", "ada")])
def test_key_and_look_are_unique(store: AccountStore, ada: Account, key: str, look: str):
    assert not store.add(an_account(key, look=look))
    assert store.taken(key, look) and not store.taken("other", "third")
    assert len(store.summaries(NOW, SEEN_AFTER)) == 1


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
    assert store.set_role(ada.id, Role.ADMINISTRATOR) and store.set_disabled(ada.id, True)
    assert store.get(ada.id) == replace(ada, role=Role.ADMINISTRATOR, disabled=True)
    assert store.set_disabled(ada.id, False) and not store.get(ada.id).disabled
    assert store.get(bo.id) == bo
    assert not store.set_role("nobody", Role.USER) and not store.set_disabled("nobody", True)
    with pytest.raises(RecordsError, match="king"):
        store.set_role(ada.id, "king")


def test_hash_is_replaced_only_if_unchanged(store: AccountStore, ada: Account):
    assert not store.replace_hash(ada.id, "another", "new")
    assert store.replace_hash(ada.id, ada.password_hash, "new")
    assert store.get(ada.id) == replace(ada, password_hash="new")


def test_new_password_ends_sessions_or_changes_nothing(store: AccountStore, ada: Account):
    assert begin(store, a_session(ada), ada)
    assert not store.set_password(ada.id, "new", "cd" * 32, NOW, old_hash="another")
    assert store.session("hash-of-t1") and store.get(ada.id).password_hash == ada.password_hash
    assert store.set_password(ada.id, "new", "cd" * 32, NOW, old_hash=ada.password_hash)
    assert store.session("hash-of-t1") is None
    assert store.get(ada.id) == replace(
        ada,
        password_hash="new",
        device_key="cd" * 32,
        password_changed_at=NOW,
        signed_in_at=NOW,
    )
    assert store.set_password(ada.id, "newer", "ef" * 32, NOW), "by whoever holds the machine"


def test_deleting_an_account_deletes_all_its_rows_or_nothing(store: AccountStore, ada: Account):
    bo = an_account("bo")
    store.add(bo)
    runs, votes = RunStore(store.database), VoteStore(store.database)
    for owner in (ada, ada, bo):
        runs.add(a_start(owner=owner.id), a_result())
        votes.cast(a_vote(owner=owner.id))
        begin(store, a_session(owner, token=str(runs.count())), owner)
        store.invite(an_invitation(owner, code=str(runs.count())))
    assert store.delete(ada.id, old_hash="another") is None and store.delete("nobody") is None
    assert (runs.count(), votes.count(), len(store.invitations(NOW))) == (3, 3, 3)
    assert store.session("hash-of-1")
    gone = store.delete(ada.id, old_hash=ada.password_hash)
    assert (gone.runs, gone.votes) == (2, 2)
    assert (runs.count(owner=bo.id), runs.count(), votes.count()) == (1, 1, 1)
    assert [one.made_by for one in store.invitations(NOW)] == [bo.id]
    assert store.session("hash-of-1") is None and store.session("hash-of-3")


# Sessions


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


def test_session_starts_only_with_the_current_password(store: AccountStore, ada: Account):
    assert not store.begin_session(a_session(ada), "another", SEEN_AFTER)
    store.set_disabled(ada.id, True)
    assert not begin(store, a_session(ada), ada)
    store.set_disabled(ada.id, False)
    assert begin(store, a_session(ada), ada)
    store.delete(ada.id)
    assert not begin(store, a_session(ada, token="t2"), ada)
    assert store.session("hash-of-t1") is None and store.session("hash-of-t2") is None


def test_expired_sessions_are_not_listed_and_finally_deleted(store: AccountStore, ada: Account):
    begin(store, a_session(ada, "old", expires_at=NOW + timedelta(hours=1)), ada)
    begin(store, a_session(ada, "idle", seen_at=NOW - timedelta(days=6)), ada)
    begin(store, a_session(ada, "fine"), ada)
    later, seen_after = NOW + timedelta(hours=1), NOW - timedelta(days=6)
    assert [one.token_hash for one in store.sessions(ada.id, later, seen_after)] == ["hash-of-fine"]
    assert [row.sessions for row in store.summaries(later, seen_after)] == [1]
    assert [row.sessions for row in store.summaries(NOW, SEEN_AFTER)] == [3]
    assert store.session("hash-of-old"), "whoever asks sees when it expired"
    newest = a_session(ada, "new", created_at=later, seen_at=later)
    assert store.begin_session(newest, ada.password_hash, seen_after)
    assert [store.session(f"hash-of-{one}") is None for one in ("old", "idle", "fine", "new")] == [
        True,
        True,
        False,
        False,
    ]


def test_sessions_are_touched_and_ended(store: AccountStore, ada: Account):
    bo, later = an_account("bo"), NOW + timedelta(hours=1)
    store.add(bo)
    mine, theirs = a_session(ada), a_session(bo, "t2")
    begin(store, mine, ada)
    begin(store, theirs, bo)
    assert store.touch_session(mine.id, later) and not store.touch_session("nobody's", later)
    assert store.session("hash-of-t1")[0] == replace(mine, seen_at=later)
    assert store.session("hash-of-t2")[0] == theirs
    assert not store.end_session_by_id(ada.id, theirs.id)
    assert store.end_session_by_id(bo.id, theirs.id)
    assert store.end_session("hash-of-t1") and not store.end_session("hash-of-t1")
    begin(store, mine, ada)
    assert store.forget_devices(ada.id, "cd" * 32) and not store.forget_devices("nobody", "cd")
    assert store.session("hash-of-t1") is None and store.get(ada.id).device_key == "cd" * 32


def test_a_session_is_found_by_an_index(store: AccountStore):
    query = "SELECT id FROM sessions WHERE token_hash = 'x'"
    with store.database.reading() as connection:
        plan = " ".join(row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
    assert "ix_sessions_token_hash" in plan


# Invitations


def test_account_and_invitation_use_are_one_transaction(store: AccountStore, ada: Account):
    store.invite(an_invitation(ada))
    assert store.add_invited(an_account("ada"), "hash-of-c1", NOW) is False
    assert store.add_invited(an_account("bo"), "hash-of-c2", NOW) is None
    assert store.add_invited(an_account("bo"), "hash-of-c1", NOW + timedelta(days=1)) is None
    assert store.invitations(NOW)[0].uses_left == 2
    assert store.add_invited(an_account("bo"), "hash-of-c1", NOW) is True
    assert store.invitation_is_valid("hash-of-c1", NOW)
    assert store.add_invited(an_account("cy"), "hash-of-c1", NOW) is True
    assert not store.invitation_is_valid("hash-of-c1", NOW) and store.invitations(NOW) == []
    assert store.add_invited(an_account("di"), "hash-of-c1", NOW) is None
    assert [row.account.key for row in store.summaries(NOW, SEEN_AFTER)] == ["ada", "bo", "cy"]


def test_last_invitation_use_is_taken_once(store: AccountStore, ada: Account):
    store.invite(an_invitation(ada, uses_left=1))

    def add(number: int) -> bool | None:
        return store.add_invited(an_account(f"p{number}x"), "hash-of-c1", NOW)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(add, range(8)))
    assert sorted(map(str, outcomes)) == ["None"] * 7 + ["True"]


def test_invitations_are_withdrawn(store: AccountStore, ada: Account):
    invitation = an_invitation(ada)
    store.invite(invitation)
    assert store.withdraw_invitation(invitation.id)
    assert not store.withdraw_invitation(invitation.id) and store.invitations(NOW) == []


# The database


def test_older_database_gets_the_tables_and_keeps_its_rows(tmp_path: Path):
    new, old = tmp_path / "new", tmp_path / "old"
    database = Database.open(Settings(home=new))
    ada = an_account()
    AccountStore(database).add(ada)
    run_id = RunStore(database).add(a_start(owner=ada.id), a_result())
    former_database(new, old, "0003")
    assert not table_names(old) & {"accounts", "sessions", "invitations"}
    again = Database.open(Settings(home=old))
    assert again.revision() == newest_revision() >= "0004"
    assert table_names(old) >= {"accounts", "sessions", "invitations"}
    assert RunStore(again).get(run_id).start.owner == ada.id
    assert AccountStore(again).summaries(NOW, SEEN_AFTER) == []
    assert AccountStore(again).add(ada)


def test_locked_database_is_reported(store: AccountStore, ada: Account):
    home = Path(store.database.place).parent
    store.close()
    store = AccountStore.open(Settings(home=home), patience_s=0.02)
    calls = [
        lambda: store.add(an_account("bo")),
        lambda: store.add_invited(an_account("bo"), "x", NOW),
        lambda: store.set_role(ada.id, Role.USER),
        lambda: store.set_disabled(ada.id, True),
        lambda: store.set_password(ada.id, "new", "cd", NOW),
        lambda: store.replace_hash(ada.id, ada.password_hash, "new"),
        lambda: store.forget_devices(ada.id, "cd"),
        lambda: store.delete(ada.id),
        lambda: begin(store, a_session(ada), ada),
        lambda: store.touch_session("x", NOW),
        lambda: store.end_session("x"),
        lambda: store.end_session_by_id(ada.id, "x"),
        lambda: store.invite(an_invitation(ada)),
        lambda: store.withdraw_invitation("x"),
    ]
    with closing(sqlite3.connect(store.database.place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for call in calls:
            with pytest.raises(RecordsError, match="is locked by another program"):
                call()
        assert store.by_key("ada") == ada, "readers do not wait for the writer"
        other.execute("ROLLBACK")
    assert store.get(ada.id) == ada


def test_full_disk_is_reported_and_rolled_back(store: AccountStore, ada: Account):
    store.invite(an_invitation(ada))
    with store.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    long = an_account("bo", password_hash="x" * 100_000)
    with pytest.raises(RecordsError, match=r"is full.* Free some disk space"):
        store.add_invited(long, "hash-of-c1", NOW)
    assert store.invitations(NOW)[0].uses_left == 2
    with store.database.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert store.add_invited(long, "hash-of-c1", NOW)


def test_damaged_database_is_reported(store: AccountStore):
    with store.database.writing() as connection:
        connection.execute(text("DROP TABLE sessions"))
    with pytest.raises(RecordsError, match="no such table"):
        store.session("x")


def test_the_tables_can_be_created_on_postgresql():
    for table in (accounts, sessions, invitations):
        statement = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert "TIMESTAMP WITHOUT TIME ZONE NOT NULL" in statement
