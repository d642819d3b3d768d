"""What people do with accounts, and what they must not be able to do."""

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
from core.auth.hashing import Cost
from core.auth.rate_limit import Attempts, Kind
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
    GOOD,
    HERE,
    HOSTILE,
    OTHER,
    CountingHasher,
    World,
)
from tests.db.run_samples import a_result, a_start
from tests.db.test_votes import a_vote

WRONG = "wrong-kettle-violin"


def addresses(number: int) -> Client:
    return Client(address=f"198.51.100.{number}")


def names(world: World) -> list[str]:
    return [row.account.name for row in world.others.everybody()]


# Registering


def test_who_registers_is_signed_in_and_is_a_user(world: World):
    signed_in = world.accounts.register("  Ada ", GOOD, HERE)
    account = world.store.get(signed_in.account.id)
    assert (account.name, account.key, account.role) == ("Ada", "ada", Role.USER)
    assert account.created_at == account.signed_in_at == world.clock.now
    assert world.accounts.visit(signed_in.token).account == account
    assert signed_in.session.agent == "Browser 1.0"


@pytest.mark.parametrize("again", ["Ada", "ADA", "ａｄａ", " ada", "аdа".replace("d", "ԁ")])
def test_a_name_is_given_out_once(world: World, again: str):
    world.accounts.register("Ada", GOOD, HERE)
    with pytest.raises(AccountInputError, match="or one that looks like it, is taken"):
        world.accounts.register(again, OTHER, HERE)
    assert names(world) == ["Ada"] and world.hasher.hashings == 1


def test_a_name_is_given_out_once_to_many_at_once(world: World):
    world.accounts._settings.registrations_per_address = 1000
    start = threading.Barrier(20)

    def register(number: int) -> bool:
        start.wait(10)
        try:
            world.accounts.register("Ada" if number % 2 else "ADA", GOOD, HERE)
        except AccountInputError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(register, range(20))) == 1
    assert len(names(world)) == 1


def test_names_of_authority_are_not_given_out_by_registering(world: World):
    with pytest.raises(AccountInputError, match="is taken"):
        world.accounts.register("Admin", GOOD, HERE)
    assert world.accounts.make_administrator("Admin", GOOD).role is Role.ADMINISTRATOR


def test_nobody_registers_where_it_is_closed(tmp_path: Path):
    world = World(tmp_path, registration="closed")
    for code in (None, "x"):
        with pytest.raises(AccessDeniedError, match="ask an administrator to let you in"):
            world.accounts.register("Ada", GOOD, HERE, code=code)
    assert names(world) == [] and world.hasher.hashings == 0


def test_an_address_makes_so_many_accounts_in_a_while(tmp_path: Path):
    world = World(tmp_path, registrations_per_address=3)
    for number in range(3):
        world.accounts.register(f"person{number}x", GOOD, HERE)
    with pytest.raises(TooManyAttemptsError):
        world.accounts.register("another", GOOD, HERE)
    world.accounts.register("another", GOOD, addresses(1))
    world.clock.forward(seconds=world.settings.failure_window_s)
    world.accounts.register("onemore", GOOD, HERE)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:20]))
def test_nothing_of_what_is_refused_is_stored(world: World, text: str):
    with pytest.raises(AccountInputError):
        world.accounts.register(text, GOOD, HERE)
    with pytest.raises(SignInError):
        world.accounts.sign_in(text, text, HERE)
    assert names(world) == []


def test_a_hostile_password_is_a_password(world: World):
    for number, text in enumerate(text for text in HOSTILE if 12 < len(text) < 100):
        try:
            world.accounts.register(f"person{number}x", text, addresses(number))
        except AccountInputError:
            continue
        assert world.accounts.sign_in(f"person{number}x", text, HERE)
        with pytest.raises(SignInError):
            world.accounts.sign_in(f"person{number}x", text + " ", addresses(number))
    assert len(names(world)) > 10


# Signing in


def test_the_name_may_be_written_in_any_way(world: World):
    world.accounts.register("Straße", GOOD, HERE)
    for name in ("straße", "STRASSE", " Strasse\n", "ｓｔｒａsse"):
        assert world.accounts.sign_in(name, GOOD, HERE).account.name == "Straße"


def test_a_name_that_looks_the_same_signs_nobody_in(world: World):
    world.accounts.register("poca", GOOD, HERE)
    with pytest.raises(SignInError):
        world.accounts.sign_in("роса", GOOD, HERE)


def test_unknown_name_and_wrong_password_are_alike_in_words_and_hashings(world: World):
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
    assert told == {"Name and password do not go together; check both and try again."}
    before = world.hasher.hashings
    world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.hasher.hashings == before + 1


def test_a_disabled_account_is_told_of_to_its_owner_alone(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    world.others.set_disabled(world.administrator(), ada.account.id, True)
    assert world.accounts.visit(ada.token) is None
    with pytest.raises(SignInError, match="do not go together"):
        world.accounts.sign_in("Ada", WRONG, HERE)
    with pytest.raises(SignInError, match="disabled; ask an administrator"):
        world.accounts.sign_in("Ada", GOOD, HERE)


def test_a_password_is_hashed_anew_once_more_work_is_asked_for(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    world.hasher = CountingHasher(Cost(2, 16, 1))
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
    assert stronger.visit(ada.token), "sessions stay"
    assert world.store.get(ada.account.id).password_changed_at == ada.account.created_at


def test_a_rehash_that_fails_does_not_keep_the_person_out(world: World, monkeypatch, caplog):
    world.accounts.register("Ada", GOOD, HERE)
    world.hasher = CountingHasher(Cost(2, 8, 1))
    monkeypatch.setattr(world.hasher, "hash", lambda _: (_ for _ in ()).throw(TooBusyError("No.")))
    assert world.started().sign_in("Ada", GOOD, HERE)
    assert "keeps its hash" in caplog.text and GOOD not in caplog.text


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


def test_an_address_fails_so_often_and_is_not_hashed_for_after(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    limit = world.settings.failures_per_address
    for number in range(limit):
        fail(world, HERE, name=f"name{number}")
    hashings = world.hasher.hashings
    for name in ("Ada", "unknown"):
        with pytest.raises(TooManyAttemptsError, match="wait 16 minutes"):
            world.accounts.sign_in(name, GOOD, HERE)
    assert world.hasher.hashings == hashings
    assert world.accounts.sign_in("Ada", GOOD, addresses(1))
    world.clock.forward(seconds=world.settings.failure_window_s)
    assert world.accounts.sign_in("Ada", GOOD, HERE)


@pytest.mark.parametrize("name", ["Ada", "nobody"])
def test_a_name_is_failed_so_often_from_anywhere_known_or_not(world: World, name: str):
    world.accounts.register("Ada", GOOD, HERE)
    for number in range(world.settings.failures_per_account):
        fail(world, addresses(number), name=name if number % 2 else name.upper())
    with pytest.raises(TooManyAttemptsError):
        world.accounts.sign_in(name, GOOD, addresses(200))
    fail(world, addresses(200), name="other")


def test_one_stranger_does_not_keep_the_owner_out_anywhere(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    stranger = addresses(66)
    fail(world, stranger, times=world.settings.failures_per_address)
    for _ in range(100):
        with pytest.raises(TooManyAttemptsError):
            world.accounts.sign_in("Ada", WRONG, stranger)
    assert world.accounts.sign_in("Ada", GOOD, addresses(1)), "from a browser never seen"
    assert world.accounts.visit(ada.token)


def test_many_strangers_do_not_keep_the_owner_out_of_a_known_browser(world: World):
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


def test_a_known_browser_has_a_limit_of_its_own(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    known = replace(HERE, device=ada.device)
    fail(world, known, times=world.settings.failures_per_device)
    with pytest.raises(TooManyAttemptsError):
        world.accounts.sign_in("Ada", GOOD, known)
    assert world.accounts.sign_in("Ada", GOOD, HERE), "as a stranger the owner still gets in"


def test_one_accounts_browser_is_a_stranger_to_another(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    mallory = world.accounts.register("Mallory", GOOD, HERE)
    place = replace(HERE, device=mallory.device)
    fail(world, place, times=world.settings.failures_per_address)
    with pytest.raises(TooManyAttemptsError):
        world.accounts.sign_in("Ada", GOOD, place)


def test_signing_in_to_ones_own_account_buys_no_guesses(world: World):
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
def test_fifty_tries_at_once_are_hashed_as_often_as_the_limit_says(world: World, name: str):
    world.accounts.register("Ada", GOOD, HERE)
    before, start = world.hasher.hashings, threading.Barrier(50)

    def guess(number: int) -> type[PaddockError]:
        start.wait(10)
        with pytest.raises((SignInError, TooManyAttemptsError)) as raised:
            world.accounts.sign_in(name, f"{WRONG}-{number}", HERE)
        return raised.type

    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(guess, range(50)))
    limit = world.settings.failures_per_address
    assert outcomes.count(SignInError) == world.hasher.hashings - before == limit
    assert outcomes.count(TooManyAttemptsError) == 50 - limit


def test_fifty_right_ones_at_once_all_get_in(world: World):
    world.accounts.register("Ada", GOOD, HERE)
    world.accounts._settings.failures_per_address = 50
    world.accounts._settings.failures_per_account = 50
    with ThreadPoolExecutor(50) as pool:
        tokens = list(
            pool.map(lambda _: world.accounts.sign_in("Ada", GOOD, HERE).token, range(50))
        )
    assert len(set(tokens)) == 50
    assert all(world.accounts.visit(token) for token in tokens)


@pytest.mark.parametrize("error", [TooBusyError("Busy."), NotEnoughMemoryError("None.")])
def test_what_is_not_the_persons_fault_is_not_counted(world: World, monkeypatch, error):
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


# One's own account


def test_the_password_is_changed_by_who_knows_the_old_one(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    with pytest.raises(SignInError):
        world.accounts.change_password(ada.token, WRONG, OTHER, HERE)
    for bad, said in [("short", "8 to 256"), ("password1", "first"), ("Ada!99999", "the name")]:
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


def test_after_a_change_old_browsers_are_strangers(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    now = world.accounts.change_password(ada.token, GOOD, OTHER, replace(HERE, device=ada.device))
    assert now.device != ada.device
    fail(world, replace(HERE, device=ada.device), times=world.settings.failures_per_address)
    with pytest.raises(TooManyAttemptsError):
        world.accounts.sign_in("Ada", OTHER, replace(HERE, device=ada.device))
    assert world.accounts.sign_in("Ada", OTHER, replace(HERE, device=now.device))


def test_a_found_browser_does_not_guess_the_password_for_long(world: World):
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
    assert world.accounts.sign_in("Ada", GOOD, HERE), "signing in is counted apart"


def test_a_sign_in_that_a_change_of_the_password_overtakes_fails(world: World, monkeypatch):
    ada = world.accounts.register("Ada", GOOD, HERE)
    verify = world.hasher.verify

    def overtaken(*arguments: str) -> bool:
        right = verify(*arguments)
        monkeypatch.setattr(world.hasher, "verify", verify)
        world.accounts.change_password(ada.token, GOOD, OTHER, HERE)
        return right

    monkeypatch.setattr(world.hasher, "verify", overtaken)
    with pytest.raises(SignInError, match="at the same time; sign in again"):
        world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.others.everybody()[0].sessions == 1


def test_deleting_takes_everything_that_belongs_to_the_account_and_nothing_else(world: World):
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
    gone = world.accounts.delete_account(ada.token, GOOD)
    assert (gone.runs, gone.votes) == (3, 2)
    assert runs.count() == votes.count() == 2
    assert runs.count(owner=bo.account.id) == votes.count(owner=bo.account.id) == 1
    assert world.accounts.visit(ada.token) is None and world.accounts.visit(bo.token)
    assert names(world) == ["Bo"]
    with pytest.raises(SignInError, match="do not go together"):
        world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.accounts.register("Ada", GOOD, HERE).account.id != ada.account.id


# Other people's accounts


def test_administrators_list_disable_sign_out_and_raise(world: World):
    boss = world.administrator()
    ada = world.accounts.register("Ada", GOOD, HERE)
    world.accounts.sign_in("Ada", GOOD, HERE)
    listed = world.others.listing(boss)
    assert [(row.account.name, row.sessions) for row in listed] == [("Ada", 2), ("boss", 0)]
    world.others.sign_out_account(boss, ada.account.id)
    assert world.accounts.visit(ada.token) is None
    again = world.accounts.sign_in("Ada", GOOD, HERE)
    world.others.set_role(boss, ada.account.id, Role.MANAGER)
    assert world.accounts.visit(again.token).account.role.manages, "without signing in anew"
    world.others.set_disabled(boss, ada.account.id, True)
    assert world.accounts.visit(again.token) is None
    world.others.set_disabled(boss, ada.account.id, False)
    assert world.accounts.visit(again.token) is None, "an ended session stays ended"
    assert world.accounts.sign_in("Ada", GOOD, HERE)
    assert world.others.delete_other(boss, ada.account.id).runs == 0


def asks(others: Administration, asker: str, other: str) -> list:
    return [
        lambda: others.listing(asker),
        lambda: others.set_role(asker, other, Role.ADMINISTRATOR),
        lambda: others.set_disabled(asker, other, True),
        lambda: others.sign_out_account(asker, other),
        lambda: others.delete_other(asker, other),
    ]


def test_nobody_else_does(world: World):
    boss, second = world.administrator(), world.administrator("second")
    ada = world.accounts.register("Ada", GOOD, HERE).account.id
    mike = world.accounts.register("Mike", GOOD, HERE).account.id
    world.others.set_role(boss, mike, Role.MANAGER)
    world.others.set_disabled(boss, second, True)
    for asker in (ada, mike, second, "", "boss", "' OR 1=1 --"):
        for ask in asks(world.others, asker, boss):
            with pytest.raises(AccessDeniedError, match="Only administrators"):
                ask()
    assert world.store.get(boss).role.administers and not world.store.get(boss).disabled


def test_administrators_do_not_lock_themselves_out(world: World):
    boss = world.administrator()
    for ask in asks(world.others, boss, boss)[1:3] + asks(world.others, boss, boss)[4:]:
        with pytest.raises(AccessDeniedError, match="ask another administrator"):
            ask()


def test_an_account_that_is_gone_is_said_to_be(world: World):
    boss = world.administrator()
    for ask in asks(world.others, boss, "nobody")[1:]:
        with pytest.raises(UnknownAccountError, match="look at the list again"):
            ask()


def test_an_administrator_is_made_of_a_new_account_or_of_one_that_is_there(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    with pytest.raises(AccountInputError, match="boss needs a password"):
        world.accounts.make_administrator("boss", None)
    boss = world.accounts.make_administrator("boss", GOOD)
    world.others.set_disabled(boss.id, ada.account.id, True)
    raised = world.accounts.make_administrator("ADA", None)
    assert (raised.id, raised.name, raised.role) == (ada.account.id, "Ada", Role.ADMINISTRATOR)
    token = world.accounts.sign_in("Ada", GOOD, HERE).token
    world.accounts.make_administrator("ada", OTHER)
    assert world.accounts.visit(token) is None and world.accounts.sign_in("Ada", OTHER, HERE)
    for name, password in (("x", GOOD), ("cy", "password"), ("ɑda", GOOD), ("ada", "short")):
        with pytest.raises(AccountInputError):
            world.accounts.make_administrator(name, password)


# The database


def raw(world: World) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(world.settings.home / "paddock.db", isolation_level=None))


def test_a_locked_database_is_one_sentence_and_counts_no_failure(world: World):
    ada = world.accounts.register("Ada", GOOD, HERE)
    boss = world.administrator()
    world.accounts = world.impatient()
    calls = [
        lambda: world.accounts.register("Bo", GOOD, HERE),
        lambda: world.accounts.sign_in("Ada", GOOD, HERE),
        lambda: world.accounts.sign_out(ada.token),
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
    assert {kind for kind, _ in world.attempts._times} <= {Kind.REGISTRATION}
    assert names(world) == ["Ada", "boss"] and world.accounts.visit(ada.token)
    assert world.accounts.sign_in("Ada", GOOD, HERE)


def test_a_full_disk_is_one_sentence_and_makes_no_account(world: World):
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


def test_the_defaults_are_those_of_the_settings(world: World):
    accounts = Accounts(world.store, world.settings)
    assert accounts._hasher.cost.memory_kib == 65536 and isinstance(accounts._attempts, Attempts)
    assert Settings().registration is Registration.INVITATION and Settings().auth is AuthMode.AUTO
