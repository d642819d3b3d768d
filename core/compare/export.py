"""Export a comparison as Markdown, JSON or HTML, and a list of them as CSV, too.

The same report gives the same bytes. Texts from models, users and file names are escaped, so that
they stay plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.compare.html_page import to_html
from core.compare.report import MatchReport, SideReport
from core.compare.setup import LETTERS
from core.compare.wording import (
    caution,
    conditions,
    figures_line,
    medians,
    sampling_text,
    status,
)
from core.markdown import code_span, fenced
from core.metrics.tables import csv_text
from core.units import listed

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def to_json(report: MatchReport) -> str:
    """Return the whole report as JSON."""
    return _json(_document(report))


def list_to_json(reports: Sequence[MatchReport]) -> str:
    """Return the reports of a list of instructions as a JSON array."""
    return _json([_document(report) for report in reports])


def list_to_markdown(reports: Sequence[MatchReport]) -> str:
    """Return the reports of a list of instructions as one Markdown document."""
    return "\n---\n\n".join(map(to_markdown, reports))


def list_to_html(reports: Sequence[MatchReport]) -> str:
    """Return the reports of a list of instructions as one HTML page."""
    return to_html(*reports)


def list_to_csv(reports: Sequence[MatchReport]) -> str:
    """Return one row per instruction and side; no cell is a formula for a spreadsheet."""
    rows = [
        {
            "number": number,
            "instruction": report.request.instruction,
            "context": report.request.context,
            "side": side.letter,
            "model": side.label,
            "answer": side.text,
            "ending": status(side),
            "tokens": side.figures.new_tokens if side.figures else None,
            "tokens_per_s": side.figures.decode_tokens_per_s if side.figures else None,
            "ttft_ms": side.figures.ttft_ms if side.figures else None,
            "vote": report.verdict,
        }
        for number, report in enumerate(reports, 1)
        for side in report.sides
    ]
    return _SURROGATE.sub("\ufffd", csv_text(rows))


def _json(document: object) -> str:
    # A folder's name may contain surrogates, which cannot be encoded in UTF-8.
    return _SURROGATE.sub("\ufffd", json.dumps(document, indent=2, ensure_ascii=False))


def _document(report: MatchReport) -> dict[str, Any]:
    return {
        "id": report.id,
        "asked_at": report.asked_at.isoformat(timespec="seconds"),
        "mode": report.mode.value,
        "instruction": report.request.instruction,
        "context": report.request.context,
        "sampling": asdict(report.request.sampling),
        "contended": report.contended,
        "sides": [_side_as_dict(side) for side in report.sides],
        "comparison": [
            {
                "measure": row.measure.key,
                "direction": row.direction.value or None,
                "values": row.values,
                "winner": None if row.winner is None else LETTERS[row.winner],
                "leaders": [LETTERS[side] for side in row.leaders],
                "factor": row.factor,
                "contended": row.contended,
            }
            for row in report.rows
        ],
        "pairs": [
            {
                "sides": [LETTERS[pair.a], LETTERS[pair.b]],
                "divergence": asdict(pair.divergence),
                "reference": LETTERS[pair.a],
                "diff": [[kind.value, text] for kind, text in pair.diff],
            }
            for pair in report.pairs
        ],
        "verdict": report.verdict,
        "versions": report.versions,
        "host": asdict(report.host),
    }


def to_markdown(report: MatchReport) -> str:
    """Return the report as Markdown. Texts are in code blocks, so that their markup is inactive."""
    parts = ["# Paddock: models side by side", _facts(report), "## Instruction"]
    parts.append(fenced(report.request.instruction))
    if report.request.context:
        parts += ["**Context**", fenced(report.request.context)]
    for side in report.sides:
        parts += [f"## {side.letter}: {code_span(side.label)}", _answer(side)]
    parts += ["## Figures", _table(report)]
    parts += [f"*{sentence}*" for sentence in (caution(report), medians(report)) if sentence]
    if report.pairs:
        lines = [
            f"- {LETTERS[pair.a]} and {LETTERS[pair.b]}: {pair.divergence.sentence}"
            for pair in report.pairs
        ]
        parts += ["## Where the answers diverge", "\n".join(lines)]
    bullets = [f"- {name}: {code_span(value)}" for name, value in conditions(report)]
    parts += ["## Conditions", "\n".join(bullets)]
    return _SURROGATE.sub("\ufffd", "\n\n".join(parts) + "\n")


def _side_as_dict(side: SideReport) -> dict[str, Any]:
    return {
        "side": side.letter,
        "model": side.spec.model,
        "title": side.title,
        "precision": side.spec.precision_name,
        "device": side.spec.device,
        "runtime": side.spec.runtime.value,
        "hints": {} if side.spec.remote else asdict(side.spec.effective_hints),
        "state": side.state.value,
        "sampling": asdict(side.request.sampling),
        "speculation": side.request.speculation.text,
        "text": side.text,
        "continues": side.request.continues,
        "error": side.error,
        "figures": None if side.figures is None else asdict(side.figures),
        "token_times_ms": side.token_times_ms,
        "run_id": side.run_id,
    }


def _facts(report: MatchReport) -> str:
    facts = [
        ("Started", f"{report.asked_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("Mode", f"{report.mode.label}. {report.mode.sentence}"),
        ("Sampling", sampling_text(report.request)),
    ]
    lines = "\n".join(f"- {name}: {value}" for name, value in facts)
    return lines + (f"\n- Verdict: {code_span(report.verdict)}" if report.verdict else "")


def _answer(side: SideReport) -> str:
    parts = [fenced(side.text)] if side.text else []
    ending = status(side)
    parts.append(code_span(ending) if side.error else f"*{ending}*")
    if line := figures_line(side):
        parts.append(line)
    return "\n\n".join(parts)


def _table(report: MatchReport) -> str:
    heads = ["", *(side.letter for side in report.sides), "Better"]
    lines = [heads, ["---"] * len(heads)]
    for row in report.rows:
        better = listed([f"**{letter}**" for letter in row.better_letters])
        words = f"{better}: {row.factor_text}" if row.factor_text else better
        name = f"{row.name} (measured while busy)" if row.contended else row.name
        lines.append([name, *row.texts, words])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
