"""Parts of the Metrics page: places of bars, scales, key figures, words of labels."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from core.metrics.rows import Point, latest, point_of
from core.ui.metrics.bars import MOST_ROWS, Rows, point_labels, told_apart
from core.ui.metrics.charts import bandwidth_chart, decode_chart, memory_chart
from core.ui.metrics.curves import LatencyRun, latency_chart, tradeoff_chart, tradeoff_points
from core.ui.metrics.figures import key_figures, point_key, usual_baseline, usual_point
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


def test_panels_of_like_size_share_a_scale_and_others_do_not() -> None:
    points = [
        the_point("int8", rate, model=name, title=name)
        for name, rate in (("a", 400.0), ("b", 100.0), ("c", 4.0))
    ]
    layout = decode_chart(Rows(latest(points))).layout
    ends = [axis.range[1] for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3)]
    assert ends[0] == ends[1] > 400
    assert 4 < ends[2] < 20
    assert all(axis.range[0] == 0 for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3))


def test_too_many_rows_keep_those_measured_last() -> None:
    points = [
        the_point(model=f"m{number:02}", title=f"m{number:02}", when=NOW - timedelta(days=number))
        for number in range(MOST_ROWS + 3)
    ]
    rows = Rows(latest(points))
    assert (len(rows), rows.left_out) == (MOST_ROWS, 3)
    assert {point.subject.model for point in rows.points} == {f"m{n:02}" for n in range(MOST_ROWS)}


def test_labels_name_only_what_tells_rows_apart() -> None:
    alone = decode_chart(Rows([the_point("int8")])).layout.yaxis.ticktext
    assert list(alone) == ["INT8"]
    points = latest([the_point("fp16"), the_point("fp16", runtime="pytorch")])
    several = decode_chart(Rows(points)).layout.yaxis.ticktext
    assert list(several) == ["FP16 · Optimum", "FP16 · PyTorch"]


def test_what_was_asked_for_or_imported_is_no_bar_over_another() -> None:
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


def test_the_end_of_a_long_name_stays() -> None:
    title = "a folder with a name of very many words that goes on (1b1b1b1b)"
    (note,) = decode_chart(Rows([the_point(title=title)])).layout.annotations
    assert note.text.startswith("<b>a folder with") and note.text.endswith("on (1b1b1b1b)</b>")


def test_nothing_measured_is_no_error() -> None:
    rows = Rows(points_of_runs([a_row(None, ttft_ms=None, memory_private_bytes=None)]))
    assert len(decode_chart(rows).data) == 0
    assert len(memory_chart(rows).data) == 0


def test_an_answers_memory_stands_beside_the_benchmarks() -> None:
    rows = Rows(latest([the_point(private_mb=400), *points_of_runs([a_row()])]))
    private = memory_chart(rows).data[0]
    assert list(private.x) == [400.0, 300.0]
    assert list(private.marker.opacity) == [1.0, 0.55]
    assert private.y[0] + private.width[0] / 2 <= private.y[1] - private.width[1] / 2


# Curves


def test_a_utilisation_above_the_whole_is_not_cut_off() -> None:
    for mbu, least in ((0.5, 100.0), (1.3, 143.0)):  # with the spread's upper end
        low, high = bandwidth_chart(Rows([the_point(mbu=mbu)])).layout.xaxis.range
        assert low == 0 and least < high < 1.3 * least


def test_answers_are_no_dots_where_anything_was_measured() -> None:
    answers = points_of_runs([a_row()])
    assert tradeoff_points(answers) == answers
    measured = the_point()
    assert tradeoff_points([*answers, measured]) == [measured]
    others = points_of_runs([a_row(model="phi-2", title="Phi-2")])
    assert tradeoff_points([*answers, *others, measured]) == [*others, measured]


def test_names_of_a_device_and_of_auto_that_took_it_do_not_meet() -> None:
    (dots,) = tradeoff_chart([the_point(), the_point(device="AUTO")]).data
    assert list(dots.text) == ["INT8 CPU", "INT8 AUTO → CPU"]
    assert list(dots.textposition) == ["top center", "bottom center"]


def test_the_shortest_prompt_stands_for_a_configuration() -> None:
    short, long = the_point(prompt_tokens=32), the_point(prompt_tokens=512)
    assert tradeoff_points([long, short]) == [short]


def test_answers_of_other_lengths_have_a_median_where_they_have_tokens() -> None:
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
def test_changes_in_words(rate: float, before: float, change: str) -> None:
    figures = key_figures(the_point("int4", rate), the_point("fp16", before))
    assert figures[0].delta == change


def test_without_a_baseline_or_its_figure_there_is_no_change() -> None:
    assert all(figure.delta is None for figure in key_figures(the_point(), None))
    (answers,) = points_of_runs([a_row(load_s=None)])
    figures = {figure.name: figure for figure in key_figures(the_point(), answers)}
    assert figures["Load time"].delta is None
    assert figures["Memory"].delta is None, "the app's growth is not a process of its own"
    assert "MBU" not in {figure.name for figure in key_figures(answers, None)}


def test_the_usual_baseline_is_like_it_but_for_the_precision() -> None:
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
    assert usual_baseline(mine, [mine, *others]) is fp16
    assert usual_baseline(mine, [mine]) is None


def test_the_usual_point_is_the_fastest_of_what_was_measured_last() -> None:
    old = the_point("int4", 900.0, model="old", title="Old", when=NOW - timedelta(days=2))
    fast, slow = the_point("int4", 60.0), the_point("int8", 40.0)
    assert usual_point([old, slow, fast]) is fast


def test_keys_and_labels_tell_configurations_apart() -> None:
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


def test_the_host_is_named_where_there_are_several() -> None:
    here, there = the_point(), the_point(host=a_host(name="node-2"))
    labels = point_labels({"here": here, "there": there})
    assert labels["here"].endswith("32-token prompt · on bench")
    assert labels["there"].endswith("32-token prompt · on node-2")
    assert "bench" not in point_labels({"here": here})["here"]


def test_labels_that_are_alike_get_what_tells_them_apart() -> None:
    found = told_apart({"/a/mini": "mini", "/b/mini": "mini", "x": "other"}, str)
    assert list(found.values()) == ["mini (/a/mini)", "mini (/b/mini)", "other"]
