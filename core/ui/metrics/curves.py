"""Charts of the Metrics page that are no bars: speed against memory, latency, history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from statistics import median

import plotly.graph_objects as go

from core.metrics.rows import Point, pareto
from core.ui.metrics.bars import (
    BY_HAND,
    GREY,
    RowKey,
    plot_text,
    point_label,
    precision_label,
    row_labels,
)
from core.ui.metrics.charts import MB, hover_of
from core.ui.widgets.charts import SIDE_COLOURS
from core.units import bytes_text, rate_text

QUALITY_SCALE = ((0.0, "#1f7fc9"), (0.5, "#e0b13c"), (1.0, "#c8553d"))
"""From as good as the reference to worse; told apart without seeing red and green."""
LEAST_QUALITY_SPAN = 0.05
"""Of the colour scale: a ratio of 1.001 must not look like a loss."""

HISTORY_LINES = 8
"""Configurations whose history is drawn: those measured last."""

_LINE_COLOURS = (*SIDE_COLOURS, "#c8553d", "#7f6a4e", "#3aa5a5", "#8d99a6")
_SYMBOLS = {"fp32": "square", "fp16": "diamond", "int8": "circle", "int4": "triangle-up"}
_LEGEND = {"orientation": "h", "yref": "container", "y": 0.02, "yanchor": "bottom", "x": 0}
_HEIGHT = 420
_MARGIN = {"l": 84, "r": 20, "t": 50, "b": 90}
"""To the left wide enough for the figures beside an axis and its title."""


def tradeoff_points(points: Iterable[Point]) -> list[Point]:
    """One point of each configuration, at its shortest prompt; of each panel benchmarks where there
    are any.

    An app's growth over loading and a process of its own are not the same memory, so answers are
    drawn only where nothing was measured.
    """
    known = [point for point in points if point.memory is not None and point.decode is not None]
    measured = {RowKey.of(point.subject).panel for point in known if point.measured}
    shortest: dict[tuple[RowKey, bool], Point] = {}
    for point in known:
        row = RowKey.of(point.subject)
        if row.panel in measured and not point.measured:
            continue
        key = (row, point.subject.contended)
        if key not in shortest or (point.prompt_tokens or 0) < (shortest[key].prompt_tokens or 0):
            shortest[key] = point
    return list(shortest.values())


def tradeoff_chart(points: Sequence[Point]) -> go.Figure:
    """Decode rate against memory, quality as colour, and each model's Pareto front.

    Args:
        points: of :func:`tradeoff_points`.
    """
    figure = go.Figure()
    for number, front in enumerate(_fronts(points)):
        figure.add_trace(
            go.Scatter(
                x=[_memory(point) for point in front],
                y=[_rate(point) for point in front],
                mode="lines",
                line={"color": GREY, "width": 1.6, "dash": "dot", "shape": "hv"},
                name="Pareto front",
                legendgroup="front",
                showlegend=number == 0,
                hoverinfo="skip",
            )
        )
    rated = [point for point in points if point.quality is not None]
    others = [point for point in points if point.quality is None]
    if rated:
        figure.add_trace(_rated(rated, _names(points)))
    if others:
        marker = {"color": "#8d99a6", "size": 13, "symbol": [_symbol(p) for p in others]}
        figure.add_trace(
            _dots(others, _names(points), marker, "quality not measured" if rated else "")
        )
    figure.update_layout(
        title="Speed against memory: up and left is better",
        height=_HEIGHT + (40 if rated else 0),
        margin=_MARGIN | {"l": 10, "b": 130 if rated else 90, "r": 40},
        legend=_LEGEND,
        showlegend=True,
        # Not by hand: the title would run into the colours' scale.
        xaxis={"title": "memory after the first answer, MB", "rangemode": "tozero"},
        yaxis={"title": "decode, tokens/s", "rangemode": "tozero", "automargin": True},
    )
    return figure


@dataclass(frozen=True)
class LatencyRun:
    """The token times of one answer, to draw."""

    name: str
    token_times_ms: Sequence[float]
    """Since the start of work, in order."""


def latency_chart(runs: Sequence[LatencyRun], unit: str = "token") -> go.Figure:
    """Milliseconds that each token after the first took, of one answer or of several alike.

    Several are thin, and their median at each token stands out.

    Args:
        unit: what the times are of: tokens, or the pieces into which a server joined them.
    """
    gaps = [_gaps(run.token_times_ms) for run in runs]
    alone = len(runs) == 1
    figure = go.Figure()
    for run, values in zip(runs, gaps, strict=True):
        figure.add_trace(
            go.Scatter(
                x=list(range(2, len(values) + 2)),
                y=values,
                mode="lines",
                name=plot_text(run.name) if alone else "each answer",
                legendgroup="each",
                showlegend=run is runs[0],
                line={
                    "width": 2.0 if alone else 1.0,
                    "color": SIDE_COLOURS[0] if alone else "rgba(140,150,160,0.45)",
                },
                hovertemplate=f"{plot_text(run.name)}<br>{unit} %{{x}}: %{{y:.2f}} ms"
                "<extra></extra>",
            )
        )
    if not alone:
        longest = max((len(values) for values in gaps), default=0)
        figure.add_trace(
            go.Scatter(
                x=list(range(2, longest + 2)),
                y=[
                    median(values[at] for values in gaps if at < len(values))
                    for at in range(longest)
                ],
                mode="lines",
                name="median",
                line={"width": 2.2, "color": SIDE_COLOURS[0]},
                hovertemplate=f"median at {unit} %{{x}}: %{{y:.2f}} ms<extra></extra>",
            )
        )
    figure.update_layout(
        title=f"Latency of each {unit}: ms, lower is better",
        height=_HEIGHT,
        margin=_MARGIN,
        legend=_LEGEND,
        showlegend=True,
        xaxis={"title": f"{unit} of the answer", "rangemode": "tozero", **BY_HAND},
        yaxis={"title": f"ms since the {unit} before", "rangemode": "tozero", **BY_HAND},
    )
    return figure


def history_chart(points: Sequence[Point]) -> go.Figure:
    """Decode rate of each configuration over time, with its spread.

    Args:
        points: of all times; the configurations measured last are drawn.
    """
    lines: dict[tuple[RowKey, object], list[Point]] = {}
    for point in points:
        if point.decode is not None:
            kind = point.prompt_tokens if point.measured else None
            lines.setdefault((RowKey.of(point.subject), kind), []).append(point)
    among = {row for row, _ in lines}
    latest = sorted(lines, key=lambda key: max(p.when for p in lines[key]))[-HISTORY_LINES:]
    figure = go.Figure()
    for key, colour in zip(reversed(latest), cycle(_LINE_COLOURS)):
        drawn = sorted(lines[key], key=lambda point: point.when)
        rates = [point.decode for point in drawn if point.decode is not None]
        name = row_labels([key[0]], list(among))[0]
        suffix = "answers" if key[1] is None else f"{key[1]}-token prompt"
        figure.add_trace(
            go.Scatter(
                x=[point.when for point in drawn],
                y=[rate.median for rate in rates],
                error_y={
                    "type": "data",
                    "array": [rate.high - rate.median for rate in rates],
                    "arrayminus": [rate.median - rate.low for rate in rates],
                    "thickness": 1,
                    "width": 2,
                },
                mode="lines+markers",
                name=f"{name} · {suffix}",
                line={"color": colour, "width": 2},
                marker={
                    "size": 8,
                    "symbol": ["x" if p.subject.contended else "circle" for p in drawn],
                },
                customdata=[
                    hover_of(p, [rate_text(p.decode.median if p.decode else None)]) for p in drawn
                ],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    figure.update_layout(
        title="Decode rate over the days: tokens/s, higher is better",
        height=_HEIGHT + 22 * len(latest),
        margin=_MARGIN | {"b": 70 + 22 * len(latest)},
        legend=_LEGEND | {"orientation": "v", "traceorder": "normal"},
        showlegend=True,
        xaxis={"title": None, "type": "date", "tickformat": "%d %b\n%H:%M", **BY_HAND},
        yaxis={"title": "tokens/s", "rangemode": "tozero", **BY_HAND},
    )
    return figure


def _fronts(points: Iterable[Point]) -> list[list[Point]]:
    """The Pareto front of each model on each machine, where it has two points or more."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        if not point.subject.contended:
            groups.setdefault((point.subject.name, point.subject.host), []).append(point)
    fronts = [pareto(group) for group in groups.values()]
    return [front for front in fronts if len(front) > 1]


def _rated(points: Sequence[Point], names: dict[str, str]) -> go.Scatter:
    ratios = [point.quality.perplexity_ratio for point in points if point.quality is not None]
    low = min(1.0, *ratios)
    marker = {
        "color": ratios,
        "colorscale": [list(stop) for stop in QUALITY_SCALE],
        "cmin": low,
        "cmax": max(low + LEAST_QUALITY_SPAN, *ratios),
        "size": 14,
        "symbol": [_symbol(point) for point in points],
        "colorbar": {
            "title": {"text": "perplexity ÷ reference's, lower is better", "side": "bottom"},
            "orientation": "h",
            "thickness": 8,
            "len": 0.7,
            "x": 0.0,
            "xanchor": "left",
            "yref": "container",
            "y": 0.09,
            "yanchor": "bottom",
        },
    }
    return _dots(points, names, marker, "")


def _dots(
    points: Sequence[Point], names: dict[str, str], marker: dict[str, object], name: str
) -> go.Scatter:
    return go.Scatter(
        x=[_memory(point) for point in points],
        y=[_rate(point) for point in points],
        mode="markers+text",
        text=[names[point.id] for point in points],
        textposition=[_beside(point) for point in points],
        textfont={"size": 11},
        cliponaxis=False,
        marker=marker | {"line": {"width": 1, "color": "rgba(120,130,140,0.7)"}},
        name=name,
        showlegend=bool(name),
        customdata=[_tradeoff_hover(point) for point in points],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _names(points: Sequence[Point]) -> dict[str, str]:
    """What stands beside each dot: the precision, and what else tells several apart."""
    several = len({point.subject.name for point in points}) > 1
    several_devices = len({point.subject.device_label for point in points}) > 1
    pytorch = {point.subject.runtime for point in points} > {"pytorch"}
    names = {}
    for point in points:
        parts = [point.subject.name] if several else []
        parts.append(precision_label(point.subject.precision))
        if several_devices:
            parts.append(point.subject.device_label)
        if pytorch and point.subject.runtime == "pytorch":
            parts.append("PyTorch")
        names[point.id] = plot_text(" ".join(parts))
    return names


def _beside(point: Point) -> str:
    """Where a dot's name stands: below, where AUTO took a device whose own dot lies near."""
    asked_for = point.subject.device == point.subject.device_requested
    return "top center" if asked_for else "bottom center"


def _tradeoff_hover(point: Point) -> str:
    lines = [rate_text(_rate(point)), f"{bytes_text(point.memory or 0)} of memory"]
    if (quality := point.quality) is not None:
        lines += [
            f"perplexity {quality.perplexity_ratio:.3f} × that of "
            f"{plot_text(precision_label(quality.reference))}",
            f"same likeliest token at {100 * quality.top1_agreement:.1f} % of the positions",
        ]
        if quality.task_accuracy is not None:
            lines.append(f"task accuracy {100 * quality.task_accuracy:.0f} %")
    lines.append(f"memory of {plot_text(point.memory_scope)}")
    lines.append(plot_text(point_label(point)))
    return hover_of(point, lines)


def _symbol(point: Point) -> str:
    symbol = _SYMBOLS.get(point.subject.precision, "circle")
    return f"{symbol}-open" if point.subject.contended else symbol


def _memory(point: Point) -> float:
    return (point.memory or 0) / MB


def _rate(point: Point) -> float:
    return point.decode.median if point.decode else 0.0


def _gaps(token_times_ms: Sequence[float]) -> list[float]:
    """Milliseconds between each token and the one before."""
    return [later - earlier for earlier, later in pairwise(token_times_ms)]
