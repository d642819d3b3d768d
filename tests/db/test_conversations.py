"""Store of conversations: who sees what, search, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from core.db import ConversationStore, ExchangeRow, Holder, RunStore
from core.db.conversations import TITLE_CHARACTERS
from core.db.run_values import utc_now
from core.settings import load_settings

MINE, OTHERS = Holder(browser="mine"), Holder(browser="other")
ROW = ExchangeRow("e1", utc_now(), "Why is the sky blue?", "", {"title": "Tiny"})


@pytest.fixture
def store() -> Iterator[ConversationStore]:
    runs = RunStore.open(load_settings())
    yield ConversationStore(runs.database)
    runs.close()


def second(row: ExchangeRow = ROW, **changes: object) -> ExchangeRow:
    return replace(row, id="e2", asked_at=row.asked_at + timedelta(seconds=1), **changes)


def test_exchanges_are_read_in_their_order_with_their_answers(store: ConversationStore) -> None:
    conversation = store.add(None, ROW, MINE)
    assert store.add(conversation, second(), MINE) == conversation
    assert store.finish("e1", run="r1", text="Rayleigh.", answer={"seed": 7})
    first, other = store.exchanges(conversation, MINE) or []
    assert first == replace(ROW, run="r1", text="Rayleigh.", answer={"seed": 7})
    assert (other.id, other.answer, other.text) == ("e2", None, None)


def test_a_browser_sees_and_changes_only_its_own(store: ConversationStore) -> None:
    conversation = store.add(None, ROW, MINE)
    assert store.list(OTHERS) == []
    assert store.exchanges(conversation, OTHERS) is None
    store.rename(conversation, "Stolen", OTHERS)
    store.delete_exchange("e1", conversation, OTHERS)
    store.delete(conversation, OTHERS)
    assert store.add(conversation, second(), OTHERS) != conversation
    assert [each.title for each in store.list(MINE)] == ["Why is the sky blue?"]
    assert len(store.exchanges(conversation, MINE) or []) == 1


@pytest.mark.parametrize("search", ["SKY", "passage", "rayleigh", "renamed", "100%", "ÄTHER"])
def test_search_finds_titles_questions_passages_and_answers(
    store: ConversationStore, search: str
) -> None:
    wanted = store.add(None, replace(ROW, context="A passage of 100% air"), MINE)
    store.finish("e1", run=None, text="Rayleigh scattering, no äther.", answer={})
    store.rename(wanted, "Renamed", MINE)
    store.add(None, second(instruction="Something else with 1000"), MINE)
    assert [each.id for each in store.list(MINE, search)] == [wanted]


def test_title_is_one_short_line_and_never_empty(store: ConversationStore) -> None:
    conversation = store.add(None, replace(ROW, instruction="A\n line " * 50), MINE)
    (listed,) = store.list(MINE)
    assert len(listed.title) == TITLE_CHARACTERS and "\n" not in listed.title
    store.rename(conversation, "  ", MINE)
    assert store.list(MINE) == [listed]


def test_deleting_a_conversation_deletes_its_exchanges(store: ConversationStore) -> None:
    conversation = store.add(None, ROW, MINE)
    store.delete(conversation, MINE)
    assert store.list(MINE) == [] and store.exchanges(conversation, MINE) is None
    assert not store.finish("e1", run=None, text="Late.", answer={})
