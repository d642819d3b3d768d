"""Charts of the Models page."""

from __future__ import annotations

import re
from collections.abc import Mapping

import plotly.graph_objects as go

THIS_COLOUR, OTHERS_COLOUR = "#1f7fc9", "rgba(130,140,150,0.55)"

_BITS_COLOURS = {4: "#1f7fc9", 8: "#86b9e3", 16: "#f0a63c", 32: "#c8553d"}
_TASKS = {
    "openbookqa": "OpenBookQA",
    "arc_easy": "ARC easy",
    "winogrande": "WinoGrande",
    "hellaswag": "HellaSwag",
    "arc_challenge": "ARC challenge",
    "piqa": "PIQA",
    "boolq": "BoolQ",
    "geometric mean": "<b>Geometric mean</b>",
}
"""Display names of tasks, as in their publications."""


def scores_chart(model: str, title: str, scores: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Return a model's published scores in colour and those of the other models in grey.

    Args:
        model: Name of the model in the table.
        title: Display name of the model.
        scores: Model to {task: accuracy from 0 to 1}.
    """
    tasks = list(scores[model])
    others = [name for name in scores if name != model]
    figure = go.Figure(
        go.Scatter(
            x=[scores[name][task] for name in others for task in tasks],
            y=[_TASKS.get(task, task) for _ in others for task in tasks],
            mode="markers",
            name=f"{len(others)} others",
            marker={"color": OTHERS_COLOUR, "size": 8},
            customdata=[name for name in others for _ in tasks],
            hovertemplate="%{customdata}: %{x:.3f}<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[scores[model][task] for task in tasks],
            y=[_TASKS.get(task, task) for task in tasks],
            mode="markers+text",
            name=title,
            marker={"color": THIS_COLOUR, "size": 13, "symbol": "diamond"},
            text=[f"{scores[model][task]:.3f}" for task in tasks],
            textposition="top center",
            hovertemplate=f"{title}: %{{x:.3f}}<extra></extra>",
        )
    )
    figure.update_layout(
        height=400,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom", "x": 0},
        xaxis={"title": "accuracy, higher is better", "range": [0.28, 0.85]},
        yaxis={"automargin": True, "autorange": "reversed"},
    )
    return figure


def bits_chart(weight_types: Mapping[str, int]) -> go.Figure:
    """Return the share of parameters by bits per parameter as one stacked bar.

    Args:
        weight_types: OpenVINO element type to number of parameters.
    """
    shares = bit_shares(weight_types)
    figure = go.Figure(
        [
            go.Bar(
                x=[100 * share],
                y=[""],
                orientation="h",
                name=f"{bits} bits · {_percent(share)}",
                marker_color=_BITS_COLOURS.get(bits, OTHERS_COLOUR),
                hovertemplate=f"{bits} bits: %{{x:.1f}} % of the parameters<extra></extra>",
            )
            for bits, share in shares.items()
        ]
    )
    figure.update_layout(
        barmode="stack",
        height=110,
        margin={"l": 12, "r": 24, "t": 4, "b": 60},
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "traceorder": "normal",
        },
        showlegend=True,
        xaxis={"range": [0, 100], "ticksuffix": " %", "tickvals": [0, 25, 50, 75, 100]},
        yaxis={"visible": False},
    )
    return figure


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "under 0.1 %"


def bit_shares(weight_types: Mapping[str, int]) -> dict[int, float]:
    """Return the share of all parameters, 0 to 1, by bits per parameter in ascending order."""
    counts: dict[int, int] = {}
    for name, count in weight_types.items():
        found = re.search(r"\d+", name)
        if found and count:
            bits = int(found[0])
            counts[bits] = counts.get(bits, 0) + count
    total = sum(counts.values())
    return {bits: counts[bits] / total for bits in sorted(counts)}
