"""Export comparisons as Markdown, HTML, JSON or CSV.

The same reports give the same bytes. Texts from models, users and file names are escaped, so that
they stay plain text.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.compare import wording
from core.compare.report import MatchReport, SideReport
from core.compare.setup import LETTERS
from core.markdown import code_span, fenced
from core.metrics.tables import csv_text
from core.units import listed

if TYPE_CHECKING:
    from jinja2 import Template

_MAX_TICKS = 6
_ELSEWHERE = ("text", "token_times_ms", "ended_at")
"""Columns of the run table that are not figures."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NOT_ALLOWED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def to_json(*reports: MatchReport, as_list: bool = False) -> str:
    """Return a whole report as JSON, or several as a JSON array."""
    documents = [_document(report) for report in reports]
    text = json.dumps(documents if as_list else documents[0], indent=2, ensure_ascii=False)
    # A folder's name may contain surrogates, which cannot be encoded in UTF-8.
    return _SURROGATE.sub("\ufffd", text)


def to_csv(*reports: MatchReport) -> str:
    """Return one row per instruction and side; no cell is a formula for a spreadsheet."""
    rows = [
        {
            "number": number,
            "instruction": report.request.instruction,
            "context": report.request.context,
            "side": side.letter,
            "model": side.label,
            "answer": side.text,
            "ending": wording.status(side),
            "tokens": side.figures.new_tokens if side.figures else None,
            "tokens_per_s": side.figures.decode_tokens_per_s if side.figures else None,
            "ttft_ms": side.figures.ttft_ms if side.figures else None,
            "vote": report.verdict,
        }
        for number, report in enumerate(reports, 1)
        for side in report.sides
    ]
    return _SURROGATE.sub("\ufffd", csv_text(rows))


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
                "direction": row.measure.direction.value or None,
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


def to_markdown(*reports: MatchReport) -> str:
    """Return the reports as Markdown.

    Texts are in code blocks, so that their markup is inactive.
    """
    template = _template("comparison.md", keep_trailing_newline=True)
    text = "\n---\n\n".join(template.render(report=report) for report in reports)
    return _SURROGATE.sub("\ufffd", text)


def to_html(*reports: MatchReport) -> str:
    """Return the reports as one HTML page, without scripts or external resources.

    Styles and charts are inline. The page follows the system's light or dark theme and is readable
    at any width and in print.
    """
    template = _template("comparison.html", autoescape=True, finalize=_allowed_in_html)
    return template.render(pages=[(report, _chart(report)) for report in reports])


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
        "figures": None
        if side.figures is None
        else {name: each for name, each in asdict(side.figures).items() if name not in _ELSEWHERE},
        "token_times_ms": side.token_times_ms,
        "run_id": side.run_id,
    }


# Templates


@cache
def _template(name: str, **options: Any) -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        **options,
    )
    environment.globals |= {"letters": LETTERS, "listed": listed, "wording": wording}
    environment.filters |= {"fenced": fenced, "code_span": code_span, "bold": "**{}**".format}
    return environment.get_template(name)


def _allowed_in_html(value: object) -> object:
    """Unify line ends, and replace characters that are not allowed in HTML by U+FFFD."""
    if hasattr(value, "__html__"):  # already escaped
        return value
    return _NOT_ALLOWED.sub("\ufffd", str(value).replace("\r\n", "\n").replace("\r", "\n"))


def _chart(report: MatchReport) -> dict[str, Any] | None:
    """Return the axes of the tokens over time, or None if no answer has a token."""
    sides = [side for side in report.sides if side.timeline is not None]
    end_s = max((side.timeline.seconds[-1] for side in sides), default=0.0)
    most = max((side.timeline.tokens[-1] for side in sides), default=0)
    if most == 0 or end_s <= 0:
        return None
    ticks = {"token_ticks": _ticks(most, finest=1), "second_ticks": _ticks(end_s)}
    return {"sides": sides, "end_s": end_s, "most": most} | ticks


def _ticks(end: float, finest: float = 0.0) -> list[float]:
    """Return round values from 0 to ``end``, spaced by 1, 2 or 5 times a power of ten.

    The spacing is at least ``finest``.
    """
    rough = end / (_MAX_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(step, finest)
    return [round(step * number, 10) for number in range(int(end / step + 1e-9) + 1)]
