"""Invitations: who may create them, number of uses and expiry."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.auth import Client
from core.auth.tokens import new_code
from core.errors import (
    AccessDeniedError,
    AccountInputError,
    InvitationError,
    PaddockError,
    TooManyAttemptsError,
    UnknownAccountError,
)
from tests.auth.samples import GOOD, HERE, HOSTILE, World

INVALID = r"incorrect, used up or expired\. Ask an administrator"


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path, registration="invitation", registrations_per_address=1000)


def test_code_is_valid_for_its_number_of_uses(world: World):
    boss = world.administrator()
    made = world.others.invite(boss, uses=2)
    world.accounts.register("Ada", GOOD, HERE, code=made)
    assert world.others.invitations(boss)[0].uses_left == 1
    world.accounts.register("Bo", GOOD, HERE, code=made.lower())
    with pytest.raises(AccountInputError, match=INVALID):
        world.accounts.register("Cy", GOOD, HERE, code=made)
    assert world.others.invitations(boss) == []


def test_registration_requires_a_code(world: World):
    world.others.invite(world.administrator())
    for code in (None, new_code(), *HOSTILE):
        with pytest.raises(AccountInputError, match=INVALID):
            world.accounts.register("Ada", GOOD, HERE, code=code)
    assert world.hasher.hashings == 1, "the administrator's; an incorrect code takes none"


def test_code_expires(world: World):
    boss = world.administrator()
    usual = world.others.invite(boss)
    (listed,) = world.others.invitations(boss)
    short = world.others.invite(boss, hours=0.5)
    world.clock.forward(minutes=30)
    with pytest.raises(AccountInputError, match=INVALID):
        world.accounts.register("Ada", GOOD, HERE, code=short)
    assert world.others.invitations(boss) == [listed]
    world.clock.forward(hours=world.settings.invitation_h - 1)
    world.accounts.register("Ada", GOOD, HERE, code=usual)


def test_failed_registration_does_not_use_the_code(world: World):
    boss = world.administrator()
    made = world.others.invite(boss)
    with pytest.raises(AccountInputError, match="is taken"):
        world.accounts.register("BOSS", GOOD, HERE, code=made)
    with pytest.raises(AccountInputError, match="8 to 256"):
        world.accounts.register("Ada", "short", HERE, code=made)
    assert world.accounts.register("Ada", GOOD, HERE, code=made).account.role == "user"


def test_taken_names_are_revealed_only_with_a_code(world: World):
    world.administrator()
    with pytest.raises(AccountInputError, match=INVALID):
        world.accounts.register("boss", GOOD, HERE, code=new_code())


def test_codes_are_revoked_and_deleted_with_their_administrator(world: World):
    boss, second = world.administrator(), world.administrator("second")
    made = world.others.invite(boss)
    (listed,) = world.others.invitations(boss)
    other = world.others.invite(second)
    world.others.withdraw_invitation(boss, listed.id)
    with pytest.raises(UnknownAccountError):
        world.others.withdraw_invitation(boss, listed.id)
    world.others.delete_other(boss, second)
    for code in (made, other):
        with pytest.raises(AccountInputError, match=INVALID):
            world.accounts.register("Ada", GOOD, HERE, code=code)


@pytest.mark.parametrize(
    "wrong",
    [
        {"uses": 0},
        {"uses": 1001},
        {"hours": 0},
        {"hours": -1},
        {"hours": math.inf},
        {"hours": math.nan},
        {"hours": 8785},
    ],
)
def test_uses_and_hours_are_limited(world: World, wrong: dict):
    with pytest.raises(AccountInputError, match="for an invitation"):
        world.others.invite(world.administrator(), **wrong)


def test_only_administrators_invite(world: World):
    code = world.others.invite(world.administrator())
    ada = world.accounts.register("Ada", GOOD, HERE, code=code).account.id
    for call in (
        lambda: world.others.invite(ada),
        lambda: world.others.invitations(ada),
        lambda: world.others.withdraw_invitation(ada, "x"),
        lambda: world.others.invite("nobody"),
    ):
        with pytest.raises(AccessDeniedError, match="Requires the administrator role"):
            call()


def test_last_use_is_given_to_one_of_many_concurrent_registrations(world: World):
    code = world.others.invite(world.administrator(), uses=3)

    def register(number: int) -> bool:
        try:
            world.accounts.register(f"person{number}x", GOOD, HERE, code=code)
        except AccountInputError:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(register, range(12))) == 3
    assert len(world.others.everybody()) == 4


def test_guessing_codes_is_limited_by_address(tmp_path):
    world = World(tmp_path, registration="invitation", registrations_per_address=5)
    code = world.others.invite(world.administrator())
    errors: list[type[PaddockError]] = []
    for _ in range(10):
        with pytest.raises((AccountInputError, TooManyAttemptsError)) as raised:
            world.accounts.register("Ada", GOOD, HERE, code=new_code())
        errors.append(raised.type)
    assert errors == [InvitationError] * 5 + [TooManyAttemptsError] * 5
    world.accounts.register("Ada", GOOD, Client(address="198.51.100.1"), code=code)
