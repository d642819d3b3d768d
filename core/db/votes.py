"""Store of votes: one row for every pair of answers that a user voted on."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack, get_args

from sqlalchemy import ColumnElement, RowMapping, func, or_, select, update

from core.db.accounts import check_owner
from core.db.database import PATIENCE_S, Database
from core.db.tables import votes
from core.db.vote_values import (
    CompareMode,
    PairVotes,
    Subject,
    Verdict,
    Vote,
    VoteRecord,
    checked_comment,
)
from core.settings import Settings

Trait = Literal["model", "precision", "device", "runtime", "weights"]
"""Field by which subjects are grouped."""
ALL_TRAITS: tuple[Trait, ...] = get_args(Trait)

_SIDES = ("left", "right")
_PLAIN = tuple(f.name for f in fields(Vote) if f.name not in _SIDES)
"""Fields of a vote with a column of the same name; each side has one column per field."""


class VoteFilter(TypedDict, total=False):
    """Filter for votes; missing fields and None do not restrict."""

    session: str | None
    owner: str | None
    model: str | None
    """On either side."""
    verdict: Verdict | None
    blind: bool | None
    mode: CompareMode | None
    since: datetime | None
    """Cast at this time or later; with a time zone."""
    until: datetime | None
    """Cast before this time; with a time zone."""


class VoteStore:
    """Reads and writes ``votes``. Thread-safe.

    Every method raises :class:`core.errors.RecordsError` if the database fails; its text is shown
    to the user.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, settings: Settings, *, patience_s: float = PATIENCE_S) -> VoteStore:
        """Open the database of these settings; see :meth:`Database.open`."""
        return cls(Database.open(settings, patience_s=patience_s))

    def cast(self, vote: Vote) -> str:
        """Insert a vote, or replace the user's earlier one on the same comparison; return its id.

        Raises:
            BadRequestError: the comment is too long.
            RecordsError: another user has a vote on a comparison with this id, or the account was
                deleted.
        """
        row = _row(vote) | {"comment": checked_comment(vote.comment)}
        own = (votes.c.comparison == vote.comparison, votes.c.owner == vote.owner)
        changed = update(votes).where(*own).values(row)
        with self.database.writing() as connection:
            check_owner(connection, vote.owner)
            if connection.execute(changed).rowcount == 0:
                connection.execute(votes.insert().values(row | {"id": uuid.uuid4().hex}))
            return connection.execute(
                select(votes.c.id).where(votes.c.comparison == vote.comparison)
            ).scalar_one()

    def withdraw(self, comparison: str, *, owner: str) -> bool:
        """Delete a user's vote on a comparison; return False if there is none."""
        own = (votes.c.comparison == comparison, votes.c.owner == owner)
        statement = votes.delete().where(*own)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def delete_all(self, owner: str, *, session: str | None = None) -> int:
        """Delete an owner's votes, of one browser session or all, and return their number."""
        statement = votes.delete().where(votes.c.owner == owner)
        if session is not None:
            statement = statement.where(votes.c.session == session)
        with self.database.writing() as connection:
            return connection.execute(statement).rowcount

    def get(self, comparison: str, *, owner: str) -> VoteRecord | None:
        """Return a user's vote on a comparison, or None."""
        own = (votes.c.comparison == comparison, votes.c.owner == owner)
        statement = select(votes).where(*own)
        with self.database.reading() as connection:
            row = connection.execute(statement).mappings().first()
        return None if row is None else _record(row)

    def recent(self, limit: int = 50, **which: Unpack[VoteFilter]) -> list[VoteRecord]:
        """Return the latest votes that match, newest first."""
        statement = (
            select(votes)
            .where(*_conditions(which))
            .order_by(votes.c.created_at.desc(), votes.c.id)
            .limit(limit)
        )
        with self.database.reading() as connection:
            return [_record(row) for row in connection.execute(statement).mappings()]

    def count(self, **which: Unpack[VoteFilter]) -> int:
        """Return the number of votes that match."""
        statement = select(func.count()).select_from(votes).where(*_conditions(which))
        with self.database.reading() as connection:
            return connection.execute(statement).scalar_one()

    def pairs(
        self,
        by: Sequence[Trait] = ALL_TRAITS,
        *,
        name: Callable[[str], str] = str,
        **which: Unpack[VoteFilter],
    ) -> list[PairVotes]:
        """Count the votes that match for each pair of subjects, in the database.

        Args:
            by: fields by which subjects are grouped, including "model". With
                ``("model", "precision")``, votes on all devices of a model and precision count
                together.
            name: maps the names that votes of earlier versions have for a model to its key.
            which: see :class:`VoteFilter`.

        Returns:
            Pairs, the one with the most votes first. Both sides can be the same subject, for
            example if two devices were compared and ``by`` does not include the device.
        """
        traits = [trait for trait in ALL_TRAITS if trait in by]
        if "model" not in traits or len(traits) != len(set(by)):
            raise ValueError(f'votes are grouped by "model" and others of {ALL_TRAITS}, not {by}')
        keys = [votes.c[f"{side}_{trait}"] for side in _SIDES for trait in traits]
        titles = [func.max(votes.c[f"{side}_title"]).label(f"{side}_title") for side in _SIDES]
        statement = (
            select(*keys, votes.c.verdict, *titles, func.count().label("votes"))
            .where(*_conditions(which))
            .group_by(*keys, votes.c.verdict)
        )
        with self.database.reading() as connection:
            rows = connection.execute(statement).mappings().all()
        return _merged(rows, name)

    def close(self) -> None:
        """Close the idle connections of the database."""
        self.database.close()


def _merged(rows: Sequence[RowMapping], name: Callable[[str], str]) -> list[PairVotes]:
    """Merge the counts of both orders of a pair, in alphabetical order."""
    mirror = {Verdict.LEFT: Verdict.RIGHT, Verdict.RIGHT: Verdict.LEFT}
    counts: dict[tuple[Subject, Subject], Counter[Verdict]] = {}
    for row in rows:
        left, right = (
            replace(each, model=name(each.model))
            for each in (_subject(row, "left"), _subject(row, "right"))
        )
        verdict = row["verdict"]
        if _order(right) < _order(left):
            left, right, verdict = right, left, mirror.get(verdict, verdict)
        counts.setdefault((left, right), Counter())[verdict] += row["votes"]
    pairs = [
        PairVotes(
            left=left,
            right=right,
            left_wins=of[Verdict.LEFT],
            right_wins=of[Verdict.RIGHT],
            ties=of[Verdict.TIE],
            both_bad=of[Verdict.BOTH_BAD],
        )
        for (left, right), of in counts.items()
    ]
    return sorted(pairs, key=lambda pair: (-_total(pair), _order(pair.left), _order(pair.right)))


def _total(pair: PairVotes) -> int:
    return pair.left_wins + pair.right_wins + pair.ties + pair.both_bad


def _order(subject: Subject) -> tuple[str, ...]:
    return tuple(getattr(subject, trait) or "" for trait in ALL_TRAITS)


def _row(vote: Vote) -> dict[str, Any]:
    row = {name: getattr(vote, name) for name in _PLAIN}
    for side in _SIDES:
        subject = getattr(vote, side)
        row |= {f"{side}_{f.name}": getattr(subject, f.name) for f in fields(Subject)}
    return row


def _subject(row: RowMapping, side: str) -> Subject:
    return Subject(**{f.name: row.get(f"{side}_{f.name}") for f in fields(Subject)})


def _record(row: RowMapping) -> VoteRecord:
    plain = {name: row[name] for name in _PLAIN}
    sides = {side: _subject(row, side) for side in _SIDES}
    return VoteRecord(row["id"], Vote(**plain, **sides))


def _conditions(which: VoteFilter) -> list[ColumnElement[bool]]:
    unknown = which.keys() - VoteFilter.__annotations__.keys()
    if unknown:
        raise TypeError(f"votes cannot be filtered by {', '.join(sorted(unknown))}")
    conditions = []
    for name, value in which.items():
        if value is None:
            continue
        if name == "since":
            conditions.append(votes.c.created_at >= value)
        elif name == "until":
            conditions.append(votes.c.created_at < value)
        elif name == "model":
            conditions.append(or_(votes.c.left_model == value, votes.c.right_model == value))
        else:
            conditions.append(votes.c[name] == value)
    return conditions
