"""Chart of tokens over time as inline SVG; the colours come from the page's styles."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.compare.timeline import Timeline

WIDTH, HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 12, 44
_MAX_TICKS = 6


def timelines_svg(lines: Sequence[tuple[str, Timeline]]) -> str | None:
    """Return the chart, or None if no answer has a token. The class of each line is its letter.

    Args:
        lines: pairs of a letter, which must be safe in HTML, and a timeline.
    """
    end_s = max((line.seconds[-1] for _, line in lines), default=0.0)
    most = max((line.tokens[-1] for _, line in lines), default=0)
    if most == 0 or end_s <= 0:
        return None

    def x(seconds: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * seconds / end_s

    def y(tokens: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * tokens / most

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Tokens over time: up to {most} tokens in {end_s:.2f} seconds">'
    ]
    for tick in _ticks(most, finest=1):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" y1="{y(tick):.1f}" x2="{WIDTH - _RIGHT}" '
            f'y2="{y(tick):.1f}"/><text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:g}</text>'
        )
    for tick in _ticks(end_s):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
            f"{tick:g}</text>"
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
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
