"""What the pages show, without a browser: their data, their empty states, their sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.records import RunResult, RunStart, RunStore
from core.settings import load_settings
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


def test_account_page_counts_and_deletes_this_session_only(runs: RunStore) -> None:
    runs.add(*a_run("int8", 40.0))  # of another session
    app = page("account")
    assert [metric.value for metric in app.metric[:2]] == ["1", "0"]


def test_a_database_that_cannot_be_opened_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_DATABASE_URL", "sqlite:////proc/nowhere/paddock.db")
    for name in ("metrics", "account"):
        app = page(name)
        assert app.error, name
