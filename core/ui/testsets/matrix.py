"""Results of a run: scores, the matrix of cases and candidates, and one case with its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from core.compare.setup import LETTERS
from core.evaluation.checks import Verdict
from core.evaluation.plan import Result
from core.evaluation.report import Change, Report, Summary
from core.evaluation.statistics import Share
from core.ui.compare.setup import SIDE_BADGES
from core.ui.widgets.answer_text import draw_answer, draw_plain
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, counted, milliseconds_text, rate_text

ALL_CASES, FAILED, DIFFER, REGRESSED = "All", "Failed", "Differ", "Regressed"
_MARKS = {Verdict.PASS: "✓ pass", Verdict.FAIL: "✗ fail", Verdict.ERROR: "! error"}
_BACKGROUNDS = {
    _MARKS[Verdict.PASS]: "background-color: rgba(47, 158, 98, 0.20)",
    _MARKS[Verdict.FAIL]: "background-color: rgba(220, 60, 60, 0.22)",
    _MARKS[Verdict.ERROR]: "background-color: rgba(217, 115, 13, 0.28)",
}
_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.ERROR: "orange"}
_NUMBER, _INSTRUCTION = "#", "Instruction"


def draw_summary(report: Report, baseline: Report | None) -> None:
    """Draw a line for each candidate: share of passed cases, comparison, speed, memory."""
    changes = report.changes(baseline) if baseline is not None else None
    rows = [
        _summary_row(report, index, summary, changes[index] if changes else None)
        for index, summary in enumerate(report.summaries())
    ]
    filled = [name for name in rows[0] if any(row[name] for row in rows)]
    with st.container(key="scores"):
        st.table(
            [{name: row[name] or "—" for name in filled} for row in rows],
            border="horizontal",
            hide_index=True,
        )
    if changes is not None and changes[0].unmatched:
        st.caption(f"{counted(changes[0].unmatched, 'case')} not in the baseline.")


def _summary_row(
    report: Report, index: int, summary: Summary, change: Change | None
) -> dict[str, str]:
    title = safe_inline(summary.label)
    memory = ""
    if summary.private_bytes is not None:
        memory = (
            f"{bytes_text(summary.private_bytes)} + {bytes_text(summary.file_backed_bytes or 0)}"
        )
    rate = summary.decode_tokens_per_s
    changed = ""
    if change is not None:
        changed = f"{len(change.regressed)} regressed, {len(change.mended)} mended"
        if change.regressed:
            changed = f":red[**{changed}**]"
    return {
        "Candidate": f":{SIDE_BADGES[index]}-badge[{LETTERS[index]}] {title}",
        "Passed": _share_text(summary.share),
        "Compared with A": safe_inline(report.paired(0, index).sentence) if index else "",
        "Since the baseline": changed,
        "Errors": str(summary.errors) if summary.errors else "",
        "Mean F1": "" if summary.mean_f1 is None else f"{summary.mean_f1:.2f}",
        "Mean log p": "" if summary.mean_likelihood is None else f"{summary.mean_likelihood:.2f}",
        "Decode": rate_text(rate) if rate else "",
        "First token": milliseconds_text(summary.ttft_ms) if summary.ttft_ms else "",
        "Private + file-backed memory": memory,
    }


def _share_text(share: Share) -> str:
    if share.share is None:
        return ""
    return (
        f"**{share.share:.0%}** ({share.low * 100:.0f}–{share.high:.0%}) · "
        f"{share.passed} of {share.n}"
    )


def draw_matrix(report: Report, baseline: Report | None, key: str) -> None:
    """Draw the filters, the matrix and the selected case."""
    tags = report.tags
    cases, scores = st.tabs(["Cases", "By tag"]) if tags else (st.container(), None)
    if scores is not None:
        with scores:
            st.dataframe(_tag_rows(report, tags), hide_index=True, key=f"tags_{key}")
            st.caption("Share of passed cases with its 95 % interval, and the number of cases.")
    with cases:
        numbers = _filtered(report, baseline, tags, key)
        if not numbers:
            st.caption("No case matches the filter.")
            return
        few = len(report.candidates) <= 3  # these and a part of the text fit a phone
        table, beside = st.columns([3, 2], gap="medium")
        event = table.dataframe(
            _matrix(report, numbers),
            key=f"matrix_{key}_{hash(tuple(numbers))}",
            hide_index=True,
            height=min(460, 38 + 35 * len(numbers)),
            on_select="rerun",
            selection_mode="single-cell",
            column_config={
                _NUMBER: st.column_config.NumberColumn(width=44, pinned=True),
                _INSTRUCTION: st.column_config.TextColumn(),
                **{
                    LETTERS[index]: st.column_config.TextColumn(
                        LETTERS[index], help=each.label, width=76, pinned=few
                    )
                    for index, each in enumerate(report.candidates)
                },
            },
            alt="Verdicts: a row for each case, a column for each candidate",
        )
        cells: Sequence[tuple[int, str]] = event["selection"]["cells"]
        with beside:  # in view, however long the table is
            if not cells or not 0 <= cells[0][0] < len(numbers):
                st.caption("Select a cell to read its answer.")
                return
            row, column = cells[0]
            _draw_case(report, baseline, numbers[row], column, key)


def _filtered(report: Report, baseline: Report | None, tags: Sequence[str], key: str) -> list[int]:
    """Draw the filters and return the indices of the cases that they leave."""
    candidates, everything = range(len(report.candidates)), range(len(report.cases))

    def failed(number: int) -> bool:
        results = (report.result(index, number) for index in candidates)
        return any(each and each.verdict in (Verdict.FAIL, Verdict.ERROR) for each in results)

    found = {ALL_CASES: set(everything), FAILED: set(filter(failed, everything))}
    if len(candidates) > 1:
        found[DIFFER] = set(filter(report.differing, everything))
    if baseline is not None:
        changes = report.changes(baseline)
        found[REGRESSED] = {number for change in changes for number in change.regressed}
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        which = st.segmented_control(
            "Cases",
            list(found),
            format_func=lambda name: f"{name} {len(found[name])}",
            default=ALL_CASES,
            required=True,
            key=f"filter_{key}",
            label_visibility="collapsed",
        )
        wanted = tags and st.multiselect(
            "Tags",
            tags,
            key=f"filter_tags_{key}",
            placeholder="All tags",
            label_visibility="collapsed",
            width=320,
        )
    numbers = sorted(found.get(which or ALL_CASES, set(everything)))
    return [n for n in numbers if not wanted or set(wanted) & set(report.cases[n].tags)]


def _matrix(report: Report, numbers: Sequence[int]) -> Any:
    """Return the table, in which a verdict is a mark, a word and a colour."""
    import pandas as pd

    letters = LETTERS[: len(report.candidates)]
    rows = []
    for number in numbers:
        row: dict[str, Any] = {_NUMBER: number + 1}
        for index, letter in enumerate(letters):
            result = report.result(index, number)
            row[letter] = "…" if result is None else _MARKS.get(result.verdict, "answered")
        row[_INSTRUCTION] = " ".join(report.cases[number].instruction.split())
        rows.append(row)
    return pd.DataFrame(rows).style.map(
        lambda mark: _BACKGROUNDS.get(mark, ""), subset=list(letters)
    )


def _tag_rows(report: Report, tags: Sequence[str]) -> list[dict[str, str]]:
    rows = []
    for tag in ("", *tags):
        row = {"Tag": tag or "All cases"}
        for index in range(len(report.candidates)):
            row[LETTERS[index]] = _share_text(report.share(index, tag)).replace("**", "") or "—"
        rows.append(row)
    return rows


# One case


def _draw_case(report: Report, baseline: Report | None, number: int, column: str, key: str) -> None:
    """Draw a case with the answer of the selected candidate, or with all answers."""
    case, candidates = report.cases[number], report.candidates
    chosen = [i for i in range(len(candidates)) if LETTERS[i] == column] or [
        *range(len(candidates))
    ]
    with st.container(border=True, key="test_case"):
        st.caption(f"Case {number + 1}" + "".join(f" · {safe_inline(tag)}" for tag in case.tags))
        draw_plain(case.instruction, bold=True)
        if case.context:
            with st.expander("Context", type="compact"):
                draw_plain(case.context)
        if case.expected:
            with st.expander("Expected answer", type="compact", expanded=len(case.expected) < 300):
                draw_plain(case.expected)
        before = _before(report, baseline, number, chosen)
        for index in chosen:
            label, result = candidates[index].label, report.result(index, number)
            st.markdown(f":{SIDE_BADGES[index]}-badge[{LETTERS[index]}] **{safe_inline(label)}**")
            if result is None:
                st.caption("Not answered yet.")
            else:
                _draw_answer_of(result, f"{key}_{number}_{index}")
        if before is not None:
            st.markdown("**Baseline**")
            _draw_answer_of(before, f"{key}_{number}_before")


def _before(
    report: Report, baseline: Report | None, number: int, chosen: Sequence[int]
) -> Result | None:
    """Return the baseline's result if one candidate is selected and the answer has changed."""
    if baseline is None or len(chosen) != 1:
        return None
    before, now = report.counterpart(chosen[0], number, baseline), report.result(chosen[0], number)
    if before is None or now is None:
        return None
    return before if (before.answer, before.verdict) != (now.answer, now.verdict) else None


def _draw_answer_of(result: Result, key: str) -> None:
    if result.error:
        st.error(safe_inline(result.error), icon=":material/error:")
    elif result.answer:
        draw_answer(result.answer, key)
    else:
        st.caption("The answer is empty.")
    for outcome in result.outcomes:
        colour = _COLOURS[outcome.verdict]
        value = "" if outcome.value is None else f" = {outcome.value:.2f}"
        detail = f" — {safe_inline(outcome.detail)}" if outcome.detail else ""
        st.caption(
            f":{colour}[{_MARKS[outcome.verdict]}] {safe_inline(outcome.check)}{value}{detail}"
        )
    parts = [f"{result.new_tokens:,} tokens" if result.new_tokens is not None else ""]
    if result.decode_tokens_per_s:
        busy = " (measured while busy)" if result.contended else ""
        parts.append(f"{rate_text(result.decode_tokens_per_s)}{busy}")
    parts.append(result.stop_reason.value if result.stop_reason else "")
    st.caption(" · ".join(part for part in parts if part))
