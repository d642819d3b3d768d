"""Store of conversations: instructions with their answers, per account or guest's browser."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, func, or_, select, update

from core.db.account_values import Holder
from core.db.accounts import check_owner
from core.db.columns import storable_text
from core.db.database import Store
from core.db.rows import from_row, to_row
from core.db.run_values import ConversationSummary, ExchangeRow, utc_now
from core.db.tables import conversations, exchanges

TITLE_CHARACTERS = 60


class ConversationStore(Store):
    """Reads and writes ``conversations`` and ``exchanges``.

    A conversation of another holder is treated like one that does not exist.
    """

    def list(
        self, holder: Holder, search: str = "", *, limit: int = 50
    ) -> list[ConversationSummary]:
        """Return the latest conversations, newest first.

        Args:
            search: text that the title, an instruction, a context passage or an answer contains,
                ignoring case.
        """
        statement = summaries(ConversationSummary, conversations, holder)
        if search.strip():
            pattern = storable_text(search.strip().lower())
            found = [
                func.lower(column).contains(pattern, autoescape=True)
                for column in (exchanges.c.instruction, exchanges.c.context, exchanges.c.text)
            ]
            statement = statement.where(
                or_(
                    func.lower(conversations.c.title).contains(pattern, autoescape=True),
                    conversations.c.id.in_(select(exchanges.c.conversation).where(or_(*found))),
                )
            )
        statement = statement.order_by(conversations.c.changed_at.desc()).limit(limit)
        return self.database.all(ConversationSummary, statement)

    def title(self, conversation: str, holder: Holder) -> str | None:
        """Return the title of a conversation; None if there is none."""
        this = held_row(conversations, conversation, holder)
        return self.database.value(select(conversations.c.title).where(this))

    def exchanges(self, conversation: str, holder: Holder) -> list[ExchangeRow] | None:
        """Return the exchanges of a conversation, oldest first; None if there is none."""
        mine = select(conversations.c.id).where(held_row(conversations, conversation, holder))
        statement = (
            select(exchanges)
            .where(exchanges.c.conversation == conversation)
            .order_by(exchanges.c.asked_at, exchanges.c.id)
        )
        with self.database.reading() as connection:
            if connection.execute(mine).first() is None:
                return None
            rows = connection.execute(statement).mappings()
            return [from_row(ExchangeRow, row) for row in rows]

    def exchange(self, exchange: str) -> ExchangeRow | None:
        """Return an exchange that was read before, as it is now; None if it was deleted."""
        statement = select(exchanges).where(exchanges.c.id == exchange)
        return self.database.first(ExchangeRow, statement)

    def add(self, conversation: str | None, exchange: ExchangeRow, holder: Holder) -> str:
        """Append an exchange whose answer has not ended.

        Args:
            conversation: None to begin a new one.

        Returns:
            The id of the conversation; a new one if the old one was deleted.

        Raises:
            RecordsError: the owner's account was deleted, or the database fails.
        """
        now = utc_now()
        with self.database.writing() as connection:
            check_owner(connection, holder.owner)
            this = held_row(conversations, conversation or "", holder)
            changed = update(conversations).where(this)
            if not connection.execute(changed.values(changed_at=now)).rowcount:
                conversation = uuid.uuid4().hex
                connection.execute(
                    conversations.insert().values(
                        id=conversation,
                        **to_row(holder),
                        title=_title(exchange.instruction),
                        created_at=now,
                        changed_at=now,
                    )
                )
            row = to_row(exchange) | {"conversation": conversation}
            connection.execute(exchanges.insert().values(row))
        assert conversation is not None, "one was found or inserted"
        return conversation

    def finish(
        self, exchange: str, *, run: str | None, text: str, answer: Mapping[str, Any] | None
    ) -> bool:
        """Store the answer of an exchange; return False if it was deleted in the meantime.

        Args:
            answer: None while it is generated.
        """
        values = {"run": run, "text": text, "answer": answer}
        this = update(exchanges).where(exchanges.c.id == exchange)
        return self.database.change(this.values(values)) > 0

    def rename(self, conversation: str, title: str, holder: Holder) -> None:
        """Change the title; an empty one is ignored."""
        if short := _title(title):
            statement = update(conversations).where(held_row(conversations, conversation, holder))
            self.database.change(statement.values(title=short))

    def delete(self, conversation: str, holder: Holder) -> None:
        """Delete a conversation with its exchanges."""
        this = held_row(conversations, conversation, holder)
        self.database.change(conversations.delete().where(this))

    def delete_exchange(self, exchange: str, conversation: str, holder: Holder) -> None:
        """Delete one exchange of a conversation."""
        mine = select(conversations.c.id).where(held_row(conversations, conversation, holder))
        this = exchanges.c.id == exchange, exchanges.c.conversation.in_(mine)
        self.database.change(exchanges.delete().where(*this))

    def delete_all(self, holder: Holder) -> int:
        """Delete all conversations of a holder and return their number."""
        return self.database.change(conversations.delete().where(held(conversations, holder)))


def held(table: Table, holder: Holder) -> ColumnElement[bool]:
    """Return the condition that rows belong to a holder."""
    return and_(table.c.owner == holder.owner, table.c.browser == holder.browser)


def held_row(table: Table, row_id: str, holder: Holder) -> ColumnElement[bool]:
    """Return the condition of one row, which belongs to a holder."""
    return and_(table.c.id == row_id, held(table, holder))


def summaries(kind: type, table: Table, holder: Holder) -> Select[Any]:
    """Return the query for what a dataclass has of a holder's rows."""
    return select(*(table.c[f.name] for f in fields(kind))).where(held(table, holder))


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARACTERS else f"{line[: TITLE_CHARACTERS - 1]}…"
