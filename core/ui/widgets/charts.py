"""Chart colours and the token timeline, shared by the pages (Plotly figures)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import pandas  # noqa: F401 - Plotly would use it while another thread is still importing it
import plotly.graph_objects as go

from core.compare.timed_answers import Timeline

SIDE_COLOURS = ("#1f7fc9", "#d9730d", "#2f9e62", "#9b59b6")
"""Colours of the sides of a comparison, readable in the light and the dark theme."""
PRIVATE_COLOUR, FILE_COLOUR = "#0b67b2", "#8fbce0"


def timeline_chart(timelines: Sequence[tuple[str, Timeline]]) -> go.Figure:
    """Return a chart of the tokens of several answers over the seconds since each started.

    Args:
        timelines: the name of each line and its points. Lines measured while the machine was busy
            are dashed and labelled so.
    """
    figure = go.Figure()
    for (name, line), colour in zip(timelines, cycle(SIDE_COLOURS)):
        figure.add_trace(
            go.Scatter(
                x=line.seconds,
                y=line.tokens,
                mode="lines",
                line={"color": colour, "width": 2.5, "dash": "dash" if line.contended else "solid"},
                name=f"{name} (measured while busy)" if line.contended else name,
                hovertemplate="%{y} tokens after %{x:.3f} s<extra>" + name + "</extra>",
            )
        )
    figure.update_layout(
        title="Tokens over time",
        height=340,
        margin={"l": 10, "r": 20, "t": 50, "b": 90},
        legend={"orientation": "h", "yref": "container", "y": 0.02, "yanchor": "bottom", "x": 0},
        xaxis={"title": "seconds since the start", "rangemode": "tozero"},
        yaxis={"title": "tokens", "rangemode": "tozero", "automargin": True},
        showlegend=True,
    )
    return figure
