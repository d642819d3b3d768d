"""Figures equal the recorded ones; winners and ties."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from core.compare.figures import (
    MEASURES,
    DeltaRow,
    Direction,
    Figures,
    deltas,
    side_figures,
)
from core.compare.figures import stored_model as find_stored
from core.compare.timed_answers import Timing, timeline
from core.db import Origin, RunStore
from core.inference.answer import Answer, StopReason
from core.inference.job import Job
from core.inference.recorder import RunRecorder
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec
from core.settings import Settings
from core.store import ModelStore
from core.ui.compare.result import delta_table, verdict
from tests.compare.answers import answer, stored
from tests.compare.conftest import GREEDY, USER, Stable
from tests.waiting import PATIENCE_S


def rows(
    *answers: Answer | None, disk: tuple[int, ...] = (1000, 1000, 1000)
) -> dict[str, DeltaRow]:
    figures = [
        side_figures(found, stored("x", disk=size)) if found is not None else None
        for found, size in zip(answers, disk, strict=False)
    ]
    return {row.measure.key: row for row in deltas(figures)}


# Recorded figures


def test_figures_equal_the_recorded_ones(stable: Stable, tmp_path: Path):
    stable.add("one", "The cat is playing in the garden.")
    runs = RunStore.open(Settings(home=tmp_path))
    stable.observers["one"] = RunRecorder(runs, Origin.COMPARE)
    request = GenerationRequest("Why?", sampling=GREEDY)
    job: Job = stable.answer("one", request, origin=Origin.COMPARE, user=USER)
    assert job.wait(PATIENCE_S)
    row = runs.get(job.run_id).flat()
    runs.close()
    figures = side_figures(job.answer)
    shared = {field.name for field in fields(figures)} & row.keys() - {"ended_at", "token_times_ms"}
    assert len(shared) >= 20
    assert {name: getattr(figures, name) for name in shared} == {name: row[name] for name in shared}
    assert figures.new_tokens == len(job.answer.token_ids) > 5
    assert figures.decode_tokens_per_s > 0 and figures.memory_private_bytes == 3


def test_disk_is_the_stored_folder_and_unknown_without_one():
    assert side_figures(answer(), stored("x", disk=777)).disk_bytes == 777
    assert side_figures(answer()).disk_bytes is None


def test_answer_that_never_started_has_only_a_stop_reason():
    found = side_figures(Answer("", (), (), StopReason.CANCELLED, None))
    assert found.stop_reason == "cancelled" and found.contended is False
    numbers = {f.name for f in fields(found) if "float" in str(f.type) or "int" in str(f.type)}
    assert all(not getattr(found, name) for name in numbers - {"samples"})
    assert not any(found.samples.values())


def test_missing_model_has_no_size(tmp_path: Path):
    store = ModelStore(Settings(home=tmp_path))
    for name in ("paddock-neox", "no such model", "org/not-here"):
        assert find_stored(store, ModelSpec(name)) is None


# Winners


def test_faster_side_wins_rate_ttft_and_tpot_with_factor():
    found = rows(answer(gap_s=0.01, ttft_s=0.3), answer(gap_s=0.02, ttft_s=0.1))
    rate, ttft, tpot = (found[key] for key in ("decode_tokens_per_s", "ttft_ms", "tpot_ms"))
    assert (rate.winner, rate.measure.direction) == (0, Direction.HIGHER)
    assert (tpot.winner, tpot.measure.direction) == (0, Direction.LOWER)
    assert rate.factor == tpot.factor == pytest.approx(2.0)
    assert ttft.winner == 1 and ttft.factor == pytest.approx(3.0)
    assert rate.factor_text == "2.00 × as fast" and ttft.factor_text == "3.00 × as fast"
    assert ttft.texts == ("300 ms", "100 ms") and tpot.texts == ("10 ms", "20 ms")


def test_the_smaller_wins_memory_and_disk():
    small, large = (
        answer(private=2**20, file_backed=2**21),
        answer(private=2**22, file_backed=2**20),
    )
    found = rows(small, large, disk=(900, 1000))
    assert found["memory_private_bytes"].winner == 0
    assert found["memory_private_bytes"].factor_text == "the other takes 4.00 × as much"
    assert found["memory_file_backed_bytes"].winner == 1
    assert found["disk_bytes"].winner == 0 and found["disk_bytes"].factor == pytest.approx(10 / 9)


def test_more_tokens_are_not_better():
    row = rows(answer(ids=range(1, 90)), answer())["new_tokens"]
    assert row.values == (89, 4) and row.winner is None and row.factor_text is None


def test_factor_of_several_sides_is_relative_to_the_next_best():
    found = rows(answer(gap_s=0.04), answer(gap_s=0.01), answer(gap_s=0.02))
    row = found["decode_tokens_per_s"]
    assert row.winner == 1 and row.factor_text == "2.00 × as fast as the next"


def test_close_timings_and_equal_sizes_are_ties():
    found = rows(answer(gap_s=0.0100, ttft_s=0.100), answer(gap_s=0.0104, ttft_s=0.103))
    assert all(row.winner is None and row.factor is None for row in found.values())
    apart = rows(answer(gap_s=0.0100), answer(gap_s=0.0107), disk=(1000, 1010))
    assert apart["decode_tokens_per_s"].winner == 0 and apart["disk_bytes"].winner == 0


def test_several_leaders_do_not_make_the_rest_equal():
    found = rows(
        answer(gap_s=0.2, private=2**30),
        answer(gap_s=0.0100, private=2**20),
        answer(gap_s=0.0101, private=2**20),
    )
    row = found["decode_tokens_per_s"]
    assert (row.leaders, row.winner, row.factor) == ((1, 2), None, None)
    assert not row.equal and row.better_letters == ("B", "C")
    assert found["memory_private_bytes"].better_letters == ("B", "C")
    assert found["ttft_ms"].equal and found["ttft_ms"].better_letters == ()
    assert verdict(list(found.values())) == (
        "B and C decoded about equally fast, ahead of the others."
    )
    cells = {cell["Figure"]: cell for cell in delta_table(list(found.values()))}
    assert cells["Decode rate"]["Better"] == "**B** and **C**, about equal"
    assert cells["Decode rate"]["B"].startswith("**")
    assert not cells["Decode rate"]["A"].startswith("**")
    assert cells["Time to first token"]["Better"] == "about equal"
    assert cells["New tokens"]["Better"] == ""


def test_missing_value_is_a_dash_and_is_not_compared():
    nothing = Answer("", (), (), StopReason.ERROR, None)
    for other in (None, nothing):
        found = rows(answer(), other)
        assert all(row.winner is None for row in found.values())
        assert found["ttft_ms"].texts == ("100 ms", "—")
    of_three = rows(answer(gap_s=0.02), None, answer(gap_s=0.01))["tpot_ms"]
    assert of_three.winner == 2 and of_three.factor_text == "2.00 × as fast"


def test_value_of_zero_wins_without_a_factor():
    found = rows(answer(private=0), answer(private=2**20))["memory_private_bytes"]
    assert found.winner == 0 and found.factor is None and found.factor_text is None
    assert rows(answer(private=0), answer(private=0))["memory_private_bytes"].winner is None


def test_contention_marks_only_timings():
    found = rows(answer(contended=True), answer(gap_s=0.02))
    marked = {key for key, row in found.items() if row.contended}
    assert marked == {"decode_tokens_per_s", "ttft_ms", "tpot_ms"}
    assert found["decode_tokens_per_s"].winner == 0  # shown nevertheless, with a mark
    assert not any(row.contended for row in rows(answer(), answer()).values())


def test_winner_must_be_ahead_in_single_answers():
    def timed(*gaps: float) -> Figures:
        found = [answer(gap_s=gap, ttft_s=0.1) for gap in gaps]
        return side_figures(found[0], timing=Timing(tuple(found), cores_apart=False))

    def winner(*sides: Figures) -> tuple[int | None, int | None]:
        found = {row.measure.key: row for row in deltas(sides)}
        return found["decode_tokens_per_s"].winner, found["tpot_ms"].winner

    steady, slower = timed(*[0.010, 0.011, 0.012] * 3), timed(*[0.015, 0.016, 0.017] * 3)
    jumping = timed(*[0.008, 0.015, 0.009] * 2, 0.016)  # its median is ahead by a fifth
    assert winner(steady, slower) == (0, 0) and winner(slower, steady) == (1, 1)
    assert winner(steady, jumping) == (None, None)
    few = timed(0.013, 0.014)
    assert winner(steady, few) == (0, 0) and winner(few, timed(0.0135, 0.02)) == (None, None)
    once = timed(0.015)
    assert winner(steady, once) == (0, 0) and winner(once, timed(0.02)) == (0, 0)


def test_every_measure_is_a_figure_with_a_text():
    names = {field.name for field in fields(side_figures(answer()))}
    for measure in MEASURES:
        assert measure.key in names and measure.name and measure.text(2048.0)
        assert all(measure.words) == (measure.direction is not Direction.NEITHER)


# Timelines


def test_timeline_has_one_point_per_token_after_the_start():
    line = timeline(
        Timing((answer(ids=(1, 2, 3), ttft_s=0.1, gap_s=0.05, contended=True),), cores_apart=False)
    )
    assert line.seconds == pytest.approx((0.0, 0.1, 0.15, 0.2))
    assert line.tokens == (0, 1, 2, 3) and line.contended
    assert timeline(Timing((answer(ids=()),), cores_apart=False)).tokens == (0,)


def test_remote_chunks_share_the_reported_tokens():
    pieces = answer(ids=range(1, 6))
    told = replace(pieces, timings=replace(pieces.timings, new_tokens=20))
    assert timeline(Timing((told,), cores_apart=False)).tokens == (0, 4, 8, 12, 16, 20)
