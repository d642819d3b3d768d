"""Bars of the next token's distribution (Plotly)."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas  # noqa: F401 - Plotly would use it while another thread is still importing it
import plotly.graph_objects as go

from core.inference.distribution import Distribution, softmax
from core.ui.lab.state import DRAWS, Place
from core.ui.widgets.tokens import label, percent

SHOWN = 12
"""Bars of a chart: the likeliest tokens."""
GREY, DRAWN = "#8d99a6", "#e0b13c"
BAR = 0.75
"""Height of the bars of a token; 1 is the distance of two tokens."""
_ROW_PX, _AROUND_PX = 30, 44


def bars_chart(
    place: Place,
    found: Distribution,
    shown: Sequence[int],
    counts: np.ndarray | None,
    colour: str,
) -> go.Figure:
    """Return the bars of the tokens in ``shown``; those that are cut off are grey and hatched.

    Args:
        counts: how often each id was drawn; None without a second bar for each token.
    """
    ids = np.array(shown)
    own = softmax(place.logits)[ids]
    kept = found.drawn[ids] > 0
    values = np.where(kept, found.drawn[ids], found.tempered[ids])
    rows = np.arange(len(ids))
    figure = go.Figure()
    for name, which, fill, pattern in (
        ("can be drawn", kept, colour, ""),
        ("cut off", ~kept, GREY, "/"),
    ):
        figure.add_bar(
            x=values[which],
            y=rows[which],
            orientation="h",
            name=name,
            offsetgroup="probability",
            customdata=ids[which],
            marker={"color": fill, "pattern": {"shape": pattern, "size": 5}},
            hovertext=[f"{name}, {percent(each)} before the settings" for each in own[which]],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    middle = rows.astype(float)
    if counts is not None:
        middle -= BAR / 4
        figure.add_bar(
            x=counts[ids] / DRAWS,
            y=rows,
            orientation="h",
            name=f"of {DRAWS:,} draws",
            offsetgroup="draws",
            customdata=ids,
            marker={"color": DRAWN},
            text=[f"{count:,}" for count in counts[ids]],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{text} of " + f"{DRAWS:,} draws<extra></extra>",
        )
    figure.add_scatter(
        x=own,
        y=middle,
        mode="markers",
        name="before the settings",
        marker={
            "symbol": "line-ns",
            "size": 14,
            "color": GREY,
            "line": {"width": 2, "color": GREY},
        },
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=np.maximum(values, own),
        y=middle,
        mode="text",
        text=[f" {percent(value)}" for value in values],
        textposition="middle right",
        cliponaxis=False,
        showlegend=False,
        hoverinfo="skip",
    )
    highest = max(float(values.max()), float(own.max()))
    figure.update_layout(
        barmode="group",
        bargap=1 - BAR,
        height=_ROW_PX * len(ids) * (1 if counts is None else 1.4) + _AROUND_PX,
        margin={"l": 0, "r": 8, "t": 0, "b": 44},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        dragmode=False,
        clickmode="event+select",
        hovermode="y",  # the whole row of a bar can be clicked
        hoverdistance=-1,
        xaxis={"range": [0, 1.2 * highest], "visible": False, "fixedrange": True},
        yaxis={
            "tickvals": list(range(len(ids))),
            "ticktext": [html.escape(label(place.text(int(each)))) for each in ids],
            "range": [len(ids) - 0.5, -0.5],
            "fixedrange": True,
            "showgrid": False,
            "automargin": True,
        },
    )
    return figure
