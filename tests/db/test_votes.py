"""The store of votes: round trip and counts by pair."""

from __future__ import annotations

import multiprocessing
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from core.compare.ratings import rate
from core.db import (
    GUEST,
    Mode,
    PairVotes,
    Subject,
    Verdict,
    Vote,
    VoteStore,
)
from core.db.tables import votes
from core.db.vote_values import COMMENT_LIMIT
from core.errors import BadRequestError, PaddockError, RecordsError
from core.settings import Settings
from tests.db.account_samples import add_account
from tests.db.test_database import raw
from tests.waiting import PATIENCE_S

WHO = GUEST
"""Owner of the votes of these tests."""


def a_subject(model: str = "dolly-v2-3b", **changes: Any) -> Subject:
    """Return a subject."""
    values: dict[str, Any] = {
        "model": model,
        "title": model.title(),
        "precision": "int8",
        "device": "CPU",
        "runtime": "optimum",
        "weights": "INT8 from Q4_1",
    }
    return Subject(**(values | changes))


def a_vote(**changes: Any) -> Vote:
    """Return a vote with every field set, on a new comparison."""
    values: dict[str, Any] = {
        "comparison": uuid.uuid4().hex,
        "left": a_subject(),
        "right": a_subject("phi-2", precision="int4", device="GPU.0", runtime="genai"),
        "verdict": Verdict.LEFT,
        "blind": True,
        "mode": Mode.RACE,
        "left_run": uuid.uuid4().hex,
        "right_run": uuid.uuid4().hex,
        "comment": "Shorter, and to the point ✓",
        "owner": WHO,
        "session": "s-1",
        "created_at": datetime(2026, 3, 1, 13, 30, 0, 123456, timezone(timedelta(hours=2))),
    }
    return Vote(**(values | changes))


def vote_on(store: VoteStore, comparison: str, owner: str = WHO) -> Vote | None:
    """Return a user's vote on a comparison."""
    return next(iter(store.recent(comparison=comparison, owner=owner)), None)


@pytest.fixture
def store(tmp_path: Path):
    store = VoteStore.open(Settings(home=tmp_path))
    yield store
    store.close()


# One vote


def test_every_field_survives_the_round_trip(store: VoteStore) -> None:
    add_account(store.database, "ada")
    vote = a_vote(owner="ada")
    defaults = {f.name for f in fields(vote) if getattr(vote, f.name) == f.default}
    assert not defaults, "the sample must differ from the defaults to prove anything"

    store.cast(vote)
    found = vote_on(store, vote.comparison, "ada")
    assert found == vote
    assert [found.left.title, found.right.title] == ["Dolly-V2-3B", "Phi-2"]
    assert isinstance(found.verdict, Verdict) and isinstance(found.mode, Mode)
    assert found.created_at.tzinfo is UTC
    assert vote_on(store, "another", "ada") is None


def test_unknown_values_stay_none(store: VoteStore) -> None:
    nothing = {"left_run": None, "right_run": None, "comment": None, "owner": GUEST}
    vote = a_vote(**nothing, session=None)
    store.cast(vote)
    assert vote_on(store, vote.comparison) == vote


def test_votes_of_other_users_are_not_accessible(store: VoteStore) -> None:
    add_account(store.database, "ada", "bo")
    vote = a_vote(owner="ada")
    store.cast(vote)
    assert vote_on(store, vote.comparison, "bo") is None
    assert not store.withdraw(vote.comparison, owner="bo")
    with pytest.raises(RecordsError):
        store.cast(replace(vote, owner="bo", verdict=Verdict.TIE))
    assert store.delete_all("bo") == 0
    assert vote_on(store, vote.comparison, "ada") == vote and store.count() == 1


def test_second_vote_replaces_the_first(store: VoteStore) -> None:
    first, other = a_vote(), a_vote()
    later = first.created_at + timedelta(minutes=1)
    second = replace(first, verdict=Verdict.BOTH_BAD, comment=None, created_at=later)
    for vote in (first, other, second):
        store.cast(vote)
    assert vote_on(store, first.comparison) == second
    assert store.count() == 2 and vote_on(store, other.comparison) == other


def test_vote_can_be_withdrawn_and_cast_again(store: VoteStore) -> None:
    vote, other = a_vote(), a_vote()
    store.cast(vote)
    store.cast(other)
    assert store.withdraw(vote.comparison, owner=WHO) and not store.withdraw(
        vote.comparison, owner=WHO
    )
    assert vote_on(store, vote.comparison) is None and store.count() == 1
    store.cast(vote)
    assert vote_on(store, vote.comparison) == vote


def test_comment_length_is_limited(store: VoteStore) -> None:
    longest = a_vote(comment="\n " + "ß" * COMMENT_LIMIT + " ")
    store.cast(longest)
    assert vote_on(store, longest.comparison).comment == "ß" * COMMENT_LIMIT
    too_long = replace(longest, comment="x" * (COMMENT_LIMIT + 1), verdict=Verdict.TIE)
    with pytest.raises(
        BadRequestError, match=r"^The comment has 2,001 .* Shorten it to at most 2,000"
    ):
        store.cast(too_long)
    assert vote_on(store, longest.comparison).verdict is Verdict.LEFT, "nothing was written"
    blank = replace(longest, comment=" \n\t")
    store.cast(blank)
    assert vote_on(store, longest.comparison).comment is None


def test_hostile_texts_do_not_cost_the_vote(store: VoteStore) -> None:
    vote = a_vote(
        left=a_subject("'; DROP TABLE votes; --", title="\ud800"),
        comment="lone \udfff, NUL \0",
        session="\udc80",
    )
    store.cast(vote)
    found = vote_on(store, vote.comparison)
    assert (found.left.model, found.left.title) == ("'; DROP TABLE votes; --", "\ufffd")
    assert found.comment == "lone \ufffd, NUL \ufffd"
    assert store.delete_all(WHO, session="\udc80") == 1, "a filter must be cleaned as the value was"


def test_a_vote_that_cannot_be_stored_is_refused_with_a_sentence(store: VoteStore) -> None:
    with pytest.raises(RecordsError, match="without a time zone"):
        store.cast(a_vote(created_at=datetime(2026, 1, 1)))
    with pytest.raises(RecordsError, match="left_precision"):
        store.cast(a_vote(left=a_subject(precision=None)))
    with pytest.raises(RecordsError, match="better"):
        store.cast(a_vote(verdict="better"))
    assert store.count() == 0


# Many votes


def test_votes_are_listed_by_filters_the_newest_first(store: VoteStore) -> None:
    add_account(store.database, "a")
    begin, order = datetime(2026, 1, 1, tzinfo=UTC), []
    for hour in range(6):
        vote = a_vote(
            left=a_subject(f"m{hour % 3}"),
            right=a_subject("other" if hour else "m1"),
            created_at=begin + timedelta(hours=hour),
            session=f"s{hour % 2}",
            owner="a" if hour < 3 else GUEST,
            verdict=Verdict.TIE if hour == 4 else Verdict.RIGHT,
            blind=hour > 3,
            mode=Mode.FAIR if hour == 5 else Mode.RACE,
        )
        store.cast(vote)
        order.append(vote.comparison)

    def found(limit: int = 50, **which: Any) -> list[int]:
        return [order.index(vote.comparison) for vote in store.recent(limit, **which)]

    assert found() == found(owner=None, blind=None) == [5, 4, 3, 2, 1, 0]
    assert found(2) == [5, 4]
    assert found(session="s1") == [5, 3, 1]
    assert found(session="s1", owner="a") == [1]
    assert found(verdict=Verdict.TIE) == [4]
    assert found(blind=True) == [5, 4] and found(blind=False) == [3, 2, 1, 0]
    assert found(mode=Mode.FAIR) == [5]
    assert found(since=begin + timedelta(hours=2), until=begin + timedelta(hours=4)) == [3, 2]
    assert store.count(blind=True) == 2


def test_only_votes_of_the_session_are_deleted(store: VoteStore) -> None:
    for number in range(7):
        store.cast(a_vote(session=("mine", "theirs", None)[number % 3]))
    assert store.delete_all(WHO, session="mine") == 3
    assert [
        store.count(),
        store.count(session="theirs"),
        store.delete_all(WHO, session="mine"),
    ] == [4, 2, 0]


def cast_all(store: VoteStore, left: Subject, right: Subject, verdicts: str) -> None:
    """Cast one vote per letter: l, r, t or b."""
    letters = {verdict.value[0]: verdict for verdict in Verdict}
    for letter in verdicts:
        store.cast(a_vote(verdict=letters[letter], left=left, right=right))


def test_votes_are_counted_by_pair_regardless_of_sides(store: VoteStore) -> None:
    a, b, c = a_subject("a"), a_subject("b"), a_subject("c")
    cast_all(store, b, a, "llrtbb")
    cast_all(store, a, b, "lllllrt")
    cast_all(store, c, b, "l")
    assert store.pairs() == [
        PairVotes(left=a, right=b, left_wins=6, right_wins=3, ties=2, both_bad=2),
        PairVotes(left=b, right=c, left_wins=0, right_wins=1, ties=0, both_bad=0),
    ]
    assert store.pairs()[0].left.title == "A"
    assert store.pairs(verdict=Verdict.TIE, session="nobody") == []


def test_subjects_are_grouped_by_the_given_fields(store: VoteStore) -> None:
    int8, int4 = a_subject("a"), a_subject("a", precision="int4")
    on_gpu, other = a_subject("a", device="GPU.0", title="Renamed"), a_subject("b")
    cast_all(store, int8, other, "l")
    cast_all(store, int4, other, "r")
    cast_all(store, other, on_gpu, "r")
    cast_all(store, int8, int4, "t")
    assert len(store.pairs()) == 4

    by_precision = store.pairs(by=("precision", "model", "weights"))
    undivided = {"device": None, "runtime": None}
    a8, b8 = replace(int8, **undivided), replace(other, **undivided)
    counted = {(p.left, p.right): (p.left_wins, p.right_wins, p.ties) for p in by_precision}
    assert counted == {
        (a8, b8): (2, 0, 0),
        (replace(int4, **undivided), b8): (0, 1, 0),
        (replace(int4, **undivided), a8): (0, 0, 1),
    }
    cast_all(store, int8, replace(int8, weights=None), "l")
    assert len(store.pairs(by=("model", "precision", "weights"))) == 4
    by_model = store.pairs(by=("model",))
    assert [(p.left.model, p.right.model, p.left_wins, p.ties) for p in by_model] == [
        ("a", "b", 2, 0),
        ("a", "a", 1, 1),
    ]


def test_the_counts_can_be_rated(store: VoteStore) -> None:
    a, b, c = a_subject("a"), a_subject("b"), a_subject("c")
    cast_all(store, a, b, "llllllllr")
    cast_all(store, c, b, "rrrrrrt")
    cast_all(store, a, replace(a, precision="int4"), "llt")
    ratings = rate(store.pairs(by=("model",)))
    assert [subject.model for subject in ratings.groups[0]] == ["a", "b", "c"]
    assert (ratings.standings[0].wins, ratings.standings[0].losses) == (8, 1)
    assert ratings.standings[0].subject.title == "A"


def test_votes_of_all_pairs_are_counted(store: VoteStore) -> None:
    chance = random.Random(6)
    subjects = [a_subject(f"m{n}", precision=p) for n in range(8) for p in ("int4", "int8", "fp32")]
    rows = []
    for number in range(10_000):
        left, right = chance.sample(subjects, 2)
        row = {
            "id": f"{number:032x}",
            "comparison": str(number),
            "created_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
            "verdict": chance.choice(list(Verdict)),
            "blind": number % 2 == 0,
            "mode": Mode.FAIR,
        }
        for side, subject in (("left", left), ("right", right)):
            row |= {f"{side}_{f.name}": getattr(subject, f.name) for f in fields(Subject)}
        rows.append(row)
    with store.database.writing() as connection:
        connection.execute(votes.insert(), rows)

    pairs = store.pairs()
    assert len(pairs) == 24 * 23 / 2
    total = sum(p.left_wins + p.right_wins + p.ties + p.both_bad for p in pairs)
    assert total == 10_000


@pytest.mark.parametrize("column", ["session", "owner"])
def test_filtered_lists_come_from_an_index_already_sorted(store: VoteStore, column: str) -> None:
    query = f"SELECT id FROM votes WHERE {column} = 'x' ORDER BY created_at DESC LIMIT 50"
    with store.database.reading() as connection:
        plan = " ".join(row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}")))
    assert f"ix_votes_{column}" in plan and "TEMP B-TREE" not in plan


# The database


def test_the_table_can_be_created_on_postgresql() -> None:
    statement = str(CreateTable(votes).compile(dialect=postgresql.dialect()))
    assert "created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL" in statement
    assert "blind BOOLEAN NOT NULL" in statement


def test_locked_database_is_reported_and_works_afterwards(tmp_path: Path) -> None:
    store = VoteStore.open(Settings(home=tmp_path), patience_s=0.2)
    vote = a_vote()
    store.cast(vote)
    with raw(tmp_path) as other:
        other.execute("BEGIN IMMEDIATE")
        for attempt in (
            lambda: store.cast(replace(vote, verdict=Verdict.RIGHT)),
            lambda: store.withdraw(vote.comparison, owner=WHO),
            lambda: store.delete_all(WHO),
        ):
            with pytest.raises(RecordsError, match=r"locked by another program\. Close it and try"):
                attempt()
        assert vote_on(store, vote.comparison) == vote, "readers do not wait for the writer"
        assert len(store.pairs()) == 1
        other.execute("ROLLBACK")
    store.cast(replace(vote, verdict=Verdict.RIGHT))
    assert vote_on(store, vote.comparison).verdict is Verdict.RIGHT


def test_threads_vote_at_once_and_no_vote_is_lost_or_doubled(store: VoteStore) -> None:
    """Each comparison gets four votes from different threads."""
    ballots = [a_vote(comparison=f"c{n % 40}", session=f"s{n}") for n in range(160)]
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(store.cast, ballots))
    assert store.count() == 40
    for number in range(40):
        assert vote_on(store, f"c{number}") in ballots[number::40]


def vote_together(home: Path, name: str, barrier: Barrier, results: multiprocessing.Queue) -> None:
    """Code of the processes that vote on shared and on own comparisons."""
    store = VoteStore.open(Settings(home=home))
    barrier.wait(PATIENCE_S)
    try:
        for number in range(30):
            store.cast(a_vote(comparison=f"shared {number}", session=name))
            store.cast(a_vote(comparison=f"{name} {number}", session=name))
        results.put("voted")
    except PaddockError as error:
        results.put(str(error))


def test_two_processes_may_vote_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    voters = [
        context.Process(target=vote_together, args=(tmp_path, name, barrier, results))
        for name in ("one", "two")
    ]
    for voter in voters:
        voter.start()
    assert [results.get(timeout=PATIENCE_S) for _ in voters] == ["voted", "voted"]
    for voter in voters:
        voter.join(PATIENCE_S)
    store = VoteStore.open(Settings(home=tmp_path))
    assert store.count() == 90
    assert None not in [vote_on(store, f"{name} 29") for name in ("shared", "one", "two")]
