"""Other charts of the Metrics page: speed against memory, token latency, history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from statistics import median

import plotly.graph_objects as go

from core.metrics.rows import Point, pareto, precision_label
from core.ui.metrics.bars import (
    FIXED_MARGINS,
    GREY,
    RowKey,
    plot_text,
    point_label,
    row_labels,
)
from core.ui.metrics.charts import MB, hover_of
from core.ui.widgets.charts import SIDE_COLOURS
from core.units import bytes_text, rate_text

QUALITY_SCALE = ((0.0, "#1f7fc9"), (0.5, "#e0b13c"), (1.0, "#c8553d"))
"""Colours from equal to the reference to worse; distinguishable with red-green colour blindness."""
MIN_QUALITY_SPAN = 0.05
"""Minimum range of the colour scale, so that a ratio of 1.001 does not look like a loss."""

HISTORY_LINES = 8
"""Maximum number of configurations in the history; the most recently measured are drawn."""

_LINE_COLOURS = (*SIDE_COLOURS, "#c8553d", "#7f6a4e", "#3aa5a5", "#8d99a6")
_SYMBOLS = {"fp32": "square", "fp16": "diamond", "int8": "circle", "int4": "triangle-up"}
_LEGEND = {"orientation": "h", "yref": "container", "y": 0.02, "yanchor": "bottom", "x": 0}
_HEIGHT = 420
_MARGIN = {"l": 84, "r": 20, "t": 50, "b": 90}
"""The left margin has room for tick labels and the axis title."""


def tradeoff_points(points: Iterable[Point]) -> list[Point]:
    """Return one point per configuration, with its shortest prompt.

    Memory of a separate process and growth of the app's process are not comparable, so answers are
    only included in panels without benchmarks.
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
    """Return decode rate against memory, with quality as colour and each model's Pareto front.

    Args:
        points: Result of :func:`tradeoff_points`.
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
        # Automatic margins: with fixed ones the title would overlap the colour bar.
        xaxis={"title": "memory after the first answer, MB", "rangemode": "tozero"},
        yaxis={"title": "decode, tokens/s", "rangemode": "tozero", "automargin": True},
    )
    return figure


@dataclass(frozen=True)
class LatencyRun:
    """Token times of one answer."""

    name: str
    token_times_ms: Sequence[float]
    """Since the start of work, in order."""


def latency_chart(runs: Sequence[LatencyRun], unit: str = "token") -> go.Figure:
    """Return the milliseconds of each token after the first, for one answer or several.

    Several answers are drawn as thin lines, with the median at each token as a thick one.

    Args:
        unit: What the times refer to: "token", or "piece" if a server sends several tokens at once.
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
        xaxis={"title": f"{unit} of the answer", "rangemode": "tozero", **FIXED_MARGINS},
        yaxis={"title": f"ms since the previous {unit}", "rangemode": "tozero", **FIXED_MARGINS},
    )
    return figure


def history_chart(points: Sequence[Point]) -> go.Figure:
    """Return the decode rate of each configuration over time, with its spread.

    Args:
        points: Points of any time; the most recently measured configurations are drawn.
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
        title="Decode rate over time: tokens/s, higher is better",
        height=_HEIGHT + 22 * len(latest),
        margin=_MARGIN | {"b": 70 + 22 * len(latest)},
        legend=_LEGEND | {"orientation": "v", "traceorder": "normal"},
        showlegend=True,
        xaxis={"title": None, "type": "date", "tickformat": "%d %b\n%H:%M", **FIXED_MARGINS},
        yaxis={"title": "tokens/s", "rangemode": "tozero", **FIXED_MARGINS},
    )
    return figure


def _fronts(points: Iterable[Point]) -> list[list[Point]]:
    """Return the Pareto front of each model on each machine, if it has two points or more."""
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
        "cmax": max(low + MIN_QUALITY_SPAN, *ratios),
        "size": 14,
        "symbol": [_symbol(point) for point in points],
        "colorbar": {
            "title": {"text": "perplexity ÷ reference, lower is better", "side": "bottom"},
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
        textposition=[_text_position(point) for point in points],
        textfont={"size": 11},
        cliponaxis=False,
        marker=marker | {"line": {"width": 1, "color": "rgba(120,130,140,0.7)"}},
        name=name,
        showlegend=bool(name),
        customdata=[_tradeoff_hover(point) for point in points],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _names(points: Sequence[Point]) -> dict[str, str]:
    """Return the label of each dot: the precision, and what else differs between dots."""
    several = len({point.subject.name for point in points}) > 1
    several_devices = len({point.subject.device_label for point in points}) > 1
    pytorch = {point.subject.runtime for point in points} > {"pytorch"}
    names = {}
    for point in points:
        parts = [point.subject.name] if several else []
        parts.append(point.subject.weights)
        if several_devices:
            parts.append(point.subject.device_label)
        if pytorch and point.subject.runtime == "pytorch":
            parts.append("PyTorch")
        names[point.id] = plot_text(" ".join(parts))
    return names


def _text_position(point: Point) -> str:
    """Return the position of a label: below the dot for AUTO, because the device's dot is near."""
    requested = point.subject.device == point.subject.device_requested
    return "top center" if requested else "bottom center"


def _tradeoff_hover(point: Point) -> str:
    lines = [rate_text(_rate(point)), f"{bytes_text(point.memory or 0)} of memory"]
    if (quality := point.quality) is not None:
        lines += [
            f"perplexity {quality.perplexity_ratio:.3f} × that of "
            f"{plot_text(precision_label(quality.reference))}",
            f"same top token {100 * quality.top1_agreement:.1f} %",
        ]
        if quality.task_accuracy is not None:
            lines.append(f"task accuracy {100 * quality.task_accuracy:.0f} %")
    lines.append(f"memory: {plot_text(point.memory_scope)}")
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
    """Return the milliseconds between successive tokens."""
    return [later - earlier for earlier, later in pairwise(token_times_ms)]
