"""Charts of the Models page."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from core.store.formats import bits_of

THIS_COLOUR, OTHERS_COLOUR = "#1f7fc9", "rgba(130,140,150,0.55)"
_BITS_COLOURS = {4: "#1f7fc9", 8: "#86b9e3", 16: "#f0a63c", 32: "#c8553d"}
_LEGEND = {"orientation": "h", "yref": "container", "yanchor": "bottom", "x": 0, "title": None}
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
        model: name of the model in the table.
        title: display name of the model.
        scores: model to {task: accuracy from 0 to 1}.
    """
    others = f"{len(scores) - 1} others"
    rows = [
        {
            "model": name,
            "task": _TASKS.get(task, task),
            "accuracy, higher is better": scores[name][task],
            "series": title if name == model else others,
        }
        for name in sorted(scores, key=lambda name: name == model)
        for task in scores[model]
    ]
    figure = px.scatter(
        rows,
        x="accuracy, higher is better",
        y="task",
        color="series",
        custom_data="model",
        color_discrete_map={title: THIS_COLOUR, others: OTHERS_COLOUR},
        range_x=[0.28, 0.85],
        height=400,
    )
    figure.update_traces(marker_size=8, hovertemplate="%{customdata[0]}: %{x:.3f}<extra></extra>")
    figure.update_traces(
        selector={"name": title},
        mode="markers+text",
        marker={"size": 13, "symbol": "diamond"},
        texttemplate="%{x:.3f}",
        textposition="top center",
    )
    figure.update_layout(margin={"l": 10, "r": 10, "t": 10, "b": 10}, legend={"y": 0.01} | _LEGEND)
    figure.update_yaxes(title=None, automargin=True, autorange="reversed")
    return figure


def formats_chart(formats: Mapping[str, int]) -> go.Figure:
    """Return the share of parameters by format as one stacked bar, the fewest bits first."""
    names = sorted(formats, key=bits_of)
    shares = [100 * formats[name] / max(sum(formats.values()), 1) for name in names]
    labels = [
        f"{name} · {share:.1f} %" if share >= 0.05 else f"{name} · under 0.1 %"
        for name, share in zip(names, shares, strict=True)
    ]
    figure = px.bar(
        pd.DataFrame({"share": shares, "format": labels, "row": ""}),
        x="share",
        y="row",
        color="format",
        orientation="h",
        height=110,
        range_x=[0, 100],
        color_discrete_sequence=[_BITS_COLOURS.get(bits_of(name), OTHERS_COLOUR) for name in names],
    )
    figure.update_traces(hovertemplate="%{fullData.name} of the parameters<extra></extra>")
    figure.update_layout(
        margin={"l": 12, "r": 24, "t": 4, "b": 60}, legend={"y": 0} | _LEGEND, showlegend=True
    )
    figure.update_xaxes(title=None, ticksuffix=" %", tickvals=[0, 25, 50, 75, 100])
    figure.update_yaxes(visible=False)
    return figure
