"""Tests of quantities formatted as text."""

from __future__ import annotations

import pytest

from core.units import bytes_text, counted, milliseconds_text, parameters_text, rate_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (12_000, "12 kB"),
        (1536, "1.5 kB"),
        (412_300_000, "412 MB"),
        (999_600_000, "1.0 GB"),
        (5.55e9, "5.5 GB"),
        (2048e9, "2,048 GB"),
        (-5e8, "-500 MB"),
    ],
)
def test_bytes(size: float, text: str):
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(2_775_208_960, "2.78 B"), (410_000_000, "410 M"), (4_200_000, "4.2 M"), (12_000, "0.0 M")],
)
def test_parameters(count: int, text: str):
    assert parameters_text(count) == text


@pytest.mark.parametrize(
    ("duration", "text"), [(4.12, "4.1 ms"), (320.4, "320 ms"), (2400, "2.4 s"), (0, "0.0 ms")]
)
def test_milliseconds(duration: float, text: str):
    assert milliseconds_text(duration) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (534.4, "534 tokens/s"),
        (4.23, "4.2 tokens/s"),
        (None, "— tokens/s"),
        (1e4, "10,000 tokens/s"),
    ],
)
def test_rate(rate: float | None, text: str):
    assert rate_text(rate) == text


def test_counted_adds_the_plural_s():
    assert [counted(n, "measurement") for n in (0, 1, 2, 1000)] == [
        "0 measurements",
        "1 measurement",
        "2 measurements",
        "1,000 measurements",
    ]
