"""Registration, sign-in, limits, account changes and administration."""

from __future__ import annotations

import logging
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from core.auth import Accounts, Client
from core.auth.administration import Administration
from core.auth.rate_limit import Attempts
from core.db import GUEST, Role, RunStore, VoteStore
from core.errors import (
    AccessDeniedError,
    AccountInputError,
    NotEnoughMemoryError,
    PaddockError,
    RecordsError,
    SignInError,
    TooBusyError,
    TooManyAttemptsError,
    UnknownAccountError,
)
from core.settings import AuthMode, Registration, Settings
from tests.auth.samples import (
    CHEAP,
    GOOD,
    HERE,
    HOSTILE,
    OTHER,
    CountingHasher,
    World,
)
from tests.db.run_samples import a_result, a_start
from tests.db.test_votes import a_vote
from tests.waiting import PATIENCE_S

WRONG = "wrong-kettle-violin"


def addresses(number: int) -> Client:
    return Client(address=f"198.51.100.{number}")


def names(world: World) -> list[str]:
    return [row.account.name for row in world.others.everybody()]


# Registration


def test_registration_signs_in_with_the_role_user(world: World):
    signed_in = world.accounts.register("  Ada ", GOOD, HERE)
    account = world.store.get(signed_in.account.id)
    assert (account.name, account.key, account.role) == ("Ada", "ada", Role.USER)
    assert account.created_at == account.signed_in_at == world.clock.now
    assert world.visit(signed_in.token).account == account
    assert signed_in.session.agent == "Browser 1.0"


@pytest.mark.parametrize("again", ["Ada", "ADA", "ａｄａ", " ada", "аdа".replace("d", "ԁ")])
def test_name_is_unique(world: World, again: str):
    world.accounts.register("Ada", GOOD, HERE)
    with pytest.raises(AccountInputError, match="or one that looks like it, is taken"):
        world.accounts.register(again, OTHER, HERE)
    assert names(world) == ["Ada"] and world.hasher.hashings == 1


def test_concurrent_registrations_of_a_name_create_one_account(world: World):
    world.accounts._settings.registrations_per_address = 1000
    start = threading.Barrier(20)

    def register(number: int) -> bool:
        start.wait(PATIENCE_S)
        try:
            world.accounts.register("Ada" if number % 2 else "ADA", GOOD, HERE)
        except AccountInputError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(register, range(20))) == 1
    assert len(names(world)) == 1


def test_reserved_names_cannot_be_registered(world: World):
    with pytest.raises(AccountInputError, match="is taken"):
        world.accounts.register("Admin", GOOD, HERE)
    assert world.accounts.make_administrator("Admin", GOOD).role is Role.ADMINISTRATOR


def test_closed_registration(tmp_path: Path):
    world = World(tmp_path, registration="closed")
    for code in (None, "x"):
        with pytest.raises(AccessDeniedError, match="Registration is closed"):
            world.accounts.register("Ada", GOOD, HERE, code=code)
    assert names(world) == [] and world.hasher.hashings == 0


def test_registrations_are_limited_by_address(tmp_path: Path):
    world = World(tmp_path, registrations_per_address=3)
    for number in range(3):
        world.accounts.register(f"person{number}x", GOOD, HERE)
    with pytest.raises(TooManyAttemptsError):
        world.accounts.register("another", GOOD, HERE)
    world.accounts.register("another", GOOD, addresses(1))
    world.clock.forward(seconds=world.settings.failure_window_s)
    world.accounts.register("onemore", GOOD, HERE)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:20]))
def test_rejected_registration_stores_nothing(world: World, text: str):
    with pytest.raises(AccountInputError):
        world.accounts.register(text, GOOD, HERE)
    with pytest.raises(SignInError):
        world.accounts.sign_in(text, text, HERE)
    assert names(world) == []


def test_hostile_texts_work_as_passwords(world: World):
    for number, text in enumerate(text for text in HOSTILE if 12 < len(text) < 100):
        try:
            world.accounts.register(f"person{number}x", text, addresses(number))
        except AccountInputError:
            continue
        assert world.accounts.sign_in(f"person{number}x", text, HERE)
        with pytest.raises(SignInError):
            world.accounts.sign_in(f"person{number}x", text + " ", addresses(number))
    assert len(names(world)) > 10


# Sign-in


def test_letter_case_of_the_name_does_not_matter_at_sign_in(world: World):
    world.accounts.register("Straße", GOOD, HERE)
    for name in ("straße", "STRASSE", " Strasse\n", "ｓｔｒａsse"):
        assert world.accounts.sign_in(name, GOOD, HERE).account.name == "Straße"


def test_look_alike_name_does_not_sign_in(world: World):
    world.accounts.register("poca", GOOD, HERE)
    with pytest.raises(SignInError):
        world.accounts.sign_in("роса", GOOD, HERE)


def test_unknown_name_and_incorrect_password_have_the_same_error_and_work(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    world.others.set_disabled(world.administrator(), world.accounts.find("Ada").id, False)
    told, costs = set(), set()
    for number, (name, password) in enumerate(
        [
            ("Ada", WRONG),
            ("nobody", GOOD),
            ("", ""),
            ("Ada", ""),
            ("Ada", "x" * 1_000_000),
            ("y" * 1_000_000, GOOD),
            ("Ada", "\x00\ud800"),
            ("' OR 1=1 --", GOOD),
            ("\ud800", GOOD),
        ]
    ):
        before = world.hasher.hashings
        with pytest.raises(SignInError) as raised:
            world.accounts.sign_in(name, password, addresses(number))
        told.add(str(raised.value))
        costs.add(world.hasher.hashings - before)
    assert costs == {1}
    assert told == {"Incorrect user name or password."}
    before = world.hasher.hashings
    world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.hasher.hashings == before + 1


def test_disabled_account_is_revealed_only_with_the_correct_password(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    world.others.set_disabled(world.administrator(), ada.account.id, True)
    assert world.visit(ada.token) is None
    with pytest.raises(SignInError, match="Incorrect user name or password"):
        world.accounts.sign_in("Ada", WRONG, HERE)
    with pytest.raises(SignInError, match=r"disabled\. Ask an administrator"):
        world.accounts.sign_in("Ada", GOOD, HERE)


def test_password_is_rehashed_when_the_parameters_become_stronger(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    world.hasher = CountingHasher(replace(CHEAP, time_cost=2, memory_cost=16))
    stronger = world.started()
    with pytest.raises(SignInError):
        stronger.sign_in("Ada", WRONG, HERE)
    assert world.store.get(ada.account.id).password_hash == ada.account.password_hash
    assert world.hasher.hashings == 1
    stronger.sign_in("Ada", GOOD, HERE)
    changed = world.store.get(ada.account.id).password_hash
    assert "m=16,t=2" in changed and world.hasher.hashings == 3
    stronger.sign_in("Ada", GOOD, HERE)
    assert world.store.get(ada.account.id).password_hash == changed and world.hasher.hashings == 4
    assert stronger.sessions.visit(ada.token), "sessions stay"
    assert world.store.get(ada.account.id).password_changed_at == ada.account.created_at


def test_failed_rehash_does_not_prevent_sign_in(world: World, monkeypatch, caplog):
    world.accounts.register("Ada", GOOD, HERE)
    world.hasher = CountingHasher(replace(CHEAP, time_cost=2))
    monkeypatch.setattr(world.hasher, "hash", lambda _: (_ for _ in ()).throw(TooBusyError("No.")))
    assert world.started().sign_in("Ada", GOOD, HERE)
    assert "could not be rehashed" in caplog.text and GOOD not in caplog.text


def test_nothing_secret_is_logged(world: World, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        ada = world.accounts.register("Ada", GOOD, HERE)
        with pytest.raises(SignInError):
            world.accounts.sign_in("Ada", WRONG, HERE)
        again = world.accounts.change_password(ada.token, GOOD, OTHER, HERE)
        world.accounts.delete_account(again.token, OTHER)
    for secret in (GOOD, WRONG, OTHER, ada.token, ada.device, again.token, "Ada"):
        assert secret not in caplog.text


# Limits


def fail(world: World, client: Client, *, name: str = "Ada", times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(SignInError):
            world.accounts.sign_in(name, WRONG, client)


def test_failures_are_limited_by_address_without_further_hashing(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    limit = world.settings.failures_per_address
    for number in range(limit):
        fail(world, HERE, name=f"name{number}")
    hashings = world.hasher.hashings
    for name in ("Ada", "unknown"):
        with pytest.raises(TooManyAttemptsError, match="Wait 16 minutes"):
            world.accounts.sign_in(name, GOOD, HERE)
    assert world.hasher.hashings == hashings
    assert world.accounts.sign_in("Ada", GOOD, addresses(1))
    world.clock.forward(seconds=world.settings.failure_window_s)
    assert world.accounts.sign_in("Ada", GOOD, HERE)


@pytest.mark.parametrize("name", ["Ada", "nobody"])
def test_failures_are_limited_by_name_known_or_not(world: World, name: str):
    world.accounts.register("Ada", GOOD, HERE)
    for number in range(world.settings.failures_per_account):
        fail(world, addresses(number), name=name if number % 2 else name.upper())
    with pytest.raises(TooManyAttemptsError):
        world.accounts.sign_in(name, GOOD, addresses(200))
    fail(world, addresses(200), name="other")


def test_one_attacker_does_not_lock_out_the_owner(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    stranger = addresses(66)
    fail(world, stranger, times=world.settings.failures_per_address)
    for _ in range(100):
        with pytest.raises(TooManyAttemptsError):
            world.accounts.sign_in("Ada", WRONG, stranger)
    assert world.accounts.sign_in("Ada", GOOD, addresses(1)), "from a new browser"
    assert world.visit(ada.token)


def test_many_attackers_do_not_lock_out_a_known_browser(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    for number in range(world.settings.failures_per_account):
        fail(world, addresses(number))
    known = replace(HERE, device=ada.device)
    for place in (known, replace(known, address=addresses(0).address), Client(device=ada.device)):
        again = world.accounts.sign_in("Ada", GOOD, place)
        assert again.device == ada.device
    for stolen in ("", "x", ada.device[:-1] + "x", ada.device + "0"):
        with pytest.raises(TooManyAttemptsError):
            world.accounts.sign_in("Ada", GOOD, replace(HERE, device=stolen))


def test_known_browser_has_its_own_limit(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    known = replace(HERE, device=ada.device)
    fail(world, known, times=world.settings.failures_per_device)
    with pytest.raises(TooManyAttemptsError):
        world.accounts.sign_in("Ada", GOOD, known)
    assert world.accounts.sign_in("Ada", GOOD, HERE), (
        "without the device cookie the owner can sign in"
    )


def test_device_cookie_is_not_valid_for_another_account(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    mallory = world.accounts.register("Mallory", GOOD, HERE)
    place = replace(HERE, device=mallory.device)
    fail(world, place, times=world.settings.failures_per_address)
    with pytest.raises(TooManyAttemptsError):
        world.accounts.sign_in("Ada", GOOD, place)


def test_successful_sign_in_does_not_reset_other_failures(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    world.accounts.register("Mallory", GOOD, HERE)
    for _ in range(world.settings.failures_per_address):
        world.accounts.sign_in("Mallory", GOOD, HERE)
        fail(world, HERE)
    with pytest.raises(TooManyAttemptsError):
        world.accounts.sign_in("Ada", WRONG, HERE)


def test_success_is_not_limited(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    for _ in range(60):
        world.accounts.sign_in("Ada", GOOD, HERE)


@pytest.mark.parametrize("name", ["Ada", "nobody"])
def test_fifty_concurrent_guesses_are_hashed_up_to_the_limit(world: World, name: str):
    world.accounts.register("Ada", GOOD, HERE)
    before, start = world.hasher.hashings, threading.Barrier(50)

    def guess(number: int) -> type[PaddockError]:
        start.wait(PATIENCE_S)
        with pytest.raises((SignInError, TooManyAttemptsError)) as raised:
            world.accounts.sign_in(name, f"{WRONG}-{number}", HERE)
        return raised.type

    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(guess, range(50)))
    limit = world.settings.failures_per_address
    assert outcomes.count(SignInError) == world.hasher.hashings - before == limit
    assert outcomes.count(TooManyAttemptsError) == 50 - limit


def test_fifty_concurrent_sign_ins_all_succeed(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    world.accounts._settings.failures_per_address = 50
    world.accounts._settings.failures_per_account = 50
    with ThreadPoolExecutor(50) as pool:
        tokens = list(
            pool.map(lambda _: world.accounts.sign_in("Ada", GOOD, HERE).token, range(50))
        )
    assert len(set(tokens)) == 50
    assert all(world.visit(token) for token in tokens)


@pytest.mark.parametrize("error", [TooBusyError("Busy."), NotEnoughMemoryError("None.")])
def test_server_errors_are_not_counted_as_failures(world: World, monkeypatch, error):
    def refuse(*_: object) -> bool:
        raise error

    world.accounts.register("Ada", GOOD, HERE)
    with monkeypatch.context() as patch:
        patch.setattr(world.hasher, "verify", refuse)
        patch.setattr(world.hasher, "hash", refuse)
        for _ in range(200):
            with pytest.raises(type(error)):
                world.accounts.sign_in("Ada", GOOD, HERE)
            with pytest.raises(type(error)):
                world.accounts.register("Bo", GOOD, HERE)
    assert world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.accounts.register("Bo", GOOD, HERE)


# The user's own account


def test_password_change_requires_the_current_password(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    with pytest.raises(SignInError):
        world.accounts.change_password(ada.token, WRONG, OTHER, HERE)
    for bad, said in [
        ("short", "8 to 256"),
        ("password1", "too common"),
        ("Ada!99999", "the user name"),
    ]:
        with pytest.raises(AccountInputError, match=said):
            world.accounts.change_password(ada.token, GOOD, bad, HERE)
    world.clock.forward(minutes=5)
    world.accounts.change_password(ada.token, GOOD, OTHER, HERE)
    with pytest.raises(SignInError):
        world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.accounts.sign_in("Ada", OTHER, HERE)
    assert world.store.get(ada.account.id).password_changed_at == world.clock.now
    with pytest.raises(AccessDeniedError, match="signed out"):
        world.accounts.change_password(ada.token, OTHER, GOOD, HERE)


def test_password_change_invalidates_device_cookies(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    now = world.accounts.change_password(ada.token, GOOD, OTHER, replace(HERE, device=ada.device))
    assert now.device != ada.device
    fail(world, replace(HERE, device=ada.device), times=world.settings.failures_per_address)
    with pytest.raises(TooManyAttemptsError):
        world.accounts.sign_in("Ada", OTHER, replace(HERE, device=ada.device))
    assert world.accounts.sign_in("Ada", OTHER, replace(HERE, device=now.device))


def test_guesses_in_a_signed_in_browser_are_limited(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    outcomes = []
    for number in range(20):
        with pytest.raises(PaddockError) as raised:
            if number % 2:
                world.accounts.change_password(ada.token, WRONG, OTHER, addresses(number))
            else:
                world.accounts.delete_account(ada.token, WRONG)
        outcomes.append(raised.type)
    limit = world.settings.failures_per_device
    assert outcomes == [SignInError] * limit + [TooManyAttemptsError] * (20 - limit)
    assert world.accounts.sign_in("Ada", GOOD, HERE), "sign-in is counted separately"


def test_sign_in_during_a_password_change_fails(world: World, monkeypatch):
    ada = world.accounts.register("Ada", GOOD, HERE)
    verify = world.hasher.verify

    def overtaken(*arguments: str) -> bool:
        right = verify(*arguments)
        monkeypatch.setattr(world.hasher, "verify", verify)
        world.accounts.change_password(ada.token, GOOD, OTHER, HERE)
        return right

    monkeypatch.setattr(world.hasher, "verify", overtaken)
    with pytest.raises(SignInError, match=r"at the same time\. Sign in again"):
        world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.others.everybody()[0].sessions == 1


def test_account_deletion_deletes_its_data_only(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    bo = world.accounts.register("Bo", GOOD, HERE)
    runs, votes = RunStore(world.store.database), VoteStore(world.store.database)
    for owner in (ada.account.id, ada.account.id, bo.account.id, GUEST):
        runs.add(a_start(owner=owner), a_result())
        votes.cast(a_vote(owner=owner))
    runs.start(a_start(owner=ada.account.id))
    with pytest.raises(SignInError):
        world.accounts.delete_account(ada.token, WRONG)
    assert runs.count() == 5
    world.accounts.delete_account(ada.token, GOOD)
    assert runs.count() == votes.count() == 2
    assert runs.count(owner=bo.account.id) == votes.count(owner=bo.account.id) == 1
    assert world.visit(ada.token) is None and world.visit(bo.token)
    assert names(world) == ["Bo"]
    with pytest.raises(SignInError, match="Incorrect user name or password"):
        world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.accounts.register("Ada", GOOD, HERE).account.id != ada.account.id


# Administration


def test_administrators_list_disable_sign_out_and_set_roles(world: World):
    boss = world.administrator()
    ada = world.accounts.register("Ada", GOOD, HERE)
    world.accounts.sign_in("Ada", GOOD, HERE)
    listed = world.others.listing(boss)
    assert [(row.account.name, row.sessions) for row in listed] == [("Ada", 2), ("boss", 0)]
    world.others.sign_out_account(boss, ada.account.id)
    assert world.visit(ada.token) is None
    again = world.accounts.sign_in("Ada", GOOD, HERE)
    world.others.set_role(boss, ada.account.id, Role.MANAGER)
    assert world.visit(again.token).account.role.manages, "without a new sign-in"
    world.others.set_disabled(boss, ada.account.id, True)
    assert world.visit(again.token) is None
    world.others.set_disabled(boss, ada.account.id, False)
    assert world.visit(again.token) is None, "an ended session stays ended"
    assert world.accounts.sign_in("Ada", GOOD, HERE)
    world.others.delete_other(boss, ada.account.id)
    assert world.store.get(ada.account.id) is None


def asks(others: Administration, asker: str, other: str) -> list:
    return [
        lambda: others.listing(asker),
        lambda: others.set_role(asker, other, Role.ADMINISTRATOR),
        lambda: others.set_disabled(asker, other, True),
        lambda: others.sign_out_account(asker, other),
        lambda: others.delete_other(asker, other),
    ]


def test_other_users_cannot_administer(world: World):
    boss, second = world.administrator(), world.administrator("second")
    ada = world.accounts.register("Ada", GOOD, HERE).account.id
    mike = world.accounts.register("Mike", GOOD, HERE).account.id
    world.others.set_role(boss, mike, Role.MANAGER)
    world.others.set_disabled(boss, second, True)
    for asker in (ada, mike, second, "", "boss", "' OR 1=1 --"):
        for ask in asks(world.others, asker, boss):
            with pytest.raises(AccessDeniedError, match="Requires the administrator role"):
                ask()
    assert world.store.get(boss).role.administers and not world.store.get(boss).disabled


def test_administrators_cannot_change_their_own_account(world: World):
    boss = world.administrator()
    for ask in asks(world.others, boss, boss)[1:3] + asks(world.others, boss, boss)[4:]:
        with pytest.raises(AccessDeniedError, match="Ask another administrator"):
            ask()


def test_deleted_account_is_an_error(world: World):
    boss = world.administrator()
    for ask in asks(world.others, boss, "nobody")[1:]:
        with pytest.raises(UnknownAccountError, match="Reload the list"):
            ask()


def test_make_administrator_of_a_new_or_existing_account(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    with pytest.raises(AccountInputError, match="boss needs a password"):
        world.accounts.make_administrator("boss", None)
    boss = world.accounts.make_administrator("boss", GOOD)
    world.others.set_disabled(boss.id, ada.account.id, True)
    raised = world.accounts.make_administrator("ADA", None)
    assert (raised.id, raised.name, raised.role) == (ada.account.id, "Ada", Role.ADMINISTRATOR)
    token = world.accounts.sign_in("Ada", GOOD, HERE).token
    world.accounts.make_administrator("ada", OTHER)
    assert world.visit(token) is None and world.accounts.sign_in("Ada", OTHER, HERE)
    for name, password in (("x", GOOD), ("cy", "password"), ("ɑda", GOOD), ("ada", "short")):
        with pytest.raises(AccountInputError):
            world.accounts.make_administrator(name, password)


# The database


def raw(world: World) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(world.settings.home / "paddock.db", isolation_level=None))


def test_locked_database_is_an_error_and_not_a_failed_attempt(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    boss = world.administrator()
    world.accounts = world.impatient()
    calls = [
        lambda: world.accounts.register("Bo", GOOD, HERE),
        lambda: world.accounts.sign_in("Ada", GOOD, HERE),
        lambda: world.accounts.sessions.end(ada.token),
        lambda: world.accounts.change_password(ada.token, GOOD, OTHER, HERE),
        lambda: world.accounts.delete_account(ada.token, GOOD),
        lambda: world.others.set_role(boss, ada.account.id, Role.MANAGER),
        lambda: world.others.invite(boss),
        lambda: world.accounts.make_administrator("Cy", GOOD),
    ]
    with raw(world) as other:
        other.execute("BEGIN IMMEDIATE")
        for call in calls:
            with pytest.raises(RecordsError, match=r"locked by another program\. Close it and try"):
                call()
        other.execute("ROLLBACK")
    assert all(bucket.startswith("registration") for bucket in world.attempts._counted)
    assert names(world) == ["Ada", "boss"] and world.visit(ada.token)
    assert world.accounts.sign_in("Ada", GOOD, HERE)


def test_full_disk_is_an_error_and_creates_no_account(world: World):
    with world.store.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RecordsError, match=r"is full.* Free some disk space"):
        for number in range(1000):
            world.accounts._settings.registrations_per_address = 10_000
            world.accounts.register(f"person{number}x", GOOD, HERE)
    before = names(world)
    assert before == [row.account.name for row in world.others.everybody() if row.sessions <= 1]
    with world.store.database.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    world.accounts.register("one-more", GOOD, HERE)


def test_defaults_are_the_settings(world: World):
    accounts = Accounts(world.store, world.settings)
    assert accounts._hasher._parameters.memory_cost == 65536
    assert isinstance(accounts._attempts, Attempts)
    assert Settings().registration is Registration.INVITATION and Settings().auth is AuthMode.AUTO
