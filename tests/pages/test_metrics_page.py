"""The Metrics page in AppTest: data of the charts, filter, messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.benchmark.plan import Plan
from core.db import RunStart, RunStore, Subject, VoteStore
from core.db.measurement_values import MeasurementState, SweepState
from core.db.measurements import MeasurementStore
from core.db.vote_values import Mode, Verdict, Vote
from core.metrics.document import from_json, to_json
from core.metrics.rows import PointFilter
from core.metrics.tables import CSV_MARK
from core.settings import load_settings
from core.ui.metrics.data import read_data
from core.ui.metrics.files import answers_csv
from core.ui.widgets.resources import shared_engine
from tests.db.measurement_samples import an_int4
from tests.db.run_samples import a_result, a_start
from tests.fakes import two_folders_of_one_title
from tests.hostile import active
from tests.metrics.row_samples import a_host, a_measurement, a_quality
from tests.pages.app import charts, open_page, texts


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    shared_engine().close()
    st.cache_resource.clear()


@pytest.fixture
def runs() -> Iterator[RunStore]:
    store = RunStore.open(load_settings())
    yield store
    store.close()


@pytest.fixture
def store(runs: RunStore) -> MeasurementStore:
    return MeasurementStore(runs.database)


def save(store: MeasurementStore, *rows: Any) -> None:
    for row in rows:
        store.save(row)


def now() -> datetime:
    return datetime.now(UTC)


def chart(app: AppTest, title: str) -> dict[str, Any]:
    """Return the chart whose title starts with this text."""
    specs = charts(app)
    return next(spec for spec in specs if spec["layout"]["title"]["text"].startswith(title))


def bars(spec: dict[str, Any]) -> dict[str, list[float]]:
    """Return the values of the bars by the name of the series."""
    found: dict[str, list[float]] = {}
    for trace in spec["data"]:
        if trace["type"] == "bar":
            found.setdefault(trace["name"], []).extend(trace["x"])
    return found


def labels(spec: dict[str, Any]) -> list[str]:
    """Return the labels of the rows from top to bottom."""
    return spec["layout"]["yaxis"]["categoryarray"][::-1]


def add_answer(runs: RunStore, rate: float, **changes: Any) -> str:
    start = {"precision": "int8", "weights": None, "started_at": now(), "random_weights": False}
    result = {"decode_tokens_per_s": rate, "devices_used": ("CPU",), "error": None}
    fields = {field.name for field in dataclasses.fields(RunStart)}
    return runs.add(
        a_start(**start | {k: v for k, v in changes.items() if k in fields}),
        a_result(**result | {k: v for k, v in changes.items() if k not in fields}),
    )


# Empty


def test_an_empty_page_offers_a_short_benchmark() -> None:
    app = open_page("metrics")
    assert "Nothing has been measured yet" in [each.value for each in app.subheader]
    assert "6 measurements, about" in texts(app)
    assert [each.label for each in app.button if "two-minute" in each.label]
    assert not app.get("plotly_chart")


def test_rows_without_figures_have_no_charts_and_no_error(store: MeasurementStore) -> None:
    reason = "There is no device 'GPU' on this machine; choose CPU or AUTO."
    save(store, a_measurement(rate=None, state=MeasurementState.FAILED, error=reason, device="GPU"))
    app = open_page("metrics")
    assert "appear here as soon as" in texts(app)
    table = app.dataframe[0].value
    assert list(table["State"]) == ["failed"]
    assert list(table["Error"]) == [reason]
    assert "INT4 weights" not in table.columns or table["INT4 weights"].isna().all()


def test_int4_settings_are_in_the_table_and_the_hover_text(store: MeasurementStore) -> None:
    npu = an_int4(ratio=1.0, scale_estimation=False, awq=False, other_groups="")
    save(store, replace(a_measurement("int4", device="NPU"), int4=npu))
    save(store, a_measurement("int8"))
    app = open_page("metrics")
    weights = app.dataframe[1].value.set_index("Precision")["INT4 weights"]
    assert weights["INT4"] == "symmetric, one scale per channel, ratio 1"
    assert not isinstance(weights["INT8"], str)
    shown = "".join(each.proto.spec for each in app.get("plotly_chart"))
    assert "weights symmetric, one scale per channel, ratio 1" in shown


def test_a_database_that_cannot_be_opened_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PADDOCK_DATABASE_URL", "sqlite:////proc/nowhere/paddock.db")
    app = open_page("metrics")
    assert app.error


# Charts


def test_decode_rates_with_their_spread(store: MeasurementStore) -> None:
    save(
        store,
        a_measurement("int8", 40.0, prompt_tokens=32),
        a_measurement("int8", 30.0, prompt_tokens=512),
        a_measurement("int4", 60.0, prompt_tokens=32, mbu=0.6),
    )
    app = open_page("metrics")
    spec = chart(app, "Decode rate: tokens/s, higher is better")
    assert labels(spec) == ["INT8", "INT4"]
    assert bars(spec) == {"32-token prompt": [40.0, 60.0], "512-token prompt": [30.0]}
    first = next(trace for trace in spec["data"] if trace["name"] == "32-token prompt")
    assert first["error_x"]["array"] == pytest.approx([4.0, 6.0])
    assert "MBU 60 % of 100 tokens/s" in first["customdata"][1][0]
    assert bars(chart(app, "Bandwidth used"))["32-token prompt"][1] == 60.0


def test_memory_is_stacked_and_that_of_the_shortest_prompt(store: MeasurementStore) -> None:
    save(
        store,
        a_measurement(prompt_tokens=32, private_mb=400, file_mb=100),
        a_measurement(prompt_tokens=512, private_mb=450, file_mb=100),
    )
    spec = chart(open_page("metrics"), "Memory: MB, lower is better")
    assert bars(spec) == {"private": [400.0], "file-backed": [100.0]}
    assert spec["layout"]["barmode"] == "relative"
    assert "peak: private" in spec["data"][0]["customdata"][0][0]


def test_models_of_different_sizes_share_a_logarithmic_axis(store: MeasurementStore) -> None:
    save(
        store,
        a_measurement("int8", 400.0, model="tiny", title="Tiny"),
        a_measurement("int8", 4.0, model="big", title="Big", random_weights=True),
    )
    spec = chart(open_page("metrics"), "Decode rate: tokens/s")
    assert labels(spec) == ["<b>Big · random weights</b><br>INT8", "<b>Tiny</b><br>INT8"]
    assert spec["layout"]["xaxis"]["type"] == "log"
    assert spec["data"][0]["x"] == [4.0, 400.0]


def test_speed_against_memory_with_quality_and_the_front(store: MeasurementStore) -> None:
    save(
        store,
        a_measurement("fp16", 20.0, private_mb=900, quality=a_quality(1.0)),
        a_measurement("int8", 40.0, private_mb=800, quality=a_quality(1.01)),
        a_measurement("int4", 30.0, private_mb=300, quality=a_quality(1.2)),
    )
    spec = chart(open_page("metrics"), "Speed against memory")
    front = next(trace for trace in spec["data"] if trace["mode"] == "lines")
    assert (front["x"], front["y"]) == ([400.0, 900.0], [30.0, 40.0])
    dots = next(trace for trace in spec["data"] if trace["mode"] == "markers+text")
    assert dots["text"] == ["FP16", "INT8", "INT4"]
    assert dots["marker"]["color"] == [1.0, 1.01, 1.2]
    assert spec["layout"]["coloraxis"]["cmax"] == 1.2


def test_latency_of_each_token_of_a_measurement_and_of_an_answer(
    store: MeasurementStore, runs: RunStore
) -> None:
    save(store, a_measurement("int8", 40.0))
    answer = add_answer(runs, 50.0)
    app = open_page("metrics")
    spec = chart(app, "Latency of each token: ms, lower is better")
    assert [trace["name"] for trace in spec["data"]] == ["each answer", "each answer", "median"]
    assert spec["data"][2]["x"] == list(range(2, 17))
    assert spec["data"][2]["y"][0] == pytest.approx(25 * 1.1, rel=1e-3)
    assert "p99" in texts(app)
    app.selectbox(key="latency").select(answer).run()
    spec = chart(app, "Latency of each token")
    assert spec["data"][0]["y"] == pytest.approx([20.125, 20.125])
    assert app.query_params["latency"] == answer


def test_pieces_of_several_tokens_are_labelled_as_pieces(runs: RunStore) -> None:
    add_answer(runs, 50.0, new_tokens=6)
    app = open_page("metrics")
    spec = chart(app, "Latency of each piece: ms, lower is better")
    assert spec["layout"]["xaxis"]["title"]["text"] == "piece of the answer"
    assert "The server sent pieces of 2.0 tokens on average" in texts(app)


def test_history_has_every_measurement_and_one_point_per_day_of_answers(
    store: MeasurementStore, runs: RunStore
) -> None:
    today = now()  # once, as midnight may come
    save(store, *(a_measurement(when=today - timedelta(days=days)) for days in (0, 3, 9)))
    for rate in (30.0, 50.0):
        add_answer(runs, rate, started_at=today)
    spec = chart(open_page("metrics"), "Decode rate over time")
    found = {trace["name"]: trace["y"] for trace in spec["data"]}
    assert {len(values) for values in found.values()} == {1, 3}
    assert [40.0] in found.values(), "the median of a day"


def test_models_without_a_benchmark_and_remote_models_have_a_history(
    store: MeasurementStore, runs: RunStore
) -> None:
    save(store, a_measurement("int8", 40.0))
    add_answer(runs, 50.0, model="phi-2", title="Phi-2")
    away = {"memory_private_bytes": None, "memory_file_backed_bytes": None, "devices_used": ()}
    remote = {"model": "remote:lab/qwen", "title": "qwen", "device": "lab", "runtime": "remote"}
    add_answer(runs, 60.0, **remote, **away)
    app = open_page("metrics")
    picker = app.selectbox(key="model_shown")
    assert set(picker.options) == {"Dolly 2.0 3B", "Phi-2", "qwen"}
    assert picker.value == "Dolly 2.0 3B", "benchmarked models come first"
    picker.select("Phi-2").run()
    assert chart(app, "Speed against memory")["data"][0]["y"] == [50.0]
    app.selectbox(key="model_shown").select("qwen").run()
    assert chart(app, "Decode rate over time")["data"][0]["y"] == [60.0]
    assert "The memory usage of this model is not known." in texts(app)


# The table and its sentences


def comparison(app: AppTest) -> dict[str, list[Any]]:
    """Return the columns of the table of configurations."""
    return app.dataframe[0].value.to_dict("list")


def test_the_table_and_the_sentence_say_which_precision_to_take(store: MeasurementStore) -> None:
    save(
        store,
        a_measurement("fp16", 20.0, private_mb=900, ttft_ms=100.0, quality=a_quality(1.0)),
        a_measurement("int4", 60.0, private_mb=400, ttft_ms=50.0, quality=a_quality(1.2)),
    )
    app = open_page("metrics")
    found = comparison(app)
    assert found["Precision"] == ["INT4", "FP16"]
    assert found["Tokens/s"] == [60.0, 20.0]
    assert found["First token ms"] == [50.0, 100.0]
    assert found["Memory MB"] == [500.0, 1000.0]
    assert "Dolly 2.0 3B: take FP16, the fastest with at most 5 % more perplexity." in texts(app)
    assert "INT4 is 3.0 times as fast as FP16, uses 50 % of its memory and has 20 %" in texts(app)


def test_votes_of_compare_are_in_the_table(store: MeasurementStore) -> None:
    save(store, a_measurement("int8", 40.0), a_measurement("int4", 60.0))

    def side(precision: str) -> Subject:
        title = "Dolly 2.0 3B"
        return Subject(
            model="dolly-v2-3b", title=title, precision=precision, device="CPU", runtime="genai"
        )

    votes = VoteStore(store.database)
    votes.cast(
        Vote(
            comparison="c",
            left=side("int8"),
            right=side("int4"),
            verdict=Verdict.LEFT,
            blind=False,
            mode=Mode.FAIR,
        )
    )
    found = comparison(open_page("metrics"))
    assert dict(zip(found["Precision"], found["Votes won %"], strict=True)) == {
        "INT4": 0.0,
        "INT8": 100.0,
    }


def test_figures_of_another_node_have_a_row(store: MeasurementStore) -> None:
    save(
        store,
        a_measurement("int8", 40.0),
        a_measurement("int8", 20.0, host=a_host(name="node-2")),
    )
    app = open_page("metrics")
    assert comparison(app)["Model"] == ["Dolly 2.0 3B · bench", "Dolly 2.0 3B · node-2"]
    assert len(set(app.selectbox(key="latency").options)) == 2


# Filter


def test_the_filter_is_kept_in_the_url(store: MeasurementStore) -> None:
    save(store, a_measurement("int8", 40.0), a_measurement("int4", 60.0))
    app = open_page("metrics", precisions="int4", days="7")
    assert "No values match" in texts(app), "the measurements are from another year"
    app = open_page("metrics", precisions="int4")
    assert labels(chart(app, "Decode rate: tokens/s")) == ["INT4"]
    app.button_group(key="precisions").set_value(["int8"]).run()
    assert labels(chart(app, "Decode rate: tokens/s")) == ["INT8"]
    assert app.query_params["precisions"] == "int8"


def test_contended_figures_are_left_out_and_hatched_if_included(
    store: MeasurementStore, runs: RunStore
) -> None:
    save(store, a_measurement("int8", 40.0), a_measurement("int8", 4.0, contended=True))
    add_answer(runs, 3.0, contended=True)
    app = open_page("metrics")
    assert bars(chart(app, "Decode rate: tokens/s")) == {"32-token prompt": [40.0]}
    assert "Values measured while busy are left out (2)" in texts(app)
    app.toggle(key="contended").set_value(True).run()
    spec = chart(app, "Decode rate: tokens/s")
    assert bars(spec)["32-token prompt, measured while busy"] == [4.0]
    assert bars(spec)["answers in the app, measured while busy"] == [3.0]
    hatched = {
        trace["name"]: trace["marker"]["pattern"]["shape"]
        for trace in spec["data"]
        if trace["type"] == "bar"
    }
    assert (
        hatched["32-token prompt"] == ""
        and hatched["answers in the app, measured while busy"] == "/"
    )


def test_a_note_is_shown_if_all_figures_are_contended(store: MeasurementStore) -> None:
    save(store, a_measurement(contended=True))
    app = open_page("metrics")
    assert "All values were measured while other work ran" in texts(app)
    app.button(key="show_contended").click().run()
    assert bars(chart(app, "Decode rate: tokens/s")) == {
        "32-token prompt, measured while busy": [40.0]
    }


def test_machines_are_charted_together(store: MeasurementStore) -> None:
    save(
        store,
        a_measurement("int8", 40.0),
        a_measurement("int8", 50.0, host=a_host(name="other"), imported=True),
    )
    assert labels(chart(open_page("metrics"), "Decode rate: tokens/s")) == [
        "<b>Dolly 2.0 3B · bench</b><br>INT8",
        "<b>Dolly 2.0 3B · other</b><br>INT8",
    ]


def test_machines_with_one_name_are_distinguished(store: MeasurementStore, runs: RunStore) -> None:
    other = a_host(name="bench", cpu="Other CPU")
    save(store, a_measurement("int8", 40.0), a_measurement("int8", 50.0, host=other, imported=True))
    add_answer(runs, 45.0)  # on bench, with Some CPU
    app = open_page("metrics")
    assert labels(chart(app, "Decode rate: tokens/s")) == [
        "<b>Dolly 2.0 3B · bench (Other)</b><br>INT8",
        "<b>Dolly 2.0 3B · bench (Some)</b><br>INT8",
    ]
    which = PointFilter(hosts=("bench (Other)",))
    data = read_data(shared_engine())
    assert [each.host.cpu for each in data.chosen(which).measurements] == ["Other CPU"]
    assert [point.decode.median for point in data.chosen(which).points] == [50.0]
    assert answers_csv(shared_engine(), which).strip() == CSV_MARK
    mine = PointFilter(hosts=("bench (Some)",))
    assert answers_csv(shared_engine(), mine).count("\n") == 2


def test_models_with_one_title_are_distinguished(store: MeasurementStore, runs: RunStore) -> None:
    add_answer(runs, 40.0, model="mini-0a0a0a0a", title="mini", source="/a/mini")
    add_answer(runs, 50.0, model="mini-1b1b1b1b", title="mini", source="/b/mini")
    app = open_page("metrics")
    assert labels(chart(app, "Decode rate: tokens/s")) == [
        "<b>mini (0a0a0a0a)</b><br>INT8",
        "<b>mini (1b1b1b1b)</b><br>INT8",
    ]
    assert list(app.dataframe[0].value["Model"]) == ["mini (1b1b1b1b)", "mini (0a0a0a0a)"]


def test_weights_of_one_precision_with_different_origins_are_distinguished(
    store: MeasurementStore, runs: RunStore
) -> None:
    save(store, a_measurement("int8", 40.0), a_measurement("int8", 30.0, weights="INT8 from Q4_1"))
    add_answer(runs, 20.0, model="m", title="M", precision="stored", weights="INT4 · GGUF Q4_1")
    app = open_page("metrics")
    spec = chart(app, "Decode rate: tokens/s")
    assert labels(spec) == [
        "<b>Dolly 2.0 3B</b><br>INT8",
        "<b>Dolly 2.0 3B</b><br>INT8 from Q4_1",
        "<b>M</b><br>INT4 · GGUF Q4_1",
    ]
    tables = [set(table.value["Precision"]) for table in app.dataframe]
    assert tables[1:] == [{"INT8", "INT8 from Q4_1"}, {"INT4 · GGUF Q4_1"}]


def test_answers_on_auto_are_shown_with_the_device_used(runs: RunStore) -> None:
    for device in ("AUTO", "CPU"):
        add_answer(runs, 40.0, device=device)
    app = open_page("metrics")
    spec = chart(app, "Decode rate: tokens/s")
    assert bars(spec) == {"answers in the app": [40.0]} and labels(spec) == ["INT8"]
    assert len(app.dataframe[0].value) == 1


# Texts, files, benchmark


def test_no_instruction_or_answer_text_is_on_the_page_or_in_files(runs: RunStore) -> None:
    add_answer(runs, 40.0, instruction="my secret wish", text="a private answer")
    app = open_page("metrics")
    shown = texts(app) + app.dataframe[0].value.to_csv()
    shown += "".join(each.proto.spec for each in app.get("plotly_chart"))
    shown += answers_csv(shared_engine(), PointFilter())
    assert "40.0" in shown
    assert "secret" not in shown and "private answer" not in shown


def test_hostile_names_stay_text(store: MeasurementStore) -> None:
    title = "<a href='https://example.com'>=2+3</a> $x$ ![](https://example.com/x.png)"
    save(store, a_measurement(title=title, model="evil"), a_measurement())
    app = open_page("metrics")
    label = labels(chart(app, "Decode rate: tokens/s"))[0]
    assert "<a" not in label and "&lt;a" in label
    options = [option.content for option in app.button_group(key="models").proto.options]
    assert any("example.com" in option for option in options)
    assert not any(map(active, options)), options


def test_exported_measurements_can_be_imported(store: MeasurementStore) -> None:
    rows = [a_measurement("int8", 40.0), a_measurement("int4", 60.0, quality=a_quality())]
    save(store, *rows)
    text = to_json(store.all())
    assert sorted(row.id for row in from_json(text)) == sorted(row.id for row in rows)


def test_an_invalid_plan_is_rejected_with_a_message(tmp_path: Path) -> None:
    app = open_page("metrics")
    app.session_state["set_up"] = True
    app.run()
    app.multiselect(key="bench_models").set_value([]).run()
    assert "Choose at least one model" in texts(app)
    assert app.button(key="start_benchmark").disabled
    app.multiselect(key="bench_models").set_value(["paddock-neox"]).run()
    assert not app.button(key="start_benchmark").disabled
    app.number_input(key="bench_repeats").set_value(1).run()
    assert "cannot be distributed over" in texts(app)


def test_folders_with_the_same_title_are_distinguished_in_the_benchmark_setup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = two_folders_of_one_title()
    monkeypatch.setattr(shared_engine().store, "list", lambda: models)
    app = open_page("metrics")
    app.session_state["set_up"] = True
    app.run()
    options = app.multiselect(key="bench_models").options
    assert {"mini (a)", "mini (b)"} <= set(options)


def test_random_weights_have_a_separate_button() -> None:
    app = open_page("metrics")
    app.session_state["set_up"] = True
    app.run()
    app.button_group(key="bench_kind").set_value("random").run()
    app.multiselect(key="bench_random").set_value(["neox-410m"]).run()
    assert app.button(key="start_benchmark").label == "Measure with random weights"
    assert "without downloading the model" in texts(app)


def test_an_interrupted_benchmark_can_be_resumed_or_dismissed(store: MeasurementStore) -> None:
    plan = Plan(models=("paddock-neox",)).validated()
    sweep = "a" * 32
    row = replace(a_measurement(rate=None, state=MeasurementState.WAITING), sweep=sweep)
    store.begin_sweep(plan.to_json(), [row], sweep)
    store.end_sweep(sweep, SweepState.INTERRUPTED)
    app = open_page("metrics")
    assert "A benchmark of paddock-neox was interrupted" in texts(app)
    assert app.button(key=f"resume_{sweep}").label == "Resume"
    app.button(key=f"dismiss_{sweep}").click().run()
    assert "was interrupted" not in texts(app)
    assert store.sweep(sweep) is not None, "its row is kept"
