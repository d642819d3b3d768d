"""Figures of the Metrics page, drawn with plotly express.

All configurations of a chart share one axis. Bars start at zero; where the largest value is more
than :data:`LINEAR_SPAN` times the smallest, the short bars would be invisible, so dots on a
logarithmic axis are drawn instead, and the axis says so.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from core.metrics.frames import best_known, pareto
from core.metrics.labels import runtime_label, shortened
from core.metrics.rows import Point, precision_label
from core.ui.widgets.charts import FILE_COLOUR, PRIVATE_COLOUR, SIDE_COLOURS
from core.units import bytes_text, milliseconds_text, rate_text

LINEAR_SPAN = 25.0
HISTORY_LINES = 8
"""Maximum number of configurations in the history; the most recently measured are drawn."""

BENCHMARK_COLOURS = ("#0b67b2", "#5aa3dc", "#a9cfee")
"""Colours of prompt lengths, the shortest first, for the light and the dark theme."""
ANSWERS_COLOUR = "#8d99a6"
GREY = "rgba(120,130,140,0.9)"
QUALITY_SCALE = ((0.0, "#1f7fc9"), (0.5, "#e0b13c"), (1.0, "#c8553d"))
"""Colours from equal to the reference to worse; distinguishable with red-green colour blindness."""
MIN_QUALITY_SPAN = 0.05
"""Minimum range of the colour scale, so that a ratio of 1.001 does not look like a loss."""

_LEGEND = {
    "orientation": "h",
    "title": None,
    "yref": "container",
    "y": 0.01,
    "yanchor": "bottom",
    "x": 0,
    "traceorder": "normal",
}
"""Below the chart: above, it would overlap the title on a narrow screen."""
_MARGIN = {"l": 0, "r": 16, "t": 46, "b": 76}
"""Plotly widens the left margin to the labels."""
_ROW_PX, _BAR_PX, _OUTSIDE_PX = 40, 24, 140
_HEIGHT = 420
_SYMBOLS = {"fp32": "square", "fp16": "diamond", "int8": "circle", "int4": "triangle-up"}
_LINE_COLOURS = (*SIDE_COLOURS, "#c8553d", "#7f6a4e", "#3aa5a5", "#8d99a6")


def rate_chart(frame: pd.DataFrame) -> go.Figure:
    """Return the decode rate by configuration, with its spread."""
    return _chart(frame, "rate", "Decode rate: tokens/s, higher is better", "tokens/s", ".1f")


def ttft_chart(frame: pd.DataFrame) -> go.Figure:
    """Return the time to first token by configuration, with its spread."""
    return _chart(frame, "ttft", "Time to first token: ms, lower is better", "ms", ",.0f")


def bandwidth_chart(frame: pd.DataFrame) -> go.Figure:
    """Return the model bandwidth utilisation in percent of the measured read bandwidth."""
    title, unit = "Bandwidth used (MBU): %, higher is better", "% of the measured read bandwidth"
    figure = _bars(_labelled(frame.dropna(subset="mbu"), "mbu", ".0f"), "mbu", title, unit)
    figure.add_vline(100, line={"color": "#d9730d", "width": 2, "dash": "dot"})
    return figure


def memory_chart(frame: pd.DataFrame) -> go.Figure:
    """Return private and file-backed memory by configuration, stacked.

    For a benchmark this is the memory of a separate process, for answers the growth of the app's.
    """
    title, unit = "Memory: MB, lower is better", "MB after the first answer"
    known = _labelled(best_known(frame.dropna(subset="memory")), "memory", ",.0f")
    if _wide(known["memory"]):
        return _dots(known, "memory", title, unit)
    parts = known.rename(columns={"file_backed": "file-backed"}).melt(
        ["label", "hover", "text"], ["private", "file-backed"], "kind", "mb"
    )
    parts.loc[parts["kind"] == "private", "text"] = ""
    figure = px.bar(
        parts,
        x="mb",
        y="label",
        color="kind",
        text="text",
        custom_data="hover",
        orientation="h",
        color_discrete_map={"private": PRIVATE_COLOUR, "file-backed": FILE_COLOUR},
        category_orders={"label": list(known["label"])},
    )
    figure.update_traces(textposition="outside", cliponaxis=False)
    figure.update_xaxes(range=[0, 1.15 * known["memory"].max()])  # with room for the last figure
    return _finished(figure, known, title, unit, bars=1).update_layout(legend=_LEGEND)


# One chart of figures by configuration


def _chart(frame: pd.DataFrame, value: str, title: str, unit: str, text_format: str) -> go.Figure:
    known = _labelled(frame.dropna(subset=value), value, text_format)
    return (_dots if _wide(known[value]) else _bars)(known, value, title, unit)


def _wide(values: pd.Series) -> bool:
    return len(values) > 0 and values.min() > 0 and values.max() > LINEAR_SPAN * values.min()


def _labelled(frame: pd.DataFrame, value: str, text_format: str) -> pd.DataFrame:
    """Add row label, hover text, the value as text, and the spread in both directions."""
    frame = frame.copy()
    several = frame["model"].nunique() > 1
    frame["label"] = [
        (f"<b>{plot_text(shortened(model))}</b><br>" if several else "")
        + plot_text(shortened(configuration))
        for model, configuration in zip(frame["model"], frame["configuration"], strict=True)
    ]
    frame["hover"] = [hover_of(point) for point in frame["point"]]
    frame["text"] = [format(each, text_format) for each in frame[value]]
    if f"{value}_low" in frame:
        frame["above"] = frame[f"{value}_high"] - frame[value]
        frame["below"] = frame[value] - frame[f"{value}_low"]
    return frame


def _bars(known: pd.DataFrame, value: str, title: str, unit: str) -> go.Figure:
    figure = px.bar(
        known,
        x=value,
        y="label",
        color="series",
        text="text",
        pattern_shape="series",
        error_x="above",
        error_x_minus="below",
        custom_data="hover",
        orientation="h",
        barmode="group",
        color_discrete_map=_colours(known),
        pattern_shape_map={name: "/" if "busy" in name else "" for name in known["series"]},
        category_orders=_orders(known),
    )
    figure.update_traces(
        textposition="inside",
        insidetextanchor="start",
        # Over the colour, not instead of it, so that the figure in the bar can be read.
        marker_pattern={"fillmode": "overlay", "fgcolor": "#fff", "fgopacity": 0.35},
        error_x={"color": GREY, "thickness": 1.3, "width": 3},
    )
    return _finished(figure, known, title, unit, bars=known["series"].nunique())


def _dots(known: pd.DataFrame, value: str, title: str, unit: str) -> go.Figure:
    figure = px.scatter(
        known,
        x=value,
        y="label",
        color="series",
        text="text",
        log_x=True,
        symbol="series",
        custom_data="hover",
        color_discrete_map=_colours(known),
        symbol_map={name: "x" if "busy" in name else "circle" for name in known["series"]},
        category_orders=_orders(known),
    )
    figure.update_traces(textposition="middle right", marker={"size": 11}, cliponaxis=False)
    figure.update_layout(scattermode="group", scattergap=0.4)  # placed as grouped bars are
    low, high = math.log10(known[value].min()), math.log10(known[value].max())
    figure.update_xaxes(range=[low - 0.08 * (high - low), high + 0.25 * (high - low)], dtick="D2")
    series = known["series"].nunique()
    return _finished(figure, known, title, f"{unit}, logarithmic scale", bars=series)


def _finished(
    figure: go.Figure, known: pd.DataFrame, title: str, unit: str, *, bars: int
) -> go.Figure:
    figure.update_traces(hovertemplate="%{customdata[0]}<extra></extra>")
    figure.update_layout(
        title=title,
        height=_OUTSIDE_PX + known["label"].nunique() * max(_ROW_PX, _BAR_PX * bars + 10),
        margin=_MARGIN,
        legend=_LEGEND | {"traceorder": "reversed"},
        showlegend=True,
    )
    figure.update_xaxes(title=unit)
    figure.update_yaxes(title=None, automargin=True)
    return figure


def _orders(known: pd.DataFrame) -> dict[str, list[str]]:
    """Return the order of rows and of series: of a row, plotly draws the last series on top."""
    order = known.sort_values(["measured", "prompt_tokens"], ascending=[True, False])
    return {"label": list(known["label"].unique()), "series": list(order["series"].unique())}


def _colours(known: pd.DataFrame) -> dict[str, str]:
    lengths = sorted(set(known.loc[known["measured"], "prompt_tokens"]))
    return {
        series: BENCHMARK_COLOURS[min(lengths.index(tokens), 2)] if measured else ANSWERS_COLOUR
        for series, tokens, measured in zip(
            known["series"], known["prompt_tokens"], known["measured"], strict=True
        )
    }


# Speed against memory


def tradeoff_chart(frame: pd.DataFrame) -> go.Figure:
    """Return a model's decode rate against memory, with quality as colour and the Pareto front."""
    known = best_known(frame.dropna(subset=["memory", "rate"])).copy()
    if known["measured"].any():  # memory of a process and growth of the app are not comparable
        known = known[known["measured"]]
    known["hover"] = [hover_of(point) for point in known["point"]]
    known["text"] = [plot_text(each) for each in known["configuration"]]
    rated = known["perplexity"].notna().any()
    figure = px.scatter(
        known,
        x="memory",
        y="rate",
        color="perplexity" if rated else None,
        text="text",
        custom_data="hover",
        color_continuous_scale=[list(stop) for stop in QUALITY_SCALE],
        title="Speed against memory: up and left is better",
        labels={"memory": "memory after the first answer, MB", "rate": "decode, tokens/s"},
    )
    figure.update_traces(
        marker={"size": 14, "symbol": [_symbol(point) for point in known["point"]]},
        textposition="top center",
        cliponaxis=False,
        hovertemplate="%{customdata[0]}<extra></extra>",
    )
    front = pareto(known[~known["contended"]])
    if len(front) > 1:
        figure.add_scatter(
            x=front["memory"],
            y=front["rate"],
            mode="lines",
            line={"color": GREY, "width": 1.6, "dash": "dot", "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    figure.update_layout(height=_HEIGHT, margin=_MARGIN | {"r": 40}, legend=_LEGEND)
    figure.update_coloraxes(
        cmin=1.0,
        cmax=max(1.0 + MIN_QUALITY_SPAN, known["perplexity"].max() if rated else 0.0),
        colorbar={"title": "perplexity ×", "thickness": 10},
    )
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(rangemode="tozero", automargin=True)
    return figure


def _symbol(point: Point) -> str:
    symbol = _SYMBOLS.get(point.subject.precision.partition("-")[0], "circle")
    return f"{symbol}-open" if point.subject.contended else symbol


# Time


def latency_chart(runs: Sequence[tuple[str, Sequence[float]]], unit: str = "token") -> go.Figure:
    """Return the milliseconds of each token after the first, for one answer or several.

    Several answers are drawn as thin lines, with the median at each token as a thick one.

    Args:
        runs: Name of each answer, and its token times in ms since the start of work, in order.
        unit: What the times refer to: "token", or "piece" if a server sends several tokens at once.
    """
    several = len(runs) > 1
    gaps = pd.DataFrame(
        (
            {"answer": plot_text(name), "number": number, "ms": later - earlier}
            for name, token_times_ms in runs
            for number, (earlier, later) in enumerate(pairwise(token_times_ms), 2)
        ),
        columns=["answer", "number", "ms"],
    )
    figure = px.line(
        gaps,
        x="number",
        y="ms",
        line_group="answer",
        custom_data="answer",
        title=f"Latency of each {unit}: ms, lower is better",
        labels={"number": f"{unit} of the answer", "ms": f"ms since the previous {unit}"},
    )
    figure.update_traces(
        name="each answer" if several else plot_text(runs[0][0]),
        legendgroup="each",
        line={"width": 1 if several else 2, "color": GREY if several else SIDE_COLOURS[0]},
        opacity=0.5 if several else 1.0,
        hovertemplate=f"%{{customdata[0]}}<br>{unit} %{{x}}: %{{y:.2f}} ms<extra></extra>",
    )
    figure.update_traces(selector=0, showlegend=True)
    if several:
        median = gaps.groupby("number")["ms"].median()
        figure.add_scatter(
            x=median.index,
            y=median,
            mode="lines",
            name="median",
            line={"width": 2.2, "color": SIDE_COLOURS[0]},
            hovertemplate=f"median at {unit} %{{x}}: %{{y:.2f}} ms<extra></extra>",
        )
    figure.update_layout(height=_HEIGHT, margin=_MARGIN, legend=_LEGEND)
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(rangemode="tozero")
    return figure


def history_chart(frame: pd.DataFrame) -> go.Figure:
    """Return the decode rate of each configuration over time, with its spread.

    Args:
        frame: Rows of one model at any time; the most recently measured configurations are drawn.
    """
    known = _labelled(frame.dropna(subset="rate"), "rate", ".1f")
    known["line"] = known["configuration"].map(plot_text) + " · " + known["series"]
    newest = known.groupby("line")["when"].max().sort_values(ascending=False)
    lines = list(newest.index[:HISTORY_LINES])
    figure = px.line(
        known[known["line"].isin(lines)].sort_values("when"),
        x="when",
        y="rate",
        color="line",
        error_y="above",
        error_y_minus="below",
        markers=True,
        custom_data="hover",
        category_orders={"line": lines},
        color_discrete_sequence=_LINE_COLOURS,
        title="Decode rate over time: tokens/s, higher is better",
        labels={"when": "", "rate": "tokens/s"},
    )
    figure.update_traces(
        hovertemplate="%{customdata[0]}<extra></extra>", error_y={"thickness": 1, "width": 2}
    )
    figure.update_layout(
        height=_HEIGHT + 22 * len(lines),
        margin=_MARGIN | {"b": 50 + 22 * len(lines)},
        legend=_LEGEND | {"orientation": "v"},
        showlegend=True,
    )
    figure.update_xaxes(tickformat="%d %b\n%H:%M")
    figure.update_yaxes(rangemode="tozero", automargin=True)
    return figure


# Texts


def hover_of(point: Point) -> str:
    """Return the hover text of a point: its name, figures and conditions."""
    subject = point.subject
    lines = []
    if (rate := point.decode) is not None:
        lines.append(f"{rate_text(rate.median)}, {rate_text(rate.low)} to {rate_text(rate.high)}")
    if (ttft := point.ttft_ms) is not None:
        spread = f"{milliseconds_text(ttft.low)} to {milliseconds_text(ttft.high)}"
        lines.append(f"first token after {milliseconds_text(ttft.median)}, {spread}")
    if point.mbu is not None and point.bytes_per_token and point.bandwidth and point.ceiling:
        lines.append(
            f"MBU {100 * point.mbu:.0f} % of {rate_text(point.ceiling)}: "
            f"{bytes_text(point.bytes_per_token)} per token at {bytes_text(point.bandwidth)}/s"
        )
    lines += _memory_lines(point)
    if (quality := point.quality) is not None:
        lines.append(
            f"perplexity {quality.perplexity_ratio:.3f} × {precision_label(quality.reference)}, "
            f"same top token {100 * quality.top1_agreement:.1f} %"
        )
        if quality.task_accuracy is not None:
            lines.append(f"task accuracy {100 * quality.task_accuracy:.0f} %")
    used = subject.device
    if used != subject.device_requested:
        used += f" (requested: {subject.device_requested})"
    lines += [f"{subject.weights} on {used}", f"{runtime_label(subject.runtime)}, {subject.host}"]
    if point.prompt_tokens is not None:
        kind = "prompt" if point.measured else "median prompt"
        lines.append(f"{kind} of {point.prompt_tokens} tokens")
    lines += [point.conditions, f"{point.answers}, {point.when:%Y-%m-%d %H:%M} UTC"]
    if subject.contended:
        lines.append("measured while busy")
    return "<br>".join([f"<b>{plot_text(subject.name)}</b>", *map(plot_text, filter(None, lines))])


def _memory_lines(point: Point) -> list[str]:
    lines = []
    if point.memory_private is not None and point.memory_file_backed is not None:
        private, backed = bytes_text(point.memory_private), bytes_text(point.memory_file_backed)
        lines.append(f"private {private}, file-backed {backed} ({point.memory_scope})")
    if point.memory_private_peak is not None and point.memory_file_backed_peak is not None:
        private = bytes_text(point.memory_private_peak)
        backed = bytes_text(point.memory_file_backed_peak)
        lines.append(f"peak: private {private}, file-backed {backed}")
    if point.disk_bytes is not None:
        lines.append(f"on disk {bytes_text(point.disk_bytes)}")
    return lines


def plot_text(text: str) -> str:
    """Escape text for a chart; plotly interprets some HTML tags, but not every entity."""
    return html.escape(text, quote=False)
