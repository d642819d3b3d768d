"""Sessions: tokens, expiry, revocation, listing."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings

from core.auth import Client
from core.auth.tokens import (
    code_hash,
    device_nonce,
    new_code,
    new_device,
    new_device_key,
    new_token,
    token_hash,
)
from core.db import AccountStore
from core.errors import AccessDeniedError, UnknownAccountError
from tests.auth.samples import GOOD, HERE, HOSTILE, OTHER, World, hostile_texts


def raw(world: World) -> closing[sqlite3.Connection]:
    """A direct connection to the database file."""
    return closing(sqlite3.connect(world.settings.home / "paddock.db", isolation_level=None))


def test_token_signs_in_and_only_its_hash_is_stored(world: World):
    signed_in = world.accounts.register("Ada", GOOD, HERE)
    visit = world.visit(signed_in.token)
    assert (visit.account, visit.session) == (
        world.store.get(signed_in.account.id),
        signed_in.session,
    )
    assert len(signed_in.token) == 43
    world.store.close()
    for file in world.settings.home.glob("paddock.db*"):
        content = file.read_bytes()
        assert signed_in.token.encode() not in content and GOOD.encode() not in content
        assert signed_in.device.encode() not in content
    hashed = hashlib.sha256(signed_in.token.encode()).hexdigest()
    with raw(world) as connection:
        assert connection.execute("SELECT token_hash FROM sessions").fetchall() == [(hashed,)]
    assert world.visit(hashed) is None, "the stored hash does not sign in"
    assert world.visit(signed_in.session.id) is None
    for secret in (signed_in.token, signed_in.device, signed_in.account.password_hash, hashed):
        assert secret not in repr(signed_in)


def test_session_begins_only_with_the_password_that_was_checked(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE).account
    sessions = world.accounts.sessions
    assert sessions.begin(replace(ada, password_hash="another"), "") is None
    assert sessions.begin(ada, "")
    world.store.change(ada.id, disabled=True)
    assert sessions.begin(ada, "") is None


def test_session_survives_a_restart(world: World):
    signed_in = world.accounts.register("Ada", GOOD, HERE)
    world.store.close()
    world.store = AccountStore.open(world.settings)
    assert world.started().sessions.visit(signed_in.token).account.name == "Ada"


def test_idle_session_ends(world: World):
    idle = timedelta(hours=world.settings.session_idle_h)
    token = world.accounts.register("Ada", GOOD, HERE).token
    for _ in range(3):
        world.clock.now += idle - timedelta(seconds=1)
        assert world.visit(token), "each visit restarts the idle time"
    world.clock.now += idle
    assert world.visit(token) is None


def test_session_ends_at_its_maximum_age(world: World):
    token = world.accounts.register("Ada", GOOD, HERE).token
    for _ in range(int(world.settings.session_max_h) - 1):
        world.clock.forward(hours=1)
        assert world.visit(token)
    world.clock.forward(minutes=59, seconds=59)
    assert world.visit(token)
    world.clock.forward(seconds=1)
    assert world.visit(token) is None


def test_expiry_follows_the_settings(tmp_path):
    world = World(tmp_path, session_idle_h=0.01, session_max_h=0.05)
    token = world.accounts.register("Ada", GOOD, HERE).token
    for _ in range(9):
        world.clock.forward(seconds=18)
        assert world.visit(token)
    world.clock.forward(seconds=18)
    assert world.visit(token) is None
    token = world.accounts.sign_in("Ada", GOOD, HERE).token
    world.clock.forward(seconds=36)
    assert world.visit(token) is None


def test_last_use_is_recorded_once_a_minute(world: World, monkeypatch: pytest.MonkeyPatch):
    token = world.accounts.register("Ada", GOOD, HERE).token
    notes, change = [], world.store.database.change
    monkeypatch.setattr(world.store.database, "change", lambda it: notes.append(it) or change(it))
    for _ in range(120):
        world.clock.forward(seconds=1)
        assert world.visit(token)
    assert len(notes) == 2


def test_new_session_deletes_expired_ones(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    world.accounts.register("Bo", GOOD, HERE)
    world.clock.forward(hours=world.settings.session_idle_h)
    world.accounts.sign_in("Ada", GOOD, HERE)
    with raw(world) as connection:
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,)


def test_sign_out_ends_this_session_only(world: World):
    here = world.accounts.register("Ada", GOOD, HERE)
    there = world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.accounts.sessions.end(here.token) and not world.accounts.sessions.end(here.token)
    assert world.visit(here.token) is None
    assert world.visit(there.token)


def test_password_change_ends_all_sessions_and_begins_one(world: World):
    here = world.accounts.register("Ada", GOOD, HERE)
    there = world.accounts.sign_in("Ada", GOOD, HERE)
    bo = world.accounts.register("Bo", GOOD, HERE)
    now = world.accounts.change_password(here.token, GOOD, OTHER, HERE)
    assert world.visit(here.token) is None and world.visit(there.token) is None
    assert world.visit(now.token) and world.visit(bo.token)
    assert len(world.accounts.sessions.listing(now.token)) == 1


def test_sign_out_everywhere(world: World):
    tokens = [world.accounts.register("Ada", GOOD, HERE).token]
    tokens += [world.accounts.sign_in("Ada", GOOD, HERE).token for _ in range(3)]
    bo = world.accounts.register("Bo", GOOD, HERE).token
    world.accounts.sign_out_everywhere(tokens[2])
    assert [world.visit(token) for token in tokens] == [None] * 4
    assert world.visit(bo)
    with pytest.raises(AccessDeniedError, match=r"signed out\. Sign in"):
        world.accounts.sign_out_everywhere(tokens[2])


def test_sessions_are_listed_and_ended_individually(world: World):
    first = world.accounts.register("Ada", GOOD, Client(agent="  Old\n Browser "))
    world.clock.forward(hours=1)
    second = world.accounts.sign_in("Ada", GOOD, Client(agent="x" * 100_000))
    bo = world.accounts.register("Bo", GOOD, HERE)
    listed = world.accounts.sessions.listing(second.token)
    assert [one.id for one in listed] == [second.session.id, first.session.id]
    assert [one.agent for one in listed] == ["x" * 200, "Old Browser"]
    for not_mine in (bo.session.id, "", "' OR 1=1 --", first.token):
        with pytest.raises(UnknownAccountError, match="Reload the list"):
            world.accounts.sessions.end_other(second.token, not_mine)
    world.accounts.sessions.end_other(second.token, first.session.id)
    assert world.visit(first.token) is None and world.visit(bo.token)
    world.clock.forward(hours=world.settings.session_idle_h - 1)
    assert len(world.accounts.sessions.listing(second.token)) == 1


@pytest.mark.parametrize("text", [*HOSTILE, None, "A" * 43 + "\n", "é" * 43])
def test_other_texts_are_not_tokens(world: World, text: str | None):
    world.accounts.register("Ada", GOOD, HERE)
    assert world.visit(text) is None
    assert world.accounts.sessions.end(text) is False


def test_locked_database_does_not_sign_out(world: World, caplog: pytest.LogCaptureFixture):
    token = world.accounts.register("Ada", GOOD, HERE).token
    world.clock.forward(hours=1)
    world.accounts = world.impatient()
    with raw(world) as other, caplog.at_level(logging.WARNING):
        other.execute("BEGIN IMMEDIATE")
        assert world.visit(token).account.name == "Ada"
        other.execute("ROLLBACK")
    assert "locked by another program" in caplog.text and token not in caplog.text


# Tokens, codes and devices


def test_tokens_and_codes_are_unique():
    assert len({new_token() for _ in range(1000)}) == len({new_code() for _ in range(1000)}) == 1000


def test_code_is_accepted_in_any_format():
    code = new_code()
    assert len(code) == 29
    typed = (code.lower(), code.replace("-", ""), f" {code.replace('-', ' ')}\n")
    assert {code_hash(one) for one in typed} == {code_hash(code)}
    misread = code.replace("0", "O").replace("1", "l")
    assert code_hash(misread) == code_hash(code)
    assert code_hash(new_code()) != code_hash(code)


@settings(max_examples=700)
@given(hostile_texts)
def test_hostile_texts_are_not_tokens(text: str):
    key = "ab" * 32
    assert token_hash(text) is None and code_hash(text) is None
    assert device_nonce(text, "id", key) is None


def test_device_cookie_is_valid_for_its_account_only():
    key, other = new_device_key(), new_device_key()
    device = new_device("a", key)
    assert device_nonce(device, "a", key) and device_nonce(None, "a", key) is None
    assert device_nonce(device, "b", key) is None and device_nonce(device, "a", other) is None
    nonce, signature = device.split(".")
    assert device_nonce(f"{nonce[::-1]}.{signature}", "a", key) is None
    assert device_nonce(f"{nonce}.{signature[::-1]}", "a", key) is None
    assert new_device("a", key) != device
