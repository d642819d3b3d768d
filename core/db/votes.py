"""Store of votes: one row for every pair of answers that a user voted on."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, get_args

from sqlalchemy import RowMapping, delete, func, select, update

from core.db.accounts import check_owner
from core.db.database import Store
from core.db.rows import conditions, to_row
from core.db.tables import votes
from core.db.vote_values import PairVotes, Subject, Verdict, Vote, checked_comment

Trait = Literal["model", "precision", "device", "runtime", "weights"]
"""Field by which subjects are grouped."""
ALL_TRAITS: tuple[Trait, ...] = get_args(Trait)

_SIDES = ("left", "right")


class VoteStore(Store):
    """Reads and writes ``votes``; the text of its errors is shown to the user.

    Lists are filtered by columns, such as ``owner`` or ``blind``.
    """

    def cast(self, vote: Vote) -> None:
        """Insert a vote, or replace the user's earlier one on the same comparison.

        Raises:
            BadRequestError: the comment is too long.
            RecordsError: another user has a vote on a comparison with this id, or the account was
                deleted.
        """
        row = to_row(vote) | {"comment": checked_comment(vote.comment)}
        this = update(votes).filter_by(comparison=vote.comparison, owner=vote.owner)
        with self.database.writing() as connection:
            check_owner(connection, vote.owner)
            if connection.execute(this.values(row)).rowcount == 0:
                connection.execute(votes.insert().values(row | {"id": uuid.uuid4().hex}))

    def withdraw(self, comparison: str, *, owner: str) -> bool:
        """Delete a user's vote on a comparison; return False if there is none."""
        this = delete(votes).filter_by(comparison=comparison, owner=owner)
        return self.database.change(this) > 0

    def delete_all(self, owner: str, *, session: str | None = None) -> int:
        """Delete an owner's votes, of one browser session or all, and return their number."""
        own = conditions(votes, "created_at", {"owner": owner, "session": session})
        return self.database.change(votes.delete().where(*own))

    def recent(self, limit: int = 50, **which: Any) -> list[Vote]:
        """Return the latest votes that match, newest first."""
        statement = (
            select(votes)
            .where(*conditions(votes, "created_at", which))
            .order_by(votes.c.created_at.desc(), votes.c.id)
            .limit(limit)
        )
        return self.database.all(Vote, statement)

    def count(self, **which: Any) -> int:
        """Return the number of votes that match."""
        matching = conditions(votes, "created_at", which)
        return self.database.value(select(func.count()).select_from(votes).where(*matching))

    def pairs(
        self, by: Sequence[Trait] = ALL_TRAITS, *, name: Callable[[str], str] = str, **which: Any
    ) -> list[PairVotes]:
        """Count the votes that match for each pair of subjects, in the database.

        Args:
            by: fields by which subjects are grouped, including "model". With
                ``("model", "precision")``, votes on all devices of a model and precision count
                together.
            name: maps the names that votes of earlier versions have for a model to its key.

        Returns:
            Pairs, the one with the most votes first. Both sides can be the same subject, for
            example if two devices were compared and ``by`` does not include the device.
        """
        keys = [votes.c[f"{side}_{trait}"] for side in _SIDES for trait in by]
        titles = [func.max(votes.c[f"{side}_title"]).label(f"{side}_title") for side in _SIDES]
        statement = (
            select(*keys, votes.c.verdict, *titles, func.count().label("votes"))
            .where(*conditions(votes, "created_at", which))
            .group_by(*keys, votes.c.verdict)
        )
        return _merged(self.database.rows(statement), name)


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
    return sorted(pairs, key=lambda pair: (-pair.votes, _order(pair.left), _order(pair.right)))


def _order(subject: Subject) -> tuple[str, ...]:
    return tuple(getattr(subject, trait) or "" for trait in ALL_TRAITS)


def _subject(row: RowMapping, side: str) -> Subject:
    return Subject(**{f.name: row.get(f"{side}_{f.name}") for f in fields(Subject)})
