"""Test sets page without a browser: adding, editing, running, permissions, errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import core.inference.engine
from core.db import EvaluationStore, Holder
from core.errors import RecordsError
from core.evaluation.cases import Case, TestSet, content_of
from core.runtimes.spec import RuntimeName
from core.server.visitor import Visitor
from core.ui.widgets import person
from core.ui.widgets.resources import shared_engine, shared_evaluations
from tests.browser.scripted import STAGES, Script, ScriptedRuntime, scripted_conversion
from tests.pages.app import button, open_page, texts
from tests.waiting import PATIENCE_S

HOLDER = Holder("guest", "a browser")
MODELS = {"t1_model": "paddock-neox", "t2_model": "paddock-llama"}


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace the runtimes by scripted ones."""
    runtimes = dict.fromkeys(RuntimeName, ScriptedRuntime())
    monkeypatch.setattr(core.inference.engine, "default_runtimes", lambda settings: runtimes)
    monkeypatch.setattr(core.inference.engine, "convert_in_process", scripted_conversion)
    STAGES.clear()
    STAGES["paddock-neox"].put(Script("It is Paris."))
    STAGES["paddock-llama"].put(Script("It is Rome."))
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def wait_for_the_run(app: AppTest) -> AppTest:
    for run in list(shared_evaluations()._runs.values()):
        assert run.wait(PATIENCE_S)
    app.run()
    assert not app.exception
    return app


def test_set_is_added_run_pinned_and_a_regression_is_shown() -> None:
    app = open_page("test sets", **MODELS)
    assert "No test set yet" in "".join(each.value for each in app.subheader)
    button(app, "An empty set").click().run()
    button(app, "Run 1 case on 2 candidates").click().run()
    wait_for_the_run(app)
    (scores,) = [each.value for each in app.table]
    assert list(scores["Passed"]) == ["**100%** (21–100%) · 1 of 1", "**0%** (0–79%) · 0 of 1"]
    assert "Cannot be told apart with 1 case " in scores["Compared with A"][1]
    matrix = next(each.value for each in app.dataframe if "#" in each.value)
    assert (matrix["A"][0], matrix["B"][0]) == ("✓ pass", "✗ fail")
    app.button(key="pin_run").click().run()
    STAGES["paddock-neox"].put(Script("It is Lyon."))
    shared_engine().pool.close()
    button(app, "Run 1 case on 2 candidates").click().run()
    wait_for_the_run(app)
    (scores,) = [each.value for each in app.table]
    assert "1 regressed, 0 mended" in scores["Since the baseline"][0]
    assert scores["Since the baseline"][1] == "0 regressed, 0 mended"
    assert not app.error and not app.warning


def test_changes_are_stored_and_broken_checks_are_named(
    monkeypatch: pytest.MonkeyPatch, visitor: Visitor
) -> None:
    here = replace(visitor, browser=HOLDER.browser)
    monkeypatch.setattr(person, "_current_visitor", lambda: here)
    app = open_page("test sets", **MODELS)
    button(app, "An empty set").click().run()
    (name,) = [each for each in app.text_input if each.label == "Name"]
    name.set_value("Ours").run()
    checks = next(each for each in app.multiselect if each.label.startswith("Checks"))
    assert checks.value == ["ends", "f1: 0.3"]
    (summary,) = shared_engine().evaluations.sets(HOLDER)
    assert summary.name == "Ours"
    stored = TestSet.model_validate(shared_engine().evaluations.get_set(summary.id, HOLDER))
    broken = TestSet(
        name="Ours", cases=(Case(instruction="x", checks=("regex: (",)), *stored.cases)
    )
    shared_engine().evaluations.save_set(summary.id, HOLDER, "Ours", content_of(broken), 2)
    del app.session_state["set_edited"]
    app.run()
    assert "not a valid regular expression" in texts(app)


def test_locked_database_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> None:
        raise RecordsError("The run database is locked by another program. Close it.")

    app = open_page("test sets", **MODELS)
    monkeypatch.setattr(EvaluationStore, "save_set", locked)
    button(app, "An empty set").click().run()
    assert [each.value for each in app.toast] == [
        "The run database is locked by another program. Close it."
    ]
    monkeypatch.setattr(EvaluationStore, "sets", locked)
    app.run()
    assert [each.value for each in app.error] == [
        "The run database is locked by another program. Close it."
    ]


def test_user_without_the_permission_cannot_run_what_must_be_downloaded(
    without_rights: Visitor,
) -> None:
    app = open_page("test sets", t1_model="smollm2-1.7b-instruct", candidates="1")
    button(app, "An empty set").click().run()
    button(app, "Run 1 case on 1 candidate").click().run()
    assert "Ask a user with the Manage permission" in app.error[0].value
    assert not shared_evaluations()._runs


def test_kiosk_has_no_test_sets(monkeypatch: pytest.MonkeyPatch, visitor: Visitor) -> None:
    at_a_stand = replace(visitor, access=replace(visitor.access, manage=False, kiosk=True))
    monkeypatch.setattr(person, "_current_visitor", lambda: at_a_stand)
    app = open_page("test sets")
    assert "not available in kiosk mode" in texts(app) and not app.button
