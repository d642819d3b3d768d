"""What the pages show, without a browser: their data, their empty states, their sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.catalogue import Precision, catalogue
from core.records import RunResult, RunStart, RunStore
from core.settings import load_settings
from core.store import ModelStore, resolve
from tests.builders import tiny_checkpoint
from tests.records.run_samples import a_result, a_start

PATIENCE_S = 60.0


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
    app = AppTest.from_string(
        "import streamlit as st\n"
        "from core.ui.navigation import all_pages\n"
        f"pages = sorted(all_pages(), key=lambda page: page.title != {name.title()!r})\n"
        "st.navigation(pages).run()",
        default_timeout=PATIENCE_S,
    )
    app.run()
    assert not app.exception
    return app


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


def test_metrics_page_without_a_run_says_so() -> None:
    assert "Nothing has been measured yet" in texts(page("metrics"))


def test_metrics_page_charts_the_median_of_each_configuration(runs: RunStore) -> None:
    for precision, rate in [("int8", 40.0), ("int8", 44.0), ("int8", 90.0), ("int4", 60.0)]:
        runs.add(*a_run(precision, rate, contended=False))
    app = page("metrics")
    chart = json.loads(app.get("plotly_chart")[0].proto.spec)
    labels = ["Dolly 2.0 3B · INT4 · CPU", "Dolly 2.0 3B · INT8 · CPU"]
    assert chart["data"][0]["y"] == labels
    assert chart["data"][0]["x"] == [60.0, 44.0]
    assert sorted(chart["data"][1]["x"]) == [40.0, 44.0, 60.0, 90.0]
    assert chart["layout"]["xaxis"]["rangemode"] == "tozero"
    memory = json.loads(app.get("plotly_chart")[1].proto.spec)
    assert [bar["x"] for bar in memory["data"]] == [[100.0, 100.0], [50.0, 50.0]]
    assert len(app.dataframe[0].value) == 4


def test_metrics_page_leaves_contended_answers_out_until_asked(runs: RunStore) -> None:
    runs.add(*a_run("int8", 40.0, contended=False))
    runs.add(*a_run("int8", 4.0, contended=True))
    app = page("metrics")
    assert len(app.dataframe[0].value) == 1
    app.toggle[0].set_value(True).run()
    table = app.dataframe[0].value
    assert sorted(table["Contended"]) == [False, True]


def test_models_page_lists_the_catalogue_and_its_facts() -> None:
    app = page("models")
    shown = texts(app)
    for row in catalogue().values():
        assert row.summary in shown
    assert shown.count("No published score is recorded.") == sum(
        not row.scores for row in catalogue().values()
    )
    assert "None is recorded." in shown


def test_models_page_searches() -> None:
    app = page("models")
    app.text_input[0].set_value("mistral").run()
    assert catalogue()["mistral-7b"].summary in texts(app)
    assert catalogue()["phi-2"].summary not in texts(app)
    app.text_input[0].set_value("no such thing").run()
    assert "No model of the catalogue matches." in texts(app)


def test_models_page_deletes_what_is_on_disk(tmp_path: Path) -> None:
    store = ModelStore(load_settings())
    folder = tiny_checkpoint("gpt_neox", tmp_path / "mine")
    stored = store.ensure(resolve(str(folder)), Precision.FP32)
    app = page("models")
    assert "**FP32** mine" in texts(app)
    button = next(each for each in app.button if each.label == "Delete it")
    button.click().run()
    assert not stored.folder.exists()
    assert "**FP32** mine" not in texts(app)


def test_account_page_counts_and_deletes_this_session_only(runs: RunStore) -> None:
    runs.add(*a_run("int8", 40.0))  # of another session
    app = page("account")
    assert [metric.value for metric in app.metric[:2]] == ["1", "0"]


def test_compare_page_offers_two_different_models() -> None:
    app = page("compare")
    left, right = (each for each in app.selectbox if each.label == "Model")
    assert (left.value, right.value) == ("paddock-neox", "paddock-llama")


def test_compare_page_refuses_an_empty_instruction() -> None:
    app = page("compare")
    next(each for each in app.button if each.label == "Run both").click().run()
    assert not app.exception
    assert "The instruction is empty" in app.warning[0].value


def test_compare_page_answers_on_both_sides_with_one_seed(runs: RunStore) -> None:
    app = page("compare")
    next(each for each in app.text_area if each.label == "Instruction").set_value("Name a cat.")
    next(each for each in app.slider if each.label == "Max new tokens").set_value(8)
    next(each for each in app.button if each.label == "Run both").click().run()
    assert not app.exception
    rows = runs.recent()
    assert {row.start.model for row in rows} == {"paddock-neox", "paddock-llama"}
    assert len({row.start.seed for row in rows}) == 1
    assert not any(row.result is None or row.result.contended for row in rows)
    shown = texts(app)
    assert shown.count("ended:") == 2


def test_a_database_that_cannot_be_opened_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_DATABASE_URL", "sqlite:////proc/nowhere/paddock.db")
    for name in ("metrics", "account"):
        app = page(name)
        assert app.error, name
