"""Export a comparison as a single HTML file, without scripts or external resources."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from core.compare import wording
from core.compare.report import MatchReport
from core.compare.setup import LETTERS
from core.compare.timed_answers import Timeline
from core.units import listed

if TYPE_CHECKING:
    from jinja2 import Template

_WIDTH, _HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 12, 44
_MAX_TICKS = 6
_NOT_ALLOWED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def to_html(*reports: MatchReport) -> str:
    """Return one report or several as an HTML page.

    Styles and charts are inline. The page follows the system's light or dark theme and is readable
    at any width and in print.
    """
    return _template().render(
        pages=[(report, _chart(report)) for report in reports],
        letters=LETTERS,
        listed=listed,
        wording=wording,
    )


def _chart(report: MatchReport) -> str | None:
    lines = [(side.letter, side.timeline) for side in report.sides if side.timeline is not None]
    return timelines_svg(lines)


def timelines_svg(lines: Sequence[tuple[str, Timeline]]) -> str | None:
    """Return tokens over time as inline SVG, or None if no answer has a token.

    The class of each line is its letter; the colours come from the page's styles.

    Args:
        lines: pairs of a letter, which must be safe in HTML, and a timeline.
    """
    end_s = max((line.seconds[-1] for _, line in lines), default=0.0)
    most = max((line.tokens[-1] for _, line in lines), default=0)
    if most == 0 or end_s <= 0:
        return None

    def x(seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * seconds / end_s

    def y(tokens: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * tokens / most

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Tokens over time: up to {most} tokens in {end_s:.2f} seconds">'
    ]
    for tick in _ticks(most, finest=1):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" y1="{y(tick):.1f}" x2="{_WIDTH - _RIGHT}" '
            f'y2="{y(tick):.1f}"/><text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:g}</text>'
        )
    for tick in _ticks(end_s):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
            f"{tick:g}</text>"
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f'seconds since work started</text><text x="{_LEFT + 6}" y="{_TOP + 10}">tokens</text>'
    )
    for letter, line in lines:
        # A step line: sloping lines would show a rise before the first token exists.
        points = " ".join(
            f"{x(seconds):.1f},{y(max(tokens - 1, 0)):.1f} {x(seconds):.1f},{y(tokens):.1f}"
            for seconds, tokens in zip(line.seconds, line.tokens, strict=True)
        )
        parts.append(
            f'<g class="{letter}"><polyline points="{points}"/>'
            f'<circle cx="{x(line.seconds[-1]):.1f}" cy="{y(line.tokens[-1]):.1f}" r="3.5"/></g>'
        )
    return "".join([*parts, "</svg>"])


def _ticks(end: float, finest: float = 0.0) -> list[float]:
    """Return round values from 0 to ``end``, spaced by 1, 2 or 5 times a power of ten.

    The spacing is at least ``finest``.
    """
    rough = end / (_MAX_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(step, finest)
    return [round(step * number, 10) for number in range(int(end / step + 1e-9) + 1)]


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def allowed(value: object) -> object:
        """Unify line ends, and replace characters that are not allowed in HTML by U+FFFD."""
        if hasattr(value, "__html__"):  # already escaped, or the chart
            return value
        text = str(value).replace("\r\n", "\n").replace("\r", "\n")
        return _NOT_ALLOWED.sub("\ufffd", text)

    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        finalize=allowed,
        undefined=StrictUndefined,
        trim_blocks=True,
    ).get_template("comparison.html")
