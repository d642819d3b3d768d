"""Tests of the definitions of timings with known clock readings."""

from __future__ import annotations

import pytest

from core.inference.timing import measure


def test_definitions():
    timings = measure(10.0, 12.0, 17.0, 40, [14.0, 14.5, 15.5, 16.0])
    assert timings.queue_ms == 2000
    assert timings.ttft_ms == 2000  # excludes the time in the queue
    assert timings.tpot_ms == pytest.approx(2000 / 3)
    assert timings.total_ms == 5000
    assert (timings.prompt_tokens, timings.new_tokens) == (40, 4)
    assert timings.decode_tokens_per_s == pytest.approx(1.5)
    assert timings.end_to_end_tokens_per_s == pytest.approx(0.8)
    assert timings.prefill_tokens_per_s == pytest.approx(20)


def test_one_token_has_no_rate():
    timings = measure(0.0, 1.0, 3.0, 5, [2.0])
    assert timings.ttft_ms == 1000
    assert timings.tpot_ms is None and timings.decode_tokens_per_s is None


def test_no_token_has_no_figures():
    timings = measure(0.0, 1.0, 3.0, 5, [])
    assert timings.ttft_ms is None and timings.tpot_ms is None
    assert timings.decode_tokens_per_s is None
    assert timings.end_to_end_tokens_per_s is None
    assert timings.prefill_tokens_per_s is None
    assert timings.total_ms == 2000


def test_no_rate_when_the_clock_is_too_coarse():
    timings = measure(1.0, 1.0, 1.0, 5, [1.0, 1.0])
    assert timings.decode_tokens_per_s is None
    assert timings.end_to_end_tokens_per_s is None
    assert timings.prefill_tokens_per_s is None


def remote(*stamps_s: float, tokens: int | None = None) -> float | None:
    """Tokens/s of an answer whose chunks arrived at these times after its start."""
    timings = measure(0.0, 0.0, 9.0, 5, stamps_s, tokens, received=True)
    return timings.decode_tokens_per_s


def test_steady_chunks_of_a_remote_server_are_timed_like_tokens():
    assert remote(1.0, 1.1, 1.2, 1.3) == pytest.approx(10)
    assert remote(1.0, 1.1, 1.2, 1.3, tokens=7) == pytest.approx(20)
    assert remote(*[1.0 + n * 1e-3 for n in range(101)]) == pytest.approx(1000)
    with_a_pause = [1.0 + n * 1e-3 + (n > 50) * 3e-3 for n in range(101)]
    assert remote(*with_a_pause) == pytest.approx(1000, rel=0.05)


def test_tokens_that_arrive_with_the_first_one_are_not_counted():
    together = [2.0 + n * 1e-4 for n in range(50)]
    later = [3.0 + n * 1e-4 for n in range(50)]
    assert remote(*together, *later) == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize(
    "stamps_s",
    [
        [2.0 + n * 1e-4 for n in range(100)],
        [2.0 + n * 1e-4 + (n > 60) * 5e-3 for n in range(100)],
        [2.0 + n * 2e-4 + (n > 60) * 5e-3 for n in range(2000)],
        [0.1 + n * 2e-4 for n in range(50)],
        [1.0, 1.0],
    ],
    ids=["all at once", "with a pause", "many at once", "a fast server", "same moment"],
)
def test_answer_that_arrives_all_at_once_has_no_rate(stamps_s: list[float]):
    assert remote(*stamps_s) is None
