"""Tuning on the Metrics page in AppTest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.benchmark.lock import BenchmarkLock
from core.benchmark.tuning import TuningRun
from core.catalogue import Precision
from core.runtimes.spec import ExecutionHints, ModelSpec, RuntimeName
from core.runtimes.tuned_hints import Tuned, TuningKey
from core.store.stored import StoredModel
from core.ui.widgets.resources import shared_engine, shared_tuning
from tests.fakes import stored_model, two_folders_of_one_title
from tests.pages.app import button, texts
from tests.waiting import PATIENCE_S

SPEC = ModelSpec("paddock-neox", Precision.INT8, "CPU")
TUNED = Tuned(
    key=TuningKey.here("paddock-neox", Precision.INT8, "CPU", RuntimeName.GENAI),
    hints=ExecutionHints(inference_precision="f32", dynamic_quantization_group=0),
    gain=1.25,
    tokens_per_s=125.0,
    usual_tokens_per_s=100.0,
    perplexity_ratio=1.0012,
    measured_at="2026-01-01T00:00:00+00:00",
)


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    shared_tuning().close()
    shared_engine().close()
    st.cache_resource.clear()


def opened(
    monkeypatch: pytest.MonkeyPatch, *, models: Sequence[StoredModel] = (stored_model(SPEC),)
) -> AppTest:
    """Return an app with only the expanded tuning section."""
    engine = shared_engine()
    monkeypatch.setattr(engine.store, "list", lambda: models)

    app = AppTest.from_string(
        "import streamlit as st\n"
        "from core.ui.widgets.resources import shared_engine\n"
        "from core.ui.metrics.tuning import draw_tuning\n"
        "from core.ui.widgets.actions import draw_messages\n"
        "draw_messages()\n"
        "st.session_state['tuning'] = True\n"
        "draw_tuning(shared_engine())",
        default_timeout=PATIENCE_S,
    )
    app.run()
    assert not app.exception, app.exception
    return app


def test_without_a_model_there_is_nothing_to_tune(monkeypatch):
    app = opened(monkeypatch, models=())
    assert "No model is on disk yet" in texts(app)
    assert not app.button


def test_tune_starts_tuning_or_shows_an_error(monkeypatch):
    started: list[ModelSpec] = []
    engine = shared_engine()
    app = opened(monkeypatch)
    with BenchmarkLock(engine.settings).acquire():
        button(app, "Tune").click().run()
        assert "Another benchmark is already running" in texts(app)
    monkeypatch.setattr(shared_tuning(), "start", started.append)
    app.run()
    button(app, "Tune").click().run()
    assert started == [replace(SPEC, runtime=RuntimeName.GENAI)]


def test_folders_with_the_same_title_are_distinguished(monkeypatch):
    app = opened(monkeypatch, models=two_folders_of_one_title())
    assert app.selectbox(key="tune_model").options == [
        "mini (a) · INT8",
        "mini (b) · INT8",
    ]


def test_running_tuning_can_be_stopped(monkeypatch):
    run = TuningRun(SPEC, "paddock-neox")
    run.message, run.share = "Trying 1 thread.", 0.5
    shared_tuning().current = run
    app = opened(monkeypatch)
    assert [each.label for each in app.button] == ["Stop"]
    run._done.set()


def test_results_are_shown_and_can_be_removed(monkeypatch):
    engine = shared_engine()
    engine.tuned.keep(TUNED)
    app = opened(monkeypatch)
    assert "**× 1.25** (100 tokens/s → 125 tokens/s), perplexity × 1.0012" in texts(app)
    assert "activations unquantised" in texts(app)
    button(app, "Forget").click().run()
    assert engine.tuned.all() == []
    assert "× 1.25" not in texts(app)


def test_a_second_click_on_forget_removes_no_other_result(monkeypatch):
    engine = shared_engine()
    other = replace(TUNED, key=replace(TUNED.key, model="paddock-llama"))
    engine.tuned.keep(TUNED)
    engine.tuned.keep(other)
    app = opened(monkeypatch)
    forget, kept = (each.key for each in app.button if each.label == "Forget")
    app.button(key=forget).click().run()
    assert [each.key for each in app.button if each.label == "Forget"] == [kept]
    assert engine.tuned.all() == [other]


def test_it_is_collapsed_at_first():
    app = AppTest.from_string(
        "from core.ui.widgets.resources import shared_engine\n"
        "from core.ui.metrics.tuning import draw_tuning\n"
        "draw_tuning(shared_engine())",
        default_timeout=PATIENCE_S,
    ).run()
    assert not app.exception and not app.button
