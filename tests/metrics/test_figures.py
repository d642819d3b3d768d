"""Figures follow their definitions."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.db.measurement_values import Figures, Round, Sample
from core.inference.timing import measure
from core.metrics.figures import are_apart, figures_of, nearest_of, percentile, spread
from tests.db.measurement_samples import a_configuration, a_round


def sample(*times_ms: float, total_ms: float | None = None) -> Sample:
    """An answer as reported by a worker, with the timing definitions of all answers."""
    total = times_ms[-1] if total_ms is None else total_ms
    timings = measure(0.0, 0.0, total / 1000, 1, [time / 1000 for time in times_ms])
    return Sample(
        ttft_ms=timings.ttft_ms,
        tpot_ms=timings.tpot_ms,
        total_ms=timings.total_ms,
        token_times_ms=times_ms,
    )


def figures(*rounds: Round, prompt_tokens: int = 64, **known: float | None) -> Figures:
    known = {"bytes_per_token": None, "bandwidth": None} | known
    return figures_of(rounds, a_configuration(prompt_tokens=prompt_tokens), **known)


def test_rates_are_medians_of_the_answers_rates() -> None:
    first = a_round(samples=(sample(100, 110, 120), sample(200, 220, 240)))
    second = a_round(samples=(sample(400, 440, 480, total_ms=500),))
    found = figures(first, second)
    assert found.decode_tokens_per_s == pytest.approx(50)
    assert (found.decode_low, found.decode_high) == pytest.approx((25, 100))
    assert found.prefill_tokens_per_s == pytest.approx(64 / 0.2)
    assert found.end_to_end_tokens_per_s == pytest.approx(3 / 0.24)
    assert (found.ttft_ms.low, found.ttft_ms.median, found.ttft_ms.high) == (100, 200, 400)
    assert found.tpot_ms.median == pytest.approx(20)
    assert (found.tpot_ms.low, found.tpot_ms.high) == pytest.approx((10, 40))


def test_speculation_has_an_acceptance_rate_and_no_bandwidth_utilisation() -> None:
    # Steps: the prompt's, one with two accepted guesses, one without.
    answer = replace(sample(100, 150, 150, 150, 200), draft_tokens=10)
    known = {"bytes_per_token": 1000, "bandwidth": 1e9}
    found = figures(a_round(samples=(answer,)), **known)
    assert (found.acceptance_rate, found.tokens_per_step) == pytest.approx((0.2, 5 / 3))
    assert found.decode_tokens_per_s == pytest.approx(40) and found.mbu is None
    plain = figures(a_round(samples=(sample(100, 110),)), **known)
    assert plain.acceptance_rate is None and plain.mbu is not None


def test_one_slow_token_shows_in_the_percentiles_and_hardly_in_the_rate() -> None:
    steady = [100 + 10 * n for n in range(100)]
    hiccup = [time + (500 if n >= 50 else 0) for n, time in enumerate(steady)]
    found = figures(a_round(samples=(sample(*steady), sample(*hiccup), sample(*steady))))
    assert found.decode_tokens_per_s == pytest.approx(100)
    assert found.decode_low == pytest.approx(1000 * 99 / (990 + 500))
    assert found.tpot_ms.p90 == pytest.approx(10)
    assert found.tpot_ms.high == pytest.approx(510)
    assert found.tpot_ms.p99 == pytest.approx(10), "one of 297 gaps is above the 99th percentile"


def test_process_figures_are_medians_and_peaks_the_highest() -> None:
    rounds = [
        a_round(
            load_s=load,
            compile_s=load / 2,
            memory_private_bytes=size,
            memory_file_backed_bytes=2 * size,
            memory_private_peak_bytes=3 * size,
            memory_file_backed_peak_bytes=4 * size,
            cpu_cores=load / 4,
            other_cpu_cores=load / 8,
            contended=load == 5.0,
        )
        for load, size in ((3.0, 1000), (5.0, 1003), (4.0, 9000))
    ]
    found = figures(*rounds)
    assert (found.load_s, found.compile_s) == (4.0, 2.0)
    assert (found.memory_private_bytes, found.memory_file_backed_bytes) == (1003, 2006)
    peaks = (found.memory_private_peak_bytes, found.memory_file_backed_peak_bytes)
    assert peaks == (27_000, 36_000)
    assert (found.cpu_cores, found.other_cpu_cores, found.contended) == (1.0, 0.5, True)
    two = figures(*rounds[:2])
    assert two.memory_private_bytes in (1001, 1002) and type(two.memory_private_bytes) is int
    assert not figures(rounds[0]).contended


def test_answers_of_one_token_have_no_decode_rate() -> None:
    found = figures(a_round(samples=(sample(80),)), bytes_per_token=10, bandwidth=1e9)
    assert found.tpot_ms is None and found.mbu is None
    assert (found.decode_tokens_per_s, found.decode_low, found.decode_high) == (None, None, None)
    assert found.ttft_ms.p99 == found.ttft_ms.low == 80
    assert found.prefill_tokens_per_s == pytest.approx(800)


def test_a_coarse_clock_causes_no_division_by_zero() -> None:
    """The clock of some systems has a resolution of 15 ms."""
    found = figures(a_round(samples=(sample(0, 0, 0),)), bytes_per_token=10, bandwidth=1e9)
    assert found.decode_tokens_per_s is None and found.mbu is None
    assert (found.prefill_tokens_per_s, found.end_to_end_tokens_per_s) == (0, 0)
    assert found.tpot_ms.median == 0


def test_mbu_needs_all_its_inputs() -> None:
    round_ = a_round(samples=(sample(100, 120, 140),))
    found = figures(round_, bytes_per_token=400_000_000, bandwidth=30e9)
    assert found.mbu == pytest.approx(400e6 * 50 / 30e9)
    assert found.bytes_per_token == 400_000_000
    assert figures(round_, bytes_per_token=400_000_000).mbu is None
    assert figures(round_, bandwidth=30e9).mbu is None
    assert figures(round_, bytes_per_token=1, bandwidth=0.0).mbu is None


def test_without_a_timed_answer_there_are_no_figures() -> None:
    with pytest.raises(ValueError, match="without a timed answer"):
        figures()
    with pytest.raises(ValueError, match="without a timed answer"):
        figures(replace(a_round(), samples=()))


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=50),
    st.sampled_from([0.0, 50.0, 90.0, 99.0, 100.0]),
)
def test_percentiles_equal_those_of_numpy(values: list[float], percent: float) -> None:
    expected = float(np.percentile(values, percent))
    assert percentile(sorted(values), percent) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_a_spread_is_ordered(values: list[float]) -> None:
    found = spread(values)
    ordered = [found.low, found.median, found.p90, found.p99, found.high]
    slack = 1e-9 * (1 + found.high)
    assert all(a <= b + slack for a, b in pairwise(ordered))
    assert (found.low, found.high) == (min(values), max(values))


# Core-to-core latency

NEAR, FAR = 110.0, 300.0


def test_answers_with_the_cores_apart_are_left_out_and_counted() -> None:
    near = replace(sample(100, 110), core_distance_ns=NEAR)
    far = replace(sample(300, 330), core_distance_ns=FAR)
    unknown = replace(sample(100, 112), core_distance_ns=None)
    found = figures(a_round(samples=(far, near)), a_round(samples=(unknown, far, far)))
    assert (found.answers, found.answers_apart, found.nearest_ns) == (2, 3, NEAR)
    assert found.decode_low == pytest.approx(1000 / 12), (
        "the 33 of the answers with high latency are left out"
    )
    assert (found.ttft_ms.high, found.tpot_ms.high) == (100, pytest.approx(12))
    assert not found.contended


def test_if_there_are_no_others_they_are_used_and_the_measurement_is_contended() -> None:
    far = replace(sample(300, 330), core_distance_ns=FAR)
    alone = figures(a_round(samples=(far,)))
    assert not alone.contended, "no lower latency is known; this may be normal for the machine"
    known = figures(a_round(samples=(far,)), nearest_ns=NEAR)
    assert known.contended and (known.answers, known.answers_apart) == (1, 0)
    assert known.ttft_ms.median == 300


def test_cores_are_apart_above_one_and_a_half_times_the_lowest_latency() -> None:
    assert not are_apart(1.5 * NEAR, NEAR) and are_apart(1.51 * NEAR, NEAR)
    assert not are_apart(None, NEAR) and not are_apart(FAR, None)
    assert nearest_of([]) is None and nearest_of([], NEAR) == NEAR
