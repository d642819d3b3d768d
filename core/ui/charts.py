"""Charts of what was measured, as plotly figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from statistics import median

import plotly.graph_objects as go

from core.comparison.timeline import Timeline
from core.records import RunRecord

SIDE_COLOURS = ("#1f7fc9", "#d9730d", "#2f9e62", "#9b59b6")
"""Of the sides of a comparison; they read on a light and on a dark page."""
PRIVATE_COLOUR, FILE_COLOUR = "#0b67b2", "#8fbce0"


def by_configuration(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Ended runs with a decode rate, by model, precision and device used, in a stable order."""
    groups: dict[str, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: (run.start.title, run.start.precision)):
        if run.result is not None and run.result.decode_tokens_per_s is not None:
            device = ", ".join(run.result.devices_used) or run.start.device
            label = f"{run.start.title} · {run.start.precision.upper()} · {device}"
            groups.setdefault(label, []).append(run)
    return groups


def decode_rate_chart(groups: dict[str, list[RunRecord]]) -> go.Figure:
    """Median decode rate in tokens/s of each configuration, every run as a point."""
    labels = list(groups)
    rates = {
        label: [run.result.decode_tokens_per_s for run in runs if run.result]
        for label, runs in groups.items()
    }
    figure = go.Figure(
        go.Bar(
            x=[median(rates[label]) for label in labels],
            y=labels,
            orientation="h",
            marker_color=PRIVATE_COLOUR,
            name="median",
            customdata=[len(rates[label]) for label in labels],
            hovertemplate="%{y}<br>median %{x:.1f} tokens/s, %{customdata} answers<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[rate for label in labels for rate in rates[label]],
            y=[label for label in labels for _ in rates[label]],
            mode="markers",
            marker={"color": "rgba(120,130,140,0.6)", "size": 6},
            name="each answer",
            hovertemplate="%{x:.1f} tokens/s<extra></extra>",
        )
    )
    return _laid_out(figure, "Decode rate: tokens/s, higher is better", "tokens/s", len(labels))


def memory_chart(groups: dict[str, list[RunRecord]]) -> go.Figure:
    """Growth of the process by each configuration's load and warm-up, in MiB (median)."""
    labels = [
        label
        for label, runs in groups.items()
        if any(run.result and run.result.memory_private_bytes is not None for run in runs)
    ]

    def mib(field: str) -> list[float]:
        return [
            median(
                value / 2**20
                for run in groups[label]
                if (value := getattr(run.result, field, None)) is not None
            )
            for label in labels
        ]

    figure = go.Figure()
    for name, field, colour in (
        ("private", "memory_private_bytes", PRIVATE_COLOUR),
        ("file-backed", "memory_file_backed_bytes", FILE_COLOUR),
    ):
        figure.add_trace(
            go.Bar(
                x=mib(field),
                y=labels,
                orientation="h",
                name=name,
                marker_color=colour,
                hovertemplate=f"%{{y}}<br>{name} %{{x:.0f}} MiB<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack")
    return _laid_out(figure, "Memory taken by loading: MiB, lower is better", "MiB", len(labels))


def timeline_chart(timelines: Sequence[tuple[str, Timeline]]) -> go.Figure:
    """Tokens of several answers over the seconds since work on each began.

    Args:
        timelines: the name of each line and its points. Contended ones are dashed and say so.
    """
    figure = go.Figure()
    for (name, line), colour in zip(timelines, cycle(SIDE_COLOURS)):
        figure.add_trace(
            go.Scatter(
                x=line.seconds,
                y=line.tokens,
                mode="lines",
                line={"color": colour, "width": 2.5, "dash": "dash" if line.contended else "solid"},
                name=f"{name} (contended)" if line.contended else name,
                hovertemplate="%{y} tokens after %{x:.3f} s<extra>" + name + "</extra>",
            )
        )
    figure.update_layout(
        title="Tokens over time",
        height=340,
        margin={"l": 10, "r": 20, "t": 50, "b": 90},
        legend={"orientation": "h", "yref": "container", "y": 0.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": "seconds since work began", "rangemode": "tozero"},
        yaxis={"title": "tokens", "rangemode": "tozero", "automargin": True},
        showlegend=True,
    )
    return figure


def _laid_out(figure: go.Figure, title: str, unit: str, rows: int) -> go.Figure:
    figure.update_layout(
        title=title,
        height=190 + 46 * max(rows, 1),
        margin={"l": 10, "r": 20, "t": 50, "b": 90},
        # Below, in pixels of this height: above, it would run into the title on a narrow screen.
        legend={"orientation": "h", "yref": "container", "y": 0.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": unit, "rangemode": "tozero"},
        yaxis={"automargin": True, "autorange": "reversed"},
    )
    return figure
