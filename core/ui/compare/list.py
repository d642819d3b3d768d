"""Lists of instructions on the Compare page: input, progress and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from core.compare.match import SideState
from core.compare.report import MatchReport
from core.compare.series import Series
from core.compare.setup import LETTERS
from core.compare.timed_answers import known_median
from core.db import Verdict
from core.errors import PaddockError
from core.evaluation.cases import SEPARATOR, Case, checked, decode_upload, read_test_set
from core.ui.compare.columns import draw_answers, refresh_interval_s
from core.ui.compare.history import draw_list_export
from core.ui.compare.state import CompareState, Entry, MatchView
from core.ui.widgets.actions import action
from core.ui.widgets.answer_text import draw_plain
from core.ui.widgets.link import link_texts, texts_linked
from core.ui.widgets.safe_text import safe_inline
from core.units import counted, milliseconds_text, rate_text

LIST = "list"
"""Key of the text area and name of its URL parameter."""
UNATTENDED = "list_unattended"
"""Key of the checkbox."""
MAX_INSTRUCTIONS = 200
SHOWN_ROWS = 5
"""Rows of the results table without scrolling, so that the answers below it are in the window."""
_NOT_RUN: dict[str, Any] = {"Fastest": "", "Measured while busy": False}
_FILE = "list_file"
"""Name and content of the uploaded file, kept in the session state across page switches."""


def draw_list_input() -> tuple[Case, ...]:
    """Draw the text area and return the instructions; empty if invalid."""
    link_texts(LIST)
    file: tuple[str, bytes] | None = st.session_state.get(_FILE)
    typed = st.text_area(
        "Instructions, one per line",
        key=LIST,
        persist_state="session",
        height=96,
        label_visibility="collapsed",
        disabled=file is not None,
        placeholder="One instruction per line:\nSuggest three names for a sailing boat.\n"
        "How does a CPU differ from a GPU?",
        help=f"Up to {MAX_INSTRUCTIONS}. A line {SEPARATOR} between them lets each have several "
        "lines. A table (CSV) or JSON lines may give each a context passage too.",
    )
    if file is None and not (typed or "").strip():
        return ()
    # What is typed is plain text, even if it looks like JSON.
    name, data = file or ("typed.txt", None)
    try:
        text = typed if data is None else decode_upload(data, name)
        return checked(read_test_set(text, name, plain=True), MAX_INSTRUCTIONS).cases
    except PaddockError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        return ()


def draw_list_options(count: int) -> None:
    """Draw the upload and the number of instructions in a popover."""
    label = counted(count, "instruction") if count else "Upload"
    with st.popover(
        label, icon=":material/checklist:", type="tertiary", key="list_box", width="content"
    ):
        st.file_uploader(
            "A .txt, .csv, .json or .jsonl file",
            type=["txt", "csv", "tsv", "json", "jsonl", "ndjson", "md"],
            key="list_upload",
            on_change=_keep_upload,
        )
        if _FILE in st.session_state:
            label = "Use the typed list instead"
            action(label, "close", "forget_upload", st.session_state.pop, _FILE, None)
        st.checkbox(
            "Go on after this page is closed",
            key=UNATTENDED,
            persist_state="session",
            help="Otherwise the run ends when the page has been closed for a minute.",
        )


def list_linked() -> bool:
    """Return whether the URL contains the whole list."""
    return _FILE not in st.session_state and texts_linked(LIST)


def _keep_upload() -> None:
    upload = st.session_state.get("list_upload")
    if upload is not None:
        st.session_state[_FILE] = (upload.name, upload.getvalue())


# Results


def draw_list(entry: Entry, state: CompareState) -> MatchView | None:
    """Draw a running or finished list.

    Returns:
        The comparison that the user selected in a finished list, if any.
    """
    series = entry.run
    assert isinstance(series, Series)
    running, views = series.running, entry.views
    if running:
        st.fragment(_draw_progress, run_every=refresh_interval_s())(series, len(views))
        for view in views[-1:]:
            with st.container(key="current"):
                draw_plain(view.match.setup.request.instruction, bold=True)
                draw_answers(view, state, actions=False)
        return None
    reports = [view.report for view in views]
    done, count = series.progress
    stopped = " The run was stopped." if series.stopped else ""
    if series.abandoned:
        stopped = " The run ended because the page had been closed for a minute."
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{done} of {count} instructions completed.**{stopped}", width="content")
        st.markdown(tally(views), width="stretch")
        if entry.hidden:
            action(
                "Reveal now",
                "visibility",
                "reveal_list",
                *(state.reveal, entry),
                help="Otherwise names and figures are shown after you have voted on every "
                "instruction with complete answers.",
            )
        draw_list_export(entry)
    if reports and not entry.hidden:
        st.table(summary_table(reports), border="horizontal", hide_index=True)
        if not all(report.timed for report in reports):
            st.caption(
                ":material/timer: Each instruction runs once. The fastest side is shown only where "
                "all answers took at least one second. To time shorter answers, run a single "
                "instruction in *Fair* mode."
            )
    rows = [list_row(at, report, hidden=entry.hidden) for at, report in enumerate(reports, 1)]
    for number, setup in enumerate(series.setups[len(rows) :], len(rows) + 1):
        row = {"#": number, "Instruction": setup.request.instruction, "Your vote": ""}
        rows.append(row | {"State": "not run"} | ({} if entry.hidden else _NOT_RUN))
    picked = st.dataframe(
        rows,
        hide_index=True,
        height=38 + 35 * min(count, SHOWN_ROWS),
        key=f"list_{series.id}_{entry.selected}",  # another key: the default counts again
        on_select="rerun",
        selection_mode="single-row",
        selection_default={"selection": {"rows": [entry.selected]}},
        column_config={
            "#": st.column_config.NumberColumn(width=40),
            "Instruction": st.column_config.TextColumn(width="medium"),
            "State": st.column_config.TextColumn(width="small"),
            "Measured while busy": st.column_config.CheckboxColumn(
                help="The timings are not comparable, because another generation was running at "
                "the same time or the host had moved the processor cores apart."
            ),
        },
    )
    chosen = picked["selection"]["rows"]
    if not chosen:
        st.caption("Select a row to read its answers and vote on them.")
        return None
    if chosen[0] >= len(views):
        st.caption("This instruction was not run.")
        return None
    return views[chosen[0]]


def tally(views: Sequence[MatchView]) -> str:
    """Return how often each side was chosen: ``A 3 · B 2 · tie 0``; empty without a vote."""
    best = [view.judgement.best for view in views if view.judgement is not None]
    if not best:
        return ""
    sides = range(len(views[0].match.setup.sides))
    parts = [f"{LETTERS[side]} {best.count(side)}" for side in sides]
    parts.append(f"tie {best.count(Verdict.TIE)}")
    if Verdict.BOTH_BAD in best:
        parts.append(f"none good {best.count(Verdict.BOTH_BAD)}")
    return "Votes: " + " · ".join(parts)


def _draw_progress(series: Series, drawn: int) -> None:
    """Draw the progress; rerun the page when more comparisons have started than it shows."""
    if not series.running or len(series.matches) != drawn:
        st.rerun()
    done, count = series.progress
    st.progress(done / count, text=f"Instruction {min(done + 1, count)} of {count}")


def list_row(number: int, report: MatchReport, *, hidden: bool) -> dict[str, Any]:
    """Return one row of the results table; without figures while they are hidden."""
    sides = report.sides
    failed = [side.letter for side in sides if side.state is SideState.FAILED]
    answered = all(side.state is SideState.DONE for side in sides)
    ending = f"{' and '.join(failed)} failed" if failed else "answered" if answered else "stopped"
    cells: dict[str, Any] = {"#": number, "Instruction": report.request.instruction}
    cells |= {"Your vote": report.verdict or "", "State": ending}
    if hidden:
        return cells
    figures = [(side.letter, side.figures) for side in sides]
    cells |= {
        f"{letter} tokens/s": _rounded(each and each.decode_tokens_per_s)
        for letter, each in figures
    }
    cells["Fastest"] = LETTERS[report.fastest] if report.fastest is not None else ""
    if report.pairs and answered:  # else the first pair may not be that of the other rows
        found = report.pairs[0].divergence
        same = "never" if found.identical else "not before the cut"
        cells["Diverge at"] = same if found.index is None else f"token {found.index + 1:,}"
    cells["Measured while busy"] = report.contended
    cells |= {f"{letter} TTFT ms": _rounded(each and each.ttft_ms) for letter, each in figures}
    cells |= {f"{letter} tokens": each.new_tokens if each else None for letter, each in figures}
    return cells


def summary_table(reports: Sequence[MatchReport]) -> list[dict[str, str]]:
    """Return one row per side with the figures over all comparisons of a list."""
    timed = sum(report.timed for report in reports)
    table = []
    for index, sides in enumerate(zip(*(report.sides for report in reports), strict=True)):
        figures = [side.figures for side in sides if side.figures is not None]
        rate = known_median(each.decode_tokens_per_s for each in figures)
        ttft_ms = known_median(each.ttft_ms for each in figures)
        mark = " :material/warning:" if any(each.disturbed for each in figures) else ""
        # A table cell is Markdown, and the name of a model is untrusted text.
        title = safe_inline(f"{sides[0].title} · {sides[0].spec.variant}")
        fastest = sum(report.fastest == index for report in reports)
        table.append(
            {
                "Side": f"**{sides[0].letter}** · {title}",
                "Answered": str(sum(side.state is SideState.DONE for side in sides)),
                "Failed": str(sum(side.state is SideState.FAILED for side in sides)),
                "Median rate": rate_text(rate) + mark,
                "Median TTFT": ("—" if ttft_ms is None else milliseconds_text(ttft_ms)) + mark,
                "Tokens": f"{sum(each.new_tokens or 0 for each in figures):,}",
                "Fastest": f"{fastest} of {timed}" if timed else "—",
            }
        )
    return table


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
