"""API keys: creation, storage as a hash, expiry and revocation."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from core.auth.keys import MAX_KEYS
from core.db import Account
from core.errors import AccountInputError, UnknownAccountError
from tests.auth.samples import GOOD, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def ada(world: World) -> Account:
    return world.accounts.make_administrator("Ada", GOOD)


@pytest.fixture
def made(world: World, ada: Account) -> str:
    return world.accounts.keys.make(ada.id, "  My \t notebook ", days=30)


def test_key_belongs_to_its_account_and_only_its_hash_is_stored(
    world: World, ada: Account, made: str
):
    assert made.startswith("pdk_") and len(made) == 47
    assert world.accounts.keys.listing(ada.id)[0].name == "My notebook"
    holder = world.accounts.keys.holder(made)
    assert holder is not None and holder.id == ada.id
    with world.store.database.reading() as connection:
        rows = connection.execute(text("SELECT * FROM api_keys")).all()
    assert len(rows) == 1 and made not in str(rows) and made[4:] not in str(rows)


@pytest.mark.parametrize("secret", ["", "pdk_", "guest", "pdk_" + 43 * "a", "pdk_" + 43 * "é"])
def test_other_texts_are_not_keys(world: World, made: str, secret: str):
    assert world.accounts.keys.holder(secret) is None


def test_last_use_is_recorded_at_intervals(world: World, ada: Account, made: str):
    keys = world.accounts.keys
    assert keys.listing(ada.id)[0].used_at is None
    keys.holder(made)
    first = keys.listing(ada.id)[0].used_at
    world.clock.forward(seconds=30)
    keys.holder(made)
    assert first is not None and keys.listing(ada.id)[0].used_at == first
    world.clock.forward(minutes=5)
    keys.holder(made)
    assert keys.listing(ada.id)[0].used_at > first


def test_key_expires_unless_it_is_unlimited(world: World, ada: Account, made: str):
    keys = world.accounts.keys
    endless = keys.make(ada.id, "endless")
    world.clock.forward(days=31)
    assert keys.holder(made) is None and keys.holder(endless) is not None


def test_only_the_owner_can_revoke_a_key(world: World, ada: Account, made: str):
    keys = world.accounts.keys
    other = world.accounts.make_administrator("Bob", GOOD)
    with pytest.raises(UnknownAccountError):
        keys.revoke(other.id, keys.listing(ada.id)[0].id)
    keys.revoke(ada.id, keys.listing(ada.id)[0].id)
    assert keys.holder(made) is None and keys.listing(ada.id) == []


def test_key_of_a_disabled_account_is_not_valid(world: World, ada: Account, made: str):
    world.store.change(ada.id, disabled=True)
    assert world.accounts.keys.holder(made) is None
    with pytest.raises(UnknownAccountError):
        world.accounts.keys.make(ada.id, "another")


def test_keys_are_deleted_with_their_account(world: World, ada: Account, made: str):
    world.store.delete(ada.id)
    assert world.accounts.keys.holder(made) is None
    assert world.accounts.keys.listing(ada.id) == []


@pytest.mark.parametrize(
    ("name", "days"), [("", 1), ("a" * 61, 1), ("a\0b", 1), ("a", 0), ("a", 367)]
)
def test_invalid_name_or_validity_is_rejected(world: World, ada: Account, name: str, days: int):
    with pytest.raises(AccountInputError):
        world.accounts.keys.make(ada.id, name, days=days)


def test_number_of_keys_is_limited(world: World, ada: Account):
    for number in range(MAX_KEYS):
        world.accounts.keys.make(ada.id, f"key {number}")
    with pytest.raises(AccountInputError):
        world.accounts.keys.make(ada.id, "one more")
