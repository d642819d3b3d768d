"""Measurements as files: download what is shown, take in another machine's."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

import streamlit as st

from core.db.measurement_values import Measurement
from core.engine import Engine
from core.errors import PaddockError
from core.metrics.document import (
    MAX_BYTES,
    from_json,
    max_json_size,
    spreadsheet_text,
    to_csv,
    to_json,
    to_markdown,
)
from core.metrics.rows import PointFilter, subject_of_run
from core.ui.metrics.data import Chosen
from core.ui.metrics.tables import answer_rows
from core.ui.widgets.person import may_manage
from core.ui.widgets.safe_text import safe_inline
from core.units import counted

_NOTICE, _UPLOADS = "metrics_notice", "metrics_uploads"

_FORMATS: tuple[tuple[str, str, str, str, Callable[[Sequence[Measurement]], str]], ...] = (
    ("JSON", "json", "application/json", "data_object", to_json),
    ("CSV", "csv", "text/csv", "table", to_csv),
    ("Markdown", "md", "text/markdown", "markdown", to_markdown),
)


def draw_notice() -> None:
    """What the last click did, once."""
    if notice := st.session_state.pop(_NOTICE, None):
        st.toast(notice, icon=":material/check_circle:")


def notify(sentence: str) -> None:
    """Show a sentence on the next drawing of the page."""
    st.session_state[_NOTICE] = sentence


def draw_export(engine: Engine, chosen: Chosen, which: PointFilter) -> None:
    """Downloads of what the filter leaves; made when they are asked for."""
    with st.popover("Export", icon=":material/download:", key="metrics_export"):
        st.caption(
            f"{counted(len(chosen.measurements), 'measurement')} shown. The JSON file can be "
            "imported on another machine, without loss."
        )
        too_large = max_json_size(chosen.measurements) > MAX_BYTES
        if too_large:
            st.caption(
                ":material/info: That is more than one JSON file may hold "
                f"({MAX_BYTES // 2**20} MiB); filter the measurements and export them in parts."
            )
        for label, ending, mime, icon, export in _FORMATS:
            st.download_button(
                label,
                lambda export=export: export(_with_rounds(engine, chosen)),
                file_name=f"paddock-benchmark.{ending}",
                mime=mime,
                icon=f":material/{icon}:",
                key=f"metrics_{ending}",
                on_click="ignore",
                disabled=not chosen.measurements or (too_large and ending == "json"),
            )
        st.caption("The answers shown, without anybody's words.")
        st.download_button(
            "Answers as CSV",
            lambda: answers_csv(engine, which),
            file_name="paddock-answers.csv",
            mime="text/csv",
            icon=":material/table:",
            key="metrics_answers",
            on_click="ignore",
            disabled=not chosen.answers_in_all,
        )


def draw_import(engine: Engine) -> None:
    """Take in the JSON file of another machine, so that both are charted together."""
    if not may_manage():
        return
    uploads = st.session_state.setdefault(_UPLOADS, 0)
    # Another key, another popover: that one is closed.
    with st.popover("Import", icon=":material/upload:", key=f"metrics_import_{uploads}"):
        file = st.file_uploader(
            "Benchmark of another machine (JSON)",
            type=["json"],
            max_upload_size=MAX_BYTES // 2**20,
            key=f"metrics_file_{uploads}",
            help="What Export, or `python -m core bench --json`, wrote there.",
        )
        if file is None:
            return
        try:
            outcome = engine.measurements.import_all(from_json(file.getvalue()))
        except PaddockError as error:
            st.error(safe_inline(str(error)), icon=":material/error:")
            return
    there = f"; {outcome.already_there} were there already" if outcome.already_there else ""
    notify(f"Imported {counted(outcome.added, 'measurement')}{there}.")
    st.session_state[_UPLOADS] = uploads + 1  # a closed popover, an uploader without the file
    st.rerun()


def answers_csv(engine: Engine, which: PointFilter) -> str:
    """All answers that the filter takes, the newest first; nobody's words are among them."""
    rows = [
        row
        for row in engine.runs.chart_rows()
        if which.matches(subject_of_run(row), row.started_at)
    ]
    table = answer_rows(rows)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table[0] if table else ())
    for row in table:
        writer.writerow(
            [spreadsheet_text(cell) if isinstance(cell, str) else cell for cell in row.values()]
        )
    return text.getvalue()


def _with_rounds(engine: Engine, chosen: Chosen) -> list[Measurement]:
    """The measurements shown, in full."""
    wanted = {each.id for each in chosen.measurements}
    return [each for each in engine.measurements.all() if each.id in wanted]
