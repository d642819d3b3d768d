"""Parts of the Metrics page: charts, the table of configurations, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from core.db import PairVotes, Subject
from core.metrics.frames import most_recent, point_frame
from core.metrics.rows import Point, latest, point_of
from core.metrics.verdict import verdicts
from core.ui.metrics.charts import (
    bandwidth_chart,
    latency_chart,
    memory_chart,
    rate_chart,
    tradeoff_chart,
    ttft_chart,
)
from core.ui.metrics.comparison import comparison_table, votes_of
from tests.metrics.row_samples import NOW, a_measurement, a_quality, a_row, points_of_runs


def the_point(*args: object, **changes: object) -> Point:
    found = point_of(a_measurement(*args, **changes))  # type: ignore[arg-type]
    assert found is not None
    return found


def frame_of(points: Sequence[Point]) -> pd.DataFrame:
    return point_frame(latest(points))


def labels(figure: go.Figure) -> list[str]:
    """Return the labels of the rows from top to bottom."""
    return list(figure.layout.yaxis.categoryarray)[::-1]


# Rows


def test_labels_contain_only_what_differs_between_rows() -> None:
    assert labels(rate_chart(frame_of([the_point("int8")]))) == ["INT8"]
    points = [the_point("fp16"), the_point("fp16", runtime="pytorch")]
    assert labels(rate_chart(frame_of(points))) == ["FP16 · Optimum", "FP16 · PyTorch"]
    points = [the_point("int8"), the_point("int8", model="phi-2", title="Phi-2")]
    assert labels(rate_chart(frame_of(points))) == [
        "<b>Dolly 2.0 3B</b><br>INT8",
        "<b>Phi-2</b><br>INT8",
    ]


def test_only_the_most_recently_measured_configurations_are_drawn() -> None:
    points = [
        the_point(model=f"m{number}", title=f"m{number}", when=NOW - timedelta(days=number))
        for number in range(6)
    ]
    kept, left_out = most_recent(frame_of(points), 4)
    assert left_out == 2
    assert sorted(kept["model"]) == ["m0", "m1", "m2", "m3"]


def test_other_devices_imports_and_answers_have_rows_of_their_own() -> None:
    points = [
        the_point("int8", 40.0),
        the_point("int8", 30.0, device="AUTO"),
        the_point("int8", 20.0, imported=True),
        *points_of_runs([a_row(50.0), a_row(60.0, device="CPU")]),
    ]
    frame = frame_of(points)
    assert len(frame) == len(frame.drop_duplicates(["model", "configuration", "series"])) == 4
    assert labels(rate_chart(frame)) == [
        "<b>Dolly 2.0 3B</b><br>INT8 · AUTO → CPU",
        "<b>Dolly 2.0 3B</b><br>INT8 · CPU",
        "<b>Dolly 2.0 3B · imported</b><br>INT8 · CPU",
    ]


def test_a_long_name_keeps_its_end() -> None:
    title = "a folder with a name of very many words that goes on (1b1b1b1b)"
    points = [the_point(title=title), the_point(model="phi-2", title="Phi-2")]
    (long,) = (label for label in labels(rate_chart(frame_of(points))) if "folder" in label)
    assert long.startswith("<b>a folder with") and long.endswith("(1b1b1b1b)</b><br>INT8")


def test_points_without_figures_are_no_error() -> None:
    frame = frame_of(points_of_runs([a_row(None, ttft_ms=None, memory_private_bytes=None)]))
    for chart in (rate_chart, ttft_chart, memory_chart, bandwidth_chart):
        assert all(len(trace.x or ()) == 0 for trace in chart(frame).data)


def test_bars_start_at_zero_and_far_apart_values_are_dots_on_a_logarithmic_axis() -> None:
    near = [the_point("int8", 400.0, model="a"), the_point("int8", 100.0, model="b")]
    figure = rate_chart(frame_of(near))
    assert {trace.type for trace in figure.data} == {"bar"}
    assert figure.layout.xaxis.type is None
    far = rate_chart(frame_of([*near, the_point("int8", 4.0, model="c")]))
    assert {trace.type for trace in far.data} == {"scatter"}
    assert far.layout.xaxis.type == "log"
    assert far.layout.xaxis.title.text == "tokens/s, logarithmic scale"
    assert far.layout.xaxis.range[0] < math.log10(4) < math.log10(400) < far.layout.xaxis.range[1]


def test_memory_is_that_of_the_benchmark_where_there_is_one() -> None:
    figure = memory_chart(frame_of([the_point(private_mb=400), *points_of_runs([a_row()])]))
    assert list(figure.data[0].x) == [400.0]
    figure = memory_chart(frame_of(points_of_runs([a_row()])))
    assert list(figure.data[0].x) == [300.0]


# Curves


def test_answers_are_not_drawn_beside_a_benchmark() -> None:
    """The memory of a process and the growth of the app's are not comparable."""
    answers = points_of_runs([a_row(50.0)])
    assert list(tradeoff_chart(frame_of(answers)).data[0].y) == [50.0]
    both = tradeoff_chart(frame_of([*answers, the_point("int4", 60.0)]))
    assert list(both.data[0].y) == [60.0]


def test_a_configuration_is_drawn_with_its_shortest_prompt() -> None:
    points = [the_point(rate=30.0, prompt_tokens=512), the_point(rate=40.0, prompt_tokens=32)]
    assert list(tradeoff_chart(frame_of(points)).data[0].y) == [40.0]


def test_the_median_covers_answers_of_different_lengths() -> None:
    figure = latency_chart([("a", (10.0, 12.0, 16.0)), ("b", (10.0, 14.0)), ("c", (9.0,))])
    assert list(figure.data[-1].x) == [2, 3]
    assert list(figure.data[-1].y) == [3.0, 4.0]


# The table and its sentences


def test_the_table_has_the_best_known_figures_of_each_configuration() -> None:
    points = [
        the_point("int8", 40.0, quality=a_quality(1.01)),
        the_point("int8", 30.0, prompt_tokens=512),
        the_point("int4", 60.0),
        *points_of_runs([a_row(50.0, weights="INT8"), a_row(5.0, model="phi-2", title="Phi-2")]),
    ]
    votes = {("dolly-v2-3b", "INT8"): (1.5, 2)}
    table = comparison_table(latest(points), votes)
    assert list(table["Tokens/s"]) == [60.0, 40.0, 5.0], "the fastest first"
    assert list(table["Precision"]) == ["INT4", "INT8", "INT8"]
    assert table["Perplexity ×"][1] == 1.01
    assert (table["Votes won %"][1], table["Votes"][1]) == (75.0, 2)
    assert list(table["Measured by"])[1:] == ["32-token prompt", "answers in the app"]
    assert "Device" not in table, "all were measured on the same one"


def test_a_tie_is_half_a_win_and_a_model_against_itself_is_no_vote() -> None:
    def side(precision: str) -> Subject:
        return Subject(
            model="m", title="M", precision=precision, weights=None, device=None, runtime=None
        )

    def pair(left: str, right: str, **counts: int) -> PairVotes:
        none = {"left_wins": 0, "right_wins": 0, "ties": 0, "both_bad": 0}
        return PairVotes(left=side(left), right=side(right), **(none | counts))

    found = votes_of(
        [pair("int4", "int8", left_wins=1, right_wins=2, ties=1), pair("int8", "int8", ties=5)]
    )
    assert found == {("m", "INT4"): (1.5, 4), ("m", "INT8"): (2.5, 4)}


def test_the_sentence_names_the_fastest_precision_that_keeps_the_quality() -> None:
    points = [
        the_point("fp16", 20.0, private_mb=900, file_mb=100, quality=a_quality(1.0)),
        the_point("int8", 40.0, private_mb=450, file_mb=100, quality=a_quality(1.006)),
        the_point("int4", 52.0, private_mb=250, file_mb=50, quality=a_quality(1.2)),
    ]
    (verdict,) = verdicts(latest(points))
    assert verdict.model == "Dolly 2.0 3B"
    assert verdict.recommendation == "take INT8, the fastest with at most 5 % more perplexity"
    assert verdict.details == (
        "INT8 is 2.0 times as fast as FP16, uses 55 % of its memory and keeps its quality; "
        "INT4 is 2.6 times as fast as FP16, uses 30 % of its memory and has 20 % more perplexity."
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quality": None}, "INT4 is the fastest; quality has not been measured"),
        ({"quality": a_quality(1.03)}, "take INT4, the fastest, with at most 5 % more perplexity"),
        ({"rate": 10.0, "quality": a_quality(1.0)}, "take FP16: no lower precision is faster"),
    ],
)
def test_recommendations(changes: dict[str, Any], expected: str) -> None:
    quality = a_quality(1.0) if changes["quality"] else None
    points = [
        the_point("fp16", 20.0, quality=quality),
        the_point("int4", **({"rate": 60.0} | changes)),
    ]
    assert verdicts(latest(points))[0].recommendation == expected


def test_quality_that_nobody_measured_is_said_once() -> None:
    (verdict,) = verdicts(latest([the_point("fp16", 20.0), the_point("int8", 40.0)]))
    assert verdict.recommendation == "INT8 is the fastest; quality has not been measured"
    assert "quality" not in verdict.details


def test_the_reference_is_taken_if_every_other_precision_loses_more() -> None:
    """Also where its own quality was not measured, because it is what others are compared with."""
    lossy = the_point("int4", 60.0, quality=a_quality(1.2, reference="fp16"))
    (verdict,) = verdicts(latest([the_point("fp16", 20.0), lossy]))
    assert verdict.recommendation == "take FP16, the fastest with at most 5 % more perplexity"
    assert "has 20 % more perplexity" in verdict.details


def test_precisions_of_other_devices_or_measured_while_busy_are_not_compared() -> None:
    reference = the_point("fp16", 20.0)
    assert verdicts([reference]) == []
    assert verdicts([reference, the_point("int4", device="AUTO")]) == []
    assert verdicts([reference, the_point("int4", contended=True)]) == []
    busy = [the_point(name, contended=True) for name in ("fp16", "int4")]
    assert verdicts(latest(busy))[0].details.endswith("Measured while busy, so this may be wrong.")
    assert "busy" not in verdicts(latest([*busy, reference, the_point("int8")]))[0].details
    assert verdicts([reference, *points_of_runs([a_row(precision="int4")])]) == []


def test_models_with_the_same_title_have_a_sentence_each() -> None:
    points = [
        the_point(precision, rate, model=model, title="Mine")
        for model in ("mine-1", "mine-2")
        for precision, rate in (("fp16", 20.0), ("int8", 40.0))
    ]
    names = sorted(verdict.model for verdict in verdicts(latest(points)))
    assert names == ["Mine (mine-1)", "Mine (mine-2)"]
