"""CSV files open in spreadsheets with their letters as they are."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from core.metrics.rows import PointFilter
from core.metrics.tables import to_csv
from core.ui.metrics.files import answers_csv
from tests.metrics.row_samples import a_measurement, a_row

TITLE = "modèle-多"


def answers() -> str | bytes:
    runs = SimpleNamespace(chart_rows=lambda: [a_row(title=TITLE)])
    return answers_csv(SimpleNamespace(runs=runs), PointFilter())


def measurements() -> str | bytes:
    return to_csv([a_measurement("int8", 40.0, title=TITLE)])


@pytest.mark.parametrize("file", [answers, measurements])
def test_a_csv_file_begins_with_a_byte_order_mark(file: Callable[[], str | bytes]) -> None:
    made = file()
    content = made if isinstance(made, bytes) else made.encode()
    assert TITLE in content.decode("utf-8-sig")
    assert content.startswith(codecs.BOM_UTF8)
