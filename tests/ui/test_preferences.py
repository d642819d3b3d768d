"""Saved settings are restored per account in other browsers; parameters in the URL win."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.db import Account
from core.server.visitor import Visitor
from core.ui.widgets import person as module
from core.ui.widgets.resources import shared_engine
from tests.waiting import PATIENCE_S

PASSWORD = "kettle-marsh-violin"


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def page() -> None:
    import streamlit as st

    from core.ui.widgets.link import link_choice, number_in
    from core.ui.widgets.person import person
    from core.ui.widgets.preferences import recall, remember
    from core.ui.widgets.resources import shared_engine

    recall(shared_engine, person())
    link_choice("tokens", 256, number_in(1, 1000))
    link_choice("seed", 0, number_in(0, 99))
    st.slider("Tokens", 1, 1000, key="tokens", persist_state="session")
    st.slider("Seed", 0, 99, key="seed", persist_state="session")
    if st.button("Run"):
        remember(shared_engine(), person())


def account(name: str) -> Account:
    return shared_engine().accounts.make_administrator(name, PASSWORD)


def opened_by(
    who: Account | None, visitor: Visitor, monkeypatch: pytest.MonkeyPatch, **link: str
) -> AppTest:
    """Return the page in a new browser of this account, or of a guest."""
    monkeypatch.setattr(module, "_current_visitor", lambda: replace(visitor, account=who))
    app = AppTest.from_function(page, default_timeout=PATIENCE_S)
    app.query_params.update(link)
    app.run()
    assert not app.exception
    return app


def shown(app: AppTest) -> tuple[int, int]:
    return app.slider[0].value, app.slider[1].value


def test_settings_are_restored_per_account(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bo = account("Ada"), account("Bo")
    app = opened_by(ada, visitor, monkeypatch)
    app.slider[0].set_value(77)
    app.slider[1].set_value(9).run()
    app.button[0].click().run()
    assert shown(opened_by(ada, visitor, monkeypatch)) == (77, 0), "a seed is not saved"
    assert shown(opened_by(bo, visitor, monkeypatch)) == (256, 0)
    assert shown(opened_by(None, visitor, monkeypatch)) == (256, 0)
    assert shown(opened_by(ada, visitor, monkeypatch, seed="5")) == (256, 5), "a link wins"


def test_settings_of_guests_are_not_saved(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened_by(None, visitor, monkeypatch)
    app.slider[0].set_value(77).run()
    app.button[0].click().run()
    assert shown(opened_by(None, visitor, monkeypatch)) == (256, 0)


def test_invalid_saved_settings_are_ignored(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = account("Ada")
    shared_engine().accounts.save_preferences(ada.id, {"tokens": "5000", "model": "gone"})
    assert shown(opened_by(ada, visitor, monkeypatch)) == (256, 0)
