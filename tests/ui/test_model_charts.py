"""Charts of the Models page: bits per weight and published scores."""

from __future__ import annotations

import pytest

from core.catalogue import published_scores
from core.ui.models.charts import bit_shares, bits_chart, scores_chart


def test_types_with_the_same_number_of_bits_are_added() -> None:
    shares = bit_shares({"u8": 30, "i4": 25, "u4": 25, "bf16": 10, "f32": 10, "i8": 0})
    assert shares == {4: 0.5, 8: 0.3, 16: 0.1, 32: 0.1}
    assert list(shares) == [4, 8, 16, 32]


@pytest.mark.parametrize("types", [{}, {"boolean": 3}, {"f16": 0}])
def test_no_weights_are_no_error(types: dict[str, int]) -> None:
    assert bit_shares(types) == {}
    assert not bits_chart(types).data


def test_a_tiny_share_is_not_shown_as_zero() -> None:
    names = [bar.name for bar in bits_chart({"u8": 999_999, "f32": 1}).data]
    assert names == ["8 bits · 100.0 %", "32 bits · under 0.1 %"]


def test_every_published_score_is_in_the_chart() -> None:
    table = published_scores()
    figure = scores_chart("dolly-v2-7b", "Dolly 2.0 7B", table)
    low, high = figure.layout.xaxis.range
    values = [value for trace in figure.data for value in trace.x]
    assert sorted(values) == sorted(v for row in table.values() for v in row.values())
    assert all(low < value < high for value in values)
