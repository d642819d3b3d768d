"""Charts of the Models page: formats of the weights and published scores."""

from __future__ import annotations

from core.catalogue import published_scores
from core.ui.models.charts import formats_chart, scores_chart


def test_formats_are_shown_by_bits_with_their_shares() -> None:
    bars = formats_chart({"FP16": 10, "INT8": 30, "MXFP4": 60}).data
    assert [bar.name for bar in bars] == ["MXFP4 · 60.0 %", "INT8 · 30.0 %", "FP16 · 10.0 %"]
    assert sum(bar.x[0] for bar in bars) == 100


def test_no_weights_are_no_error() -> None:
    assert all(len(bar.x) == 0 for bar in formats_chart({}).data)


def test_a_tiny_share_is_not_shown_as_zero() -> None:
    names = [bar.name for bar in formats_chart({"INT8": 999_999, "FP32": 1}).data]
    assert names == ["INT8 · 100.0 %", "FP32 · under 0.1 %"]


def test_every_published_score_is_in_the_chart() -> None:
    table = published_scores()
    figure = scores_chart("dolly-v2-7b", "Dolly 2.0 7B", table)
    low, high = figure.layout.xaxis.range
    values = [value for trace in figure.data for value in trace.x]
    assert sorted(values) == sorted(v for row in table.values() for v in row.values())
    assert all(low < value < high for value in values)
