"""Bar charts of the Metrics page: decode rate, time to first token, bandwidth and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas  # noqa: F401 - plotly uses it, even if another thread has half imported it
import plotly.graph_objects as go

from core.metrics.rows import Point, Range
from core.ui.metrics.bars import (
    GREY,
    Bar,
    PanelKey,
    RowKey,
    Rows,
    Series,
    Trace,
    axes_of,
    plot_text,
    runtime_label,
)
from core.ui.widgets.charts import FILE_COLOUR, PRIVATE_COLOUR
from core.units import bytes_text, milliseconds_text, rate_text

CEILING_FACTOR = 2.5
"""A bandwidth ceiling above this multiple of the fastest bar would make the bars too short; it is
then only in the hover text and the bandwidth chart."""

CEILING_COLOUR = "#d9730d"
MB = 1e6

_MEMORY_BAR_PX = 20


def decode_chart(rows: Rows) -> go.Figure:
    """Return the decode rate in tokens/s by configuration, with spread and bandwidth ceiling."""
    traces: list[Trace] = []
    for series, placed in rows.series():
        _add_bars(traces, rows, series, placed, lambda point: point.decode, _decode_hover, "{:.1f}")
    shown = shown_ceilings(rows)
    ceilings = [each for _, placed in rows.series() for each in placed if each.point.id in shown]
    _add_ticks(
        traces,
        rows,
        ceilings,
        "bandwidth ceiling",
        CEILING_COLOUR,
        lambda point: point.ceiling or 0.0,
        _decode_hover,
    )

    def extent(point: Point) -> float | None:
        rate = point.decode.high if point.decode else None
        return max(rate or 0.0, point.ceiling or 0.0) if point.id in shown else rate

    return rows.figure(traces, "Decode rate: tokens/s, higher is better", "tokens/s", extent)


def shown_ceilings(rows: Rows) -> set[str]:
    """Return the ids of the points whose bandwidth ceiling is drawn; see :data:`CEILING_FACTOR`."""
    fastest: dict[PanelKey, float] = {}
    for point in rows.points:
        if point.decode is not None:
            panel = RowKey.of(point.subject).panel
            fastest[panel] = max(fastest.get(panel, 0.0), point.decode.high)
    return {
        point.id
        for point in rows.points
        if point.ceiling is not None
        and point.ceiling <= CEILING_FACTOR * fastest.get(RowKey.of(point.subject).panel, 0.0)
    }


def ttft_chart(rows: Rows) -> go.Figure:
    """Return the time to first token in milliseconds of each configuration, with its spread."""
    traces: list[Trace] = []
    for series, placed in rows.series():
        _add_bars(traces, rows, series, placed, lambda point: point.ttft_ms, _ttft_hover, "{:.0f}")
    return rows.figure(
        traces,
        "Time to first token: ms, lower is better",
        "ms",
        lambda point: point.ttft_ms.high if point.ttft_ms else None,
    )


def bandwidth_chart(rows: Rows) -> go.Figure:
    """Return the model bandwidth utilisation in percent of the measured read bandwidth."""
    traces: list[Trace] = []
    for series, placed in rows.series():
        _add_bars(traces, rows, series, placed, _mbu_range, _mbu_hover, "{:.0f} %")
    traces.append(_legend_line("measured read bandwidth", dash="dot"))
    used = [found.high for point in rows.points if (found := _mbu_range(point)) is not None]
    most = max(100.0, *used) if used else 100.0  # above 100 % if a cache holds the weights
    line = {"color": CEILING_COLOUR, "width": 2, "dash": "dot"}
    axes = [axes_of(number) for number in range(len(rows.panels))]
    return rows.figure(
        traces,
        "Bandwidth used (MBU): %, higher is better",
        "% of the read bandwidth",
        lambda point: most,
        axis={"tickvals": [0, 25, 50, 75, 100], "ticksuffix": " %", "range": [0, 1.16 * most]},
        shapes=[
            {
                "type": "line",
                "xref": each["xaxis"],
                "x0": 100,
                "x1": 100,
                "yref": f"{each['yaxis']} domain",
                "y0": 0,
                "y1": 1,
                "line": line,
            }
            for each in axes
        ],
    )


def memory_chart(rows: Rows) -> go.Figure:
    """Return private and file-backed memory in MB of each configuration, stacked, with its peak.

    For a benchmark this is the memory of a separate process, for answers the growth of the app's.
    """
    traces: list[Trace] = []
    bars = _memory_bars(rows)
    for name, read, below, colour in (
        ("private", _private, lambda point: 0.0, PRIVATE_COLOUR),
        ("file-backed", _file_backed, _private, FILE_COLOUR),
    ):
        for number, (axes, placed) in enumerate(rows.by_panel(bars)):
            traces.append(
                dict(
                    type="bar",
                    x=[read(each.point) for each in placed],
                    base=[below(each.point) for each in placed],
                    y=[each.y for each in placed],
                    width=[each.thickness for each in placed],
                    orientation="h",
                    name=name,
                    legendgroup=name,
                    showlegend=number == 0,
                    marker={
                        "color": colour,
                        "opacity": [1.0 if each.point.measured else 0.55 for each in placed],
                    },
                    customdata=[_memory_hover(each) for each in placed],
                    hovertemplate="%{customdata}<extra></extra>",
                    **axes,
                )
            )
    peaks = [each for each in bars if _peak(each.point) is not None]
    _add_ticks(traces, rows, peaks, "peak", GREY, lambda p: _peak(p) or 0.0, _memory_hover)
    _add_values(
        traces,
        rows,
        bars,
        _memory_extent,
        lambda point: f"{_private(point) + _file_backed(point):,.0f}",
    )
    return rows.figure(
        traces,
        "Memory: MB, lower is better",
        "MB after the first answer",
        lambda point: _memory_extent(point) if point.memory is not None else None,
    )


# Parts of the charts


def hover_of(point: Point, lines: Sequence[str]) -> str:
    """Return the hover text of a point: its name, figures and conditions."""
    subject = point.subject
    conditions = [
        f"{subject.weights} on {subject.device}"
        + (
            ""
            if subject.device == subject.device_requested
            else f" (requested: {subject.device_requested})"
        ),
        f"{runtime_label(subject.runtime)}, {subject.host}",
        point.conditions,
        f"{point.answers}, {point.when:%Y-%m-%d %H:%M} UTC",
    ]
    if subject.contended:
        conditions.append("measured while busy")
    text = [f"<b>{plot_text(subject.name)}</b>", *lines]
    return "<br>".join([*text, *(plot_text(line) for line in conditions if line)])


def _add_bars(
    traces: list[Trace],
    rows: Rows,
    series: Series,
    placed: Sequence[Bar],
    read: Callable[[Point], Range | None],
    hover: Callable[[Bar], str],
    text_format: str,
) -> None:
    """Add one trace of bars per panel, with error bars and the figures as text."""
    drawn = [each for each in placed if read(each.point) is not None]
    shown = {trace.get("legendgroup") for trace in traces}
    for number, (axes, bars) in enumerate(rows.by_panel(drawn)):
        ranges = [found for each in bars if (found := read(each.point)) is not None]
        traces.append(
            dict(
                type="bar",
                x=[found.median for found in ranges],
                y=[each.y for each in bars],
                width=[each.thickness for each in bars],
                orientation="h",
                name=series.name,
                legendgroup=series.name,
                showlegend=number == 0 and series.name not in shown,
                marker={
                    "color": rows.colour(series),
                    "pattern": {"shape": "/" if series.contended else ""},
                },
                error_x={
                    "type": "data",
                    "array": [found.high - found.median for found in ranges],
                    "arrayminus": [found.median - found.low for found in ranges],
                    "color": GREY,
                    "thickness": 1.3,
                    "width": 3,
                },
                customdata=[hover(each) for each in bars],
                hovertemplate="%{customdata}<extra></extra>",
                **axes,
            )
        )

    def end(point: Point) -> float:
        found = read(point)
        return found.high if found else 0.0

    def text(point: Point) -> str:
        found = read(point)
        return text_format.format(found.median) if found else ""

    _add_values(traces, rows, drawn, end, text)


def _add_values(
    traces: list[Trace],
    rows: Rows,
    placed: Sequence[Bar],
    end: Callable[[Point], float],
    text: Callable[[Point], str],
) -> None:
    """Add the figures as text to the right of their bars."""
    for axes, bars in rows.by_panel(placed):
        traces.append(
            dict(
                type="scatter",
                x=[end(each.point) for each in bars],
                y=[each.y for each in bars],
                mode="text",
                text=[f" {text(each.point)}" for each in bars],
                textposition="middle right",
                textfont={"size": 11},
                cliponaxis=False,
                hoverinfo="skip",
                showlegend=False,
                **axes,
            )
        )


def _add_ticks(
    traces: list[Trace],
    rows: Rows,
    placed: Sequence[Bar],
    name: str,
    colour: str,
    read: Callable[[Point], float],
    hover: Callable[[Bar], str],
) -> None:
    """Add vertical marks across bars."""
    for number, (axes, bars) in enumerate(rows.by_panel(placed)):
        traces.append(
            dict(
                type="scatter",
                x=[read(each.point) for each in bars],
                y=[each.y for each in bars],
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=number == 0,
                marker={"symbol": "line-ns", "size": 14, "line": {"width": 2.2, "color": colour}},
                customdata=[hover(each) for each in bars],
                hovertemplate="%{customdata}<extra></extra>",
                **axes,
            )
        )


def _legend_line(name: str, dash: str) -> Trace:
    """Return a legend entry for a line drawn as a shape."""
    return dict(
        type="scatter",
        x=[None],
        y=[None],
        mode="lines",
        name=name,
        line={"color": CEILING_COLOUR, "width": 2, "dash": dash},
    )


def _spread(name: str, found: Range | None, to_text: Callable[[float], str]) -> str:
    if found is None:
        return f"{name} —"
    return f"{name} {to_text(found.median)}, {to_text(found.low)} to {to_text(found.high)}"


def _decode_hover(placed: Bar) -> str:
    point = placed.point
    lines = [_spread("decode", point.decode, rate_text)]
    if point.ceiling is not None:
        share = f", {100 * point.mbu:.0f} % of it used" if point.mbu is not None else ""
        lines.append(f"bandwidth ceiling {rate_text(point.ceiling)}{share}")
    return hover_of(point, [*lines, _prompt(point)])


def _ttft_hover(placed: Bar) -> str:
    point = placed.point
    found = _spread("time to first token", point.ttft_ms, milliseconds_text)
    return hover_of(point, [found, _prompt(point)])


def _mbu_range(point: Point) -> Range | None:
    if point.mbu is None:
        return None
    share = 100 * point.mbu
    decode = point.decode
    if decode is None or not decode.median:
        return Range(share, share, share)
    return Range(share, share * decode.low / decode.median, share * decode.high / decode.median)


def _mbu_hover(placed: Bar) -> str:
    point = placed.point
    lines = [f"MBU {100 * point.mbu:.1f} %"] if point.mbu is not None else []
    if point.bytes_per_token and point.bandwidth:
        lines.append(
            f"{bytes_text(point.bytes_per_token)} read per token, "
            f"of {bytes_text(point.bandwidth)}/s"
        )
    return hover_of(point, [*lines, _spread("decode", point.decode, rate_text)])


def _prompt(point: Point) -> str:
    if point.prompt_tokens is None:
        return ""
    kind = "prompt" if point.measured else "median prompt"
    return f"{kind} of {point.prompt_tokens} tokens"


# Memory


def _memory_bars(rows: Rows) -> list[Bar]:
    """Return one bar for the benchmark and one for the answers of each row.

    The memory of a process cannot be split by prompt length; it is highest after the longest one.
    """
    last: dict[tuple[RowKey, bool], Point] = {}
    for _, placed in rows.series():  # the shortest prompt first
        for each in placed:
            if each.point.memory is not None:
                last[each.row, each.point.measured] = each.point
    bars = []
    for (row, measured), point in last.items():
        both = (row, not measured) in last
        thickness = min(0.9 * rows.height(row) / (2 if both else 1), _MEMORY_BAR_PX)
        offset = 0.0 if not both else -0.53 * thickness if measured else 0.53 * thickness
        bars.append(Bar(point, row, rows.middle(row) + offset, thickness))
    return bars


def _memory_extent(point: Point) -> float:
    return max(_private(point) + _file_backed(point), _peak(point) or 0.0)


def _private(point: Point) -> float:
    return (point.memory_private or 0) / MB


def _file_backed(point: Point) -> float:
    return (point.memory_file_backed or 0) / MB


def _peak(point: Point) -> float | None:
    """Return the sum of both peaks in MB; they may have occurred at different times."""
    if point.memory_private_peak is None or point.memory_file_backed_peak is None:
        return None
    return (point.memory_private_peak + point.memory_file_backed_peak) / MB


def _memory_hover(placed: Bar) -> str:
    point = placed.point
    lines = [
        f"private {bytes_text(point.memory_private or 0)}, "
        f"file-backed {bytes_text(point.memory_file_backed or 0)}"
    ]
    if point.memory_private_peak is not None and point.memory_file_backed_peak is not None:
        lines.append(
            f"peak: private {bytes_text(point.memory_private_peak)}, "
            f"file-backed {bytes_text(point.memory_file_backed_peak)}"
        )
    if point.disk_bytes is not None:
        lines.append(f"on disk {bytes_text(point.disk_bytes)}")
    lines.append(f"memory: {plot_text(point.memory_scope)}")
    return hover_of(point, lines)
