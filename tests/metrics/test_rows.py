"""Data points for charts, and filtering them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.catalogue import EMBEDDED_DIR, catalogue
from core.db.measurement_values import MeasurementState
from core.db.run_values import utc_now
from core.metrics.answer_days import PERCENTILES_FROM
from core.metrics.frames import pareto, point_frame
from core.metrics.labels import model_names
from core.metrics.rows import (
    GROWTH_IN_APP,
    PROCESS_ALONE,
    Point,
    PointFilter,
    PointSource,
    Range,
    last_days,
    latest,
    point_of,
    subject_of,
    subject_of_run,
)
from core.store.resolver import resolve
from tests.metrics.row_samples import (
    MB,
    NOW,
    a_host,
    a_measurement,
    a_quality,
    a_row,
    points_of_runs,
)


def the_point(**changes: object) -> Point:
    found = point_of(a_measurement(**changes))  # type: ignore[arg-type]
    assert found is not None
    return found


# Machines


def test_machines_with_the_same_name_get_their_processor_added() -> None:
    other = a_host(cpu="Other(R) Thing(TM) CPU @ 2 GHz")
    here, there = the_point().subject, the_point(host=other).subject
    alone = the_point(host=a_host(name="alone")).subject
    unknown = the_point(host=a_host(cpu="")).subject
    assert model_names([here, there, alone, unknown]) == [
        "Dolly 2.0 3B · bench (Some)",
        "Dolly 2.0 3B · bench (Other Thing @ 2 GHz)",
        "Dolly 2.0 3B · alone",
        "Dolly 2.0 3B · bench",
    ]
    assert model_names([here, here]) == ["Dolly 2.0 3B"] * 2


def test_a_filter_matches_a_machine_with_or_without_its_processor() -> None:
    subject = the_point().subject
    for names in ((), ("bench",), ("bench (Some)", "x")):
        assert PointFilter(hosts=names).matches(subject)
    assert not PointFilter(hosts=("bench (Other)",)).matches(subject)


# Models


def test_models_with_the_same_title_get_their_key_added() -> None:
    here, there = (
        points_of_runs([a_row(model=f"mini-{digest}", title="mini")])[0].subject
        for digest in ("0a0a0a0a", "1b1b1b1b")
    )
    elsewhere = points_of_runs([a_row(model="mini-2c", title="mini", host_name="other")])[0].subject
    assert model_names([here, there]) == ["mini (0a0a0a0a)", "mini (1b1b1b1b)"]
    assert model_names([here, elsewhere]) == ["mini · bench", "mini · other"]


def test_random_weights_and_remote_models_are_not_renamed() -> None:
    random = [the_point(model=each, title="x", random_weights=True).subject for each in "ab"]
    assert model_names(random) == ["x · random weights"] * 2
    rows = [a_row(model=f"remote:{each}/x", title="x", device=each) for each in "ab"]
    assert model_names([point.subject for point in points_of_runs(rows)]) == ["x", "x"]


@pytest.mark.parametrize("name", ["mini", "my model (2)"])
def test_a_measured_folder_has_the_same_key_as_its_answers(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(EMBEDDED_DIR / "paddock-neox", folder)
    found = resolve(str(folder))
    for typed in (str(folder), found.key):
        subject = the_point(model=typed, source=str(found.location)).subject
        assert subject.model == found.key


@pytest.mark.parametrize("name", ["Org/Mini", "databricks/dolly-v2-3b", "dolly-v2-3b"])
def test_a_measured_hub_model_has_the_same_key_as_its_answers(name: str) -> None:
    found = resolve(name)
    subject = the_point(model=name, title=found.title, source=str(found.location)).subject
    assert subject.model == found.name


def test_answers_of_earlier_versions_have_the_same_key_as_a_folders_benchmark(
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(EMBEDDED_DIR / "paddock-neox", tmp_path / "mini"))
    found = resolve(str(folder))
    measured = the_point(model=str(folder), title=found.title, source=str(folder)).subject
    before = subject_of_run(a_row(model=str(folder), title=found.title))
    now = subject_of_run(a_row(model=found.name, title=found.title))
    assert {measured.model, before.model, now.model} == {found.name}


def test_a_catalogue_model_has_its_current_title_whatever_was_recorded() -> None:
    subject = subject_of_run(a_row(model="paddock-neox", title="Paddock NeoX (embedded)"))
    assert subject.title == catalogue()["paddock-neox"].title


# Measurements


def test_the_requested_device_is_shown_if_another_was_used() -> None:
    subjects = [
        subject_of(replace(a_measurement(device=asked), devices_used=(used,)))
        for asked, used in (("CPU", "CPU"), ("AUTO", "CPU"), ("GPU", "GPU.0"))
    ]
    assert [subject.device_label for subject in subjects] == ["CPU", "AUTO → CPU", "GPU.0"]


def test_a_measurement_keeps_its_figures_and_conditions() -> None:
    quality = a_quality(1.03, task_accuracy=0.7)
    point = the_point(rate=40.0, mbu=0.5, quality=quality)
    assert point.decode == Range(40.0, pytest.approx(36.0), pytest.approx(44.0))
    assert (point.memory_private, point.memory_file_backed) == (400 * MB, 100 * MB)
    assert point.memory == 500 * MB
    assert point.memory_scope == PROCESS_ALONE
    assert point.n == 2 and point.prompt_tokens == 32
    assert point.quality is quality
    assert point.ceiling == pytest.approx(80.0, rel=1e-6), "half of the bandwidth is used"
    for word in ("16 new tokens", "f32", "u8", "2 threads"):
        assert word in point.conditions


def test_without_mbu_there_is_no_bandwidth_ceiling() -> None:
    assert the_point(mbu=None).ceiling is None, (
        "such as on a GPU: the measured bandwidth is that of the CPU"
    )


def test_an_incomplete_number_of_answers_is_shown() -> None:
    assert the_point(repeats=5).answers == "5 timed answers"
    assert the_point(repeats=1).answers == "1 timed answer"
    stopped = the_point(repeats=5, state=MeasurementState.CANCELLED)
    assert stopped.answers == "fewer than 5 timed answers"


def test_a_measurement_without_figures_has_no_point() -> None:
    failed = a_measurement(rate=None, state=MeasurementState.FAILED, error="No device.")
    assert point_of(failed) is None


def test_a_single_token_has_no_rate_and_no_bandwidth() -> None:
    measurement = a_measurement()
    assert measurement.figures is not None
    figures = replace(measurement.figures, decode_tokens_per_s=None, decode_low=None, mbu=None)
    point = point_of(replace(measurement, figures=replace(figures, bytes_per_token=None)))
    assert point is not None
    assert (point.decode, point.mbu, point.ceiling) == (None, None, None)


def test_sources_are_distinguished() -> None:
    sources = [
        the_point().subject.source,
        the_point(imported=True).subject.source,
        points_of_runs([a_row()])[0].subject.source,
    ]
    assert sources == [PointSource.BENCHMARK, PointSource.IMPORTED, PointSource.ANSWERS]


@pytest.mark.parametrize(
    ("title", "name"),
    [("dolly", "dolly · random weights"), ("dolly · random weights", "dolly · random weights")],
)
def test_random_weights_are_always_marked_once(title: str, name: str) -> None:
    assert the_point(title=title, random_weights=True).subject.name == name


# Answers


def test_answers_under_the_same_conditions_become_one_point() -> None:
    rows = [a_row(rate) for rate in (10.0, 20.0, 90.0)] + [a_row(50.0, precision="int4")]
    points = {point.subject.precision: point for point in points_of_runs(rows)}
    assert points["int8"].decode == Range(20.0, 10.0, 90.0)
    assert points["int8"].n == 3
    assert points["int8"].memory_scope == GROWTH_IN_APP
    assert points["int4"].decode == Range(50.0, 50.0, 50.0)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "phi-2"},
        {"precision": "fp16"},
        {"weights": "INT8 from Q4_1"},
        {"devices_used": ("GPU",)},
        {"runtime": "genai"},
        {"host_name": "other"},
        {"contended": True},
        {"random_weights": True},
    ],
)
def test_answers_under_other_conditions_are_separate_points(other: dict[str, object]) -> None:
    assert len(points_of_runs([a_row(), a_row(**other)])) == 2


def test_answers_on_auto_are_grouped_with_the_device_used() -> None:
    (point,) = points_of_runs([a_row(10.0, device="AUTO"), a_row(30.0, device="CPU")])
    assert (point.n, point.subject.device_label) == (2, "CPU")


def test_missing_figures_do_not_affect_others() -> None:
    rows = [a_row(None, ttft_ms=None, memory_private_bytes=None), a_row(30.0)]
    (point,) = points_of_runs(rows)
    assert point.n == 2
    assert point.decode == Range(30.0, 30.0, 30.0)
    (bare,) = points_of_runs([a_row(None, memory_private_bytes=None)])
    assert (bare.decode, bare.memory) == (None, None)


def test_the_extremes_of_many_answers_are_left_out() -> None:
    rates = [float(rate) for rate in range(1, PERCENTILES_FROM + 1)]
    (point,) = points_of_runs(a_row(rate) for rate in rates)
    assert point.decode is not None
    assert point.decode.low == pytest.approx(np.percentile(rates, 10))
    assert point.decode.high == pytest.approx(np.percentile(rates, 90))


def test_by_day_there_is_one_point_per_day() -> None:
    days = [NOW, NOW - timedelta(hours=1), NOW - timedelta(days=1)]
    points = points_of_runs([a_row(started_at=day) for day in days], by_day=True)
    assert sorted((point.when.date(), point.n) for point in points) == [
        (date(2026, 3, 9), 1),
        (date(2026, 3, 10), 2),
    ]


# Filter


@pytest.mark.parametrize(
    ("selected", "matches"),
    [
        ({}, True),
        ({"models": ("Dolly 2.0 3B",)}, True),
        ({"models": ("Phi-2",)}, False),
        ({"precisions": ("int4", "int8")}, True),
        ({"precisions": ("int4",)}, False),
        ({"devices": ("GPU",)}, False),
        ({"runtimes": ("pytorch",)}, False),
        ({"sources": ("benchmark",)}, True),
        ({"sources": ("answers", "imported")}, False),
        ({"hosts": ("bench",)}, True),
        ({"hosts": ("other",)}, False),
        ({"precisions": ("int8",), "hosts": ("other",)}, False),
        ({"here": frozenset({"dolly-v2-3b"})}, True),
        ({"here": frozenset({"phi-2"})}, False),
        ({"since": date(2026, 3, 10)}, True),
        ({"since": date(2026, 3, 11)}, False),
    ],
)
def test_a_point_must_match_every_filter(selected: dict[str, object], matches: bool) -> None:
    point = the_point()
    assert PointFilter(**selected).matches(point.subject, point.when) is matches  # type: ignore[arg-type]


def test_contended_figures_are_shown_only_if_included() -> None:
    point = the_point(contended=True)
    assert not PointFilter().matches(point.subject, point.when)
    assert PointFilter(contended=True).matches(point.subject, point.when)


def test_days_are_in_utc() -> None:
    late = datetime(2026, 3, 11, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    subject = the_point().subject
    assert not PointFilter(since=date(2026, 3, 11)).matches(subject, late)
    assert PointFilter(since=date(2026, 3, 11)).matches(subject, date(2026, 3, 11))


def test_the_last_day_is_today() -> None:
    before, week, last = utc_now(), last_days(7), last_days(1)
    days = {each.astimezone(UTC).date() for each in (before, utc_now())}  # two at midnight
    assert last in days and week + timedelta(days=6) in days


# Selecting


def test_latest_returns_the_newest_of_each_configuration_in_list_order() -> None:
    old, new = (the_point(rate=r, when=NOW + timedelta(days=d)) for r, d in ((10.0, 0), (20.0, 1)))
    long, int4, fp32 = (
        the_point(prompt_tokens=512),
        the_point(precision="int4"),
        the_point(precision="fp32"),
    )
    assert latest([new, old, int4, long, fp32]) == [fp32, new, long, int4]


def test_quality_is_kept_when_the_speed_is_measured_again() -> None:
    judged = the_point(quality=a_quality(1.03))
    again = the_point(when=NOW + timedelta(days=1), prompt_tokens=512, contended=True)
    other = the_point(precision="int4")
    found = {point.id: point.quality for point in latest([judged, again, other])}
    assert found[again.id] == judged.quality and found[other.id] is None


def test_contended_figures_and_other_machines_do_not_replace_a_point() -> None:
    points = [the_point(), the_point(contended=True), the_point(host=a_host(name="other"))]
    assert len(latest(points)) == 3


def test_the_front_has_the_points_that_none_dominates() -> None:
    small, fast, worse, twin = (
        the_point(rate=rate, private_mb=mb)
        for rate, mb in ((20.0, 100), (40.0, 300), (30.0, 400), (40.0, 300))
    )
    assert list(pareto(point_frame([worse, fast, twin, small]))["point"]) == [small, fast]


def test_points_without_rate_or_memory_are_not_in_the_front() -> None:
    (no_rate,) = points_of_runs([a_row(None)])
    (no_memory,) = points_of_runs([a_row(memory_private_bytes=None)])
    assert pareto(point_frame([no_rate, no_memory])).empty


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=25))
def test_every_point_is_dominated_by_the_front(pairs: list[tuple[int, int]]) -> None:
    template = the_point()
    points = [
        replace(template, memory_private=memory, decode=Range(rate, rate, rate))
        for memory, rate in pairs
    ]
    front = list(pareto(point_frame(points))["point"])
    speeds = [point.decode.median for point in front if point.decode]
    assert speeds == sorted(set(speeds)), "each costs more memory and gives more speed"
    for point in points:
        assert any(
            (kept.memory or 0) <= (point.memory or 0) and kept.decode.median >= point.decode.median  # type: ignore[union-attr]
            for kept in front
        )
