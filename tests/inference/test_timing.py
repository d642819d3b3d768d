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
