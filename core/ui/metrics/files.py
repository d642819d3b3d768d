"""Export and import of measurements on the Metrics page."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

import streamlit as st

from core.db.measurement_values import Measurement
from core.errors import PaddockError
from core.inference.engine import Engine
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
from core.units import bytes_text, counted

_NOTICE, _UPLOADS = "metrics_notice", "metrics_uploads"

_FORMATS: tuple[tuple[str, str, str, str, Callable[[Sequence[Measurement]], str]], ...] = (
    ("JSON", "json", "application/json", "data_object", to_json),
    ("CSV", "csv", "text/csv", "table", to_csv),
    ("Markdown", "md", "text/markdown", "markdown", to_markdown),
)


def draw_notice() -> None:
    """Draw the result of the last action once."""
    if notice := st.session_state.pop(_NOTICE, None):
        st.toast(notice, icon=":material/check_circle:")


def draw_export(engine: Engine, chosen: Chosen, which: PointFilter) -> None:
    """Draw downloads of the filtered data; the files are created on click."""
    with st.popover("Export", icon=":material/download:", key="metrics_export"):
        st.caption(
            f"{counted(len(chosen.measurements), 'measurement')} shown. The JSON file can be "
            "imported on another machine without loss."
        )
        too_large = max_json_size(chosen.measurements) > MAX_BYTES
        if too_large:
            st.caption(
                f":material/info: A JSON file may have at most {bytes_text(MAX_BYTES)}. Filter the "
                "measurements and export them in parts."
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
        st.caption("The answers shown, without instructions and answer texts.")
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
    """Draw the import of another machine's JSON file, which is then charted together."""
    if not may_manage():
        return
    uploads = st.session_state.setdefault(_UPLOADS, 0)
    # A new key creates a new popover, which is closed.
    with st.popover("Import", icon=":material/upload:", key=f"metrics_import_{uploads}"):
        file = st.file_uploader(
            "Benchmark of another machine (JSON)",
            type=["json"],
            max_upload_size=MAX_BYTES // 2**20,
            key=f"metrics_file_{uploads}",
            help="A file written by Export or by `python -m core bench --json`.",
        )
        if file is None:
            return
        try:
            outcome = engine.measurements.import_all(from_json(file.getvalue()))
        except PaddockError as error:
            st.error(safe_inline(str(error)), icon=":material/error:")
            return
    skipped = f"; {outcome.already_there} already existed" if outcome.already_there else ""
    st.session_state[_NOTICE] = f"Imported {counted(outcome.added, 'measurement')}{skipped}."
    st.session_state[_UPLOADS] = uploads + 1  # closes the popover and clears the uploader
    st.rerun()


def answers_csv(engine: Engine, which: PointFilter) -> str:
    """Return all matching answers, newest first, without instructions and answer texts."""
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
    """Return the measurements shown, including their rounds."""
    wanted = {each.id for each in chosen.measurements}
    return [each for each in engine.measurements.all() if each.id in wanted]
