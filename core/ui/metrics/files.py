"""Export and import of measurements on the Metrics page."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from core.db.measurement_values import Measurement
from core.errors import PaddockError
from core.inference.engine import Engine
from core.metrics.document import MAX_BYTES, from_json, to_json
from core.metrics.rows import PointFilter, subject_of_run
from core.metrics.tables import csv_text, to_csv, to_markdown
from core.ui.compare.state import hidden_runs
from core.ui.metrics.data import Chosen
from core.ui.metrics.tables import answer_row
from core.ui.widgets.actions import draw_download, draw_error, tell
from core.ui.widgets.person import may_manage
from core.units import bytes_text, counted

_UPLOADS = "metrics_uploads"


def draw_export(engine: Engine, chosen: Chosen, which: PointFilter) -> None:
    """Draw downloads of the filtered data; the files are created on click."""
    with st.popover("Export", icon=":material/download:", key="metrics_export"):
        st.caption(
            f"{counted(len(chosen.measurements), 'measurement')} shown. The JSON file can be "
            f"imported on another machine without loss, if it has at most {bytes_text(MAX_BYTES)}."
        )
        for ending, export in (("json", to_json), ("csv", to_csv), ("md", to_markdown)):
            draw_download(
                f"paddock-benchmark.{ending}",
                lambda export=export: export(_with_rounds(engine, chosen)),
                f"metrics_{ending}",
                disabled=not chosen.measurements,
            )
        st.caption("The answers shown, without instructions and answer texts.")
        hidden = hidden_runs()  # the download runs outside the session
        draw_download(
            "paddock-answers.csv",
            lambda: answers_csv(engine, which, hidden),
            "metrics_answers",
            label="Answers as CSV",
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
            draw_error(error)
            return
    skipped = f"; {outcome.already_there} already existed" if outcome.already_there else ""
    tell(f"Imported {counted(outcome.added, 'measurement')}{skipped}.")
    st.session_state[_UPLOADS] = uploads + 1  # closes the popover and clears the uploader
    st.rerun()


def answers_csv(engine: Engine, which: PointFilter, hidden: Collection[str] = ()) -> str:
    """Return all matching answers, newest first, without instructions and answer texts."""
    return csv_text(
        [
            answer_row(row)
            for row in engine.runs.chart_rows()
            if row.id not in hidden and which.matches(subject_of_run(row), row.started_at)
        ]
    )


def _with_rounds(engine: Engine, chosen: Chosen) -> list[Measurement]:
    """Return the measurements shown, including their rounds."""
    wanted = {each.id for each in chosen.measurements}
    return [each for each in engine.measurements.all() if each.id in wanted]
