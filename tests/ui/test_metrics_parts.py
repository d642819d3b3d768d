"""Parts of the Metrics page: positions of bars, scales, key figures, labels."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from core.metrics.rows import Point, latest, point_of
from core.ui.metrics.bars import MAX_ROWS, Rows, point_labels, unique_labels
from core.ui.metrics.baseline import default_baseline, default_point, key_figures, point_key
from core.ui.metrics.charts import bandwidth_chart, decode_chart, memory_chart
from core.ui.metrics.curves import LatencyRun, latency_chart, tradeoff_chart, tradeoff_points
from tests.metrics.row_samples import NOW, a_host, a_measurement, a_row, points_of_runs


def the_point(*args: object, **changes: object) -> Point:
    found = point_of(a_measurement(*args, **changes))  # type: ignore[arg-type]
    assert found is not None
    return found


# Rows


def test_bars_of_a_row_do_not_overlap_and_stay_in_their_panel() -> None:
    points = [the_point("int8", prompt_tokens=length) for length in (32, 128, 512)]
    points += [*points_of_runs([a_row()]), the_point("int4")]
    rows = Rows(latest(points))
    placed = sorted((p for _, each in rows.series() for p in each), key=lambda p: p.y)
    assert len(placed) == 5
    edges = [(each.y - each.thickness / 2, each.y + each.thickness / 2) for each in placed]
    assert edges[0][0] > 0
    assert all(above[1] <= below[0] for above, below in itertools.pairwise(edges))
    height = decode_chart(rows).layout.yaxis.range[0]
    assert edges[-1][1] < height


def test_panels_with_similar_values_share_a_scale_and_others_do_not() -> None:
    points = [
        the_point("int8", rate, model=name, title=name)
        for name, rate in (("a", 400.0), ("b", 100.0), ("c", 4.0))
    ]
    layout = decode_chart(Rows(latest(points))).layout
    ends = [axis.range[1] for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3)]
    assert ends[0] == ends[1] > 400
    assert 4 < ends[2] < 20
    assert all(axis.range[0] == 0 for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3))


def test_only_the_most_recently_measured_rows_are_drawn() -> None:
    points = [
        the_point(model=f"m{number:02}", title=f"m{number:02}", when=NOW - timedelta(days=number))
        for number in range(MAX_ROWS + 3)
    ]
    rows = Rows(latest(points))
    assert (len(rows), rows.left_out) == (MAX_ROWS, 3)
    assert {point.subject.model for point in rows.points} == {f"m{n:02}" for n in range(MAX_ROWS)}


def test_labels_contain_only_what_differs_between_rows() -> None:
    alone = decode_chart(Rows([the_point("int8")])).layout.yaxis.ticktext
    assert list(alone) == ["INT8"]
    points = latest([the_point("fp16"), the_point("fp16", runtime="pytorch")])
    several = decode_chart(Rows(points)).layout.yaxis.ticktext
    assert list(several) == ["FP16 · Optimum", "FP16 · PyTorch"]


def test_bars_of_other_devices_or_imports_do_not_overlap() -> None:
    points = latest(
        [
            the_point("int8", 40.0),
            the_point("int8", 30.0, device="AUTO"),
            the_point("int8", 20.0, imported=True),
            *points_of_runs([a_row(50.0), a_row(60.0, device="CPU")]),
        ]
    )
    rows = Rows(points)
    places = [(each.row, each.y) for _, placed in rows.series() for each in placed]
    assert len(set(places)) == len(places) == 4
    layout = decode_chart(rows).layout
    assert list(layout.yaxis.ticktext) == ["INT8 · AUTO → CPU", "INT8 · CPU"]
    assert [note.text for note in layout.annotations] == [
        "<b>Dolly 2.0 3B</b>",
        "<b>Dolly 2.0 3B · imported</b>",
    ]
    assert len(memory_chart(rows).data[0].x) == 3, "answers and the benchmark of one row"
    assert len({point_key(point) for point in points}) == len(points)


def test_a_long_name_keeps_its_end() -> None:
    title = "a folder with a name of very many words that goes on (1b1b1b1b)"
    (note,) = decode_chart(Rows([the_point(title=title)])).layout.annotations
    assert note.text.startswith("<b>a folder with") and note.text.endswith("on (1b1b1b1b)</b>")


def test_points_without_figures_are_no_error() -> None:
    rows = Rows(points_of_runs([a_row(None, ttft_ms=None, memory_private_bytes=None)]))
    assert len(decode_chart(rows).data) == 0
    assert len(memory_chart(rows).data) == 0


def test_memory_of_answers_is_drawn_beside_that_of_the_benchmark() -> None:
    rows = Rows(latest([the_point(private_mb=400), *points_of_runs([a_row()])]))
    private = memory_chart(rows).data[0]
    assert list(private.x) == [400.0, 300.0]
    assert list(private.marker.opacity) == [1.0, 0.55]
    assert private.y[0] + private.width[0] / 2 <= private.y[1] - private.width[1] / 2


# Curves


def test_mbu_above_one_hundred_percent_is_not_cut_off() -> None:
    for mbu, least in ((0.5, 100.0), (1.3, 143.0)):  # including the upper end of the spread
        low, high = bandwidth_chart(Rows([the_point(mbu=mbu)])).layout.xaxis.range
        assert low == 0 and least < high < 1.3 * least


def test_answers_are_not_drawn_in_panels_with_benchmarks() -> None:
    answers = points_of_runs([a_row()])
    assert tradeoff_points(answers) == answers
    measured = the_point()
    assert tradeoff_points([*answers, measured]) == [measured]
    others = points_of_runs([a_row(model="phi-2", title="Phi-2")])
    assert tradeoff_points([*answers, *others, measured]) == [*others, measured]


def test_labels_of_a_device_and_of_auto_do_not_overlap() -> None:
    (dots,) = tradeoff_chart([the_point(), the_point(device="AUTO")]).data
    assert list(dots.text) == ["INT8 CPU", "INT8 AUTO → CPU"]
    assert list(dots.textposition) == ["top center", "bottom center"]


def test_a_configuration_is_drawn_with_its_shortest_prompt() -> None:
    short, long = the_point(prompt_tokens=32), the_point(prompt_tokens=512)
    assert tradeoff_points([long, short]) == [short]


def test_the_median_covers_answers_of_different_lengths() -> None:
    figure = latency_chart(
        [
            LatencyRun("a", (10.0, 12.0, 16.0)),
            LatencyRun("b", (10.0, 14.0)),
            LatencyRun("c", (9.0,)),
        ]
    )
    assert list(figure.data[-1].x) == [2, 3]
    assert list(figure.data[-1].y) == [3.0, 4.0]


# Key figures


@pytest.mark.parametrize(
    ("rate", "before", "change"),
    [
        (60.0, 20.0, "3.0 ×"),
        (30.0, 20.0, "+50 %"),
        (10.0, 20.0, "-50 %"),
        (20.05, 20.0, "the same"),
    ],
)
def test_changes_as_text(rate: float, before: float, change: str) -> None:
    figures = key_figures(the_point("int4", rate), the_point("fp16", before))
    assert figures[0].delta == change


def test_without_a_baseline_or_its_figure_there_is_no_change() -> None:
    assert all(figure.delta is None for figure in key_figures(the_point(), None))
    (answers,) = points_of_runs([a_row(load_s=None)])
    figures = {figure.name: figure for figure in key_figures(the_point(), answers)}
    assert figures["Load time"].delta is None
    assert figures["Memory"].delta is None, "not comparable with growth of the app"
    assert "MBU" not in {figure.name for figure in key_figures(answers, None)}


def test_the_default_baseline_differs_only_in_precision() -> None:
    mine = the_point("int4", 60.0)
    fp16 = the_point("fp16")
    others = [
        the_point("int8"),
        fp16,
        the_point("fp32", runtime="pytorch"),
        the_point("fp32", prompt_tokens=512),
        the_point("fp32", host=a_host(name="other")),
        the_point("fp32", model="phi-2", title="Phi-2"),
        *points_of_runs([a_row(precision="fp32")]),
    ]
    assert default_baseline(mine, [mine, *others]) is fp16
    assert default_baseline(mine, [mine]) is None


def test_the_default_point_is_the_fastest_of_the_last_measured_model() -> None:
    old = the_point("int4", 900.0, model="old", title="Old", when=NOW - timedelta(days=2))
    fast, slow = the_point("int4", 60.0), the_point("int8", 40.0)
    assert default_point([old, slow, fast]) is fast


def test_keys_and_labels_are_unique() -> None:
    points = [
        the_point(),
        the_point(prompt_tokens=512),
        the_point("int4"),
        the_point(weights="INT8 from Q4_1"),
        the_point(contended=True),
        the_point(host=a_host(name="other"), imported=True),
        the_point(random_weights=True),
        *points_of_runs([a_row()]),
    ]
    assert len({point_key(point) for point in points}) == len(points)
    labels = point_labels({point_key(point): point for point in points})
    assert len(set(labels.values())) == len(points)


def test_labels_include_the_host_if_there_are_several() -> None:
    here, there = the_point(), the_point(host=a_host(name="node-2"))
    labels = point_labels({"here": here, "there": there})
    assert labels["here"].endswith("32-token prompt · on bench")
    assert labels["there"].endswith("32-token prompt · on node-2")
    assert "bench" not in point_labels({"here": here})["here"]


def test_duplicate_labels_are_made_unique() -> None:
    found = unique_labels({"/a/mini": "mini", "/b/mini": "mini", "x": "other"}, str)
    assert list(found.values()) == ["mini (/a/mini)", "mini (/b/mini)", "other"]
