"""Draw the lab: the walked path, the distribution of each side, and how two models differ."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from core.inference.distribution import Distribution, kl_divergence, order_changes, softmax
from core.ui.compare.setup import SIDE_BADGES
from core.ui.lab.state import DRAWS, Lab, Place
from core.ui.widgets.actions import action
from core.ui.widgets.charts import SIDE_COLOURS
from core.ui.widgets.safe_text import safe_inline
from core.ui.widgets.tokens import label, numbered, percent
from core.units import counted

SHOWN = 12
"""Bars of a chart: the likeliest tokens."""
GREY, DRAWN = "#8d99a6", "#e0b13c"
BAR = 0.75
"""Height of the bars of a token; 1 is the distance of two tokens."""
_ROW_PX, _AROUND_PX = 30, 44
CHANGES = 20
"""Likeliest tokens of A whose order is compared with that of B."""
_CHOICES = 100
"""Tokens that *Continue with* offers."""
_WALKED = 24
"""Latest tokens of the path that can be walked back to."""
_CONFIG = {"displayModeBar": False, "scrollZoom": False}


def draw_path(state: Lab, place: Place) -> None:
    """Draw the tokens after the text, to walk back, and the other branches."""
    path = state.path
    if path:
        lengths = [0, *range(max(0, len(path) - _WALKED) + 1, len(path) + 1)]
        st.pills(
            "Walk back to",
            lengths,
            format_func=lambda n: (
                numbered(_shown(place, path[n - 1]), n) if n else ":material/first_page: text"
            ),
            key=(key := f"walked_{state.step}"),
            on_change=_picked,
            args=(key, lambda length: state.go(path[:length])),
        )
    others = [each for each in state.branches if each[: len(path)] != path]
    if others:
        st.pills(
            "Other branches",
            range(len(others)),
            format_func=lambda at: numbered(
                "".join(_shown(place, each) for each in others[at][-8:]), at
            ),
            key=(key := f"branches_{state.step}"),
            on_change=_picked,
            args=(key, lambda at: state.go(others[at])),
        )


def draw_actions(state: Lab, place: Place, found: Distribution, signature: object) -> None:
    """Draw the buttons, and the tokens to continue with, for the keyboard and small screens.

    Args:
        signature: what the present distributions depend on.
    """
    action(
        "Draw",
        "casino",
        "draw",
        lambda: state.take(int(found.draw(1).argmax())),
        kind="primary",
        shortcut="d",
        help="Draw a token by the present settings and go on from there.",
    )
    if action(
        f"Draw {DRAWS:,}",
        "bar_chart",
        "draw_many",
        kind="secondary",
        help="Draw that often without going on, and show how often each token came.",
    ):
        state.draws = signature, []
    st.selectbox(
        "Continue with",
        found.order[:_CHOICES].tolist(),
        index=None,
        format_func=lambda token: numbered(
            f"{label(place.text(token))} · {percent(found.tempered[token])}", token
        ),
        placeholder="Continue with …",
        label_visibility="collapsed",
        key=(key := f"continue_{state.step}"),
        on_change=_picked,
        args=(key, state.take),
        width=260,
    )


def draw_side(
    state: Lab,
    side: int,
    place: Place,
    found: Distribution,
    shown: Sequence[int] | None = None,
    signature: object = None,
    several: bool = False,
) -> None:
    """Draw the distribution of one side.

    Args:
        side: 0 or 1.
        shown: the tokens with a bar; None: its own likeliest.
        signature: what the present distributions depend on; draws for another one are not shown.
        several: whether there are two sides, which then have letters.
    """
    counts = None
    if state.draws is not None and state.draws[0] == signature:
        if len(state.draws[1]) <= side:
            state.draws[1].append(found.draw(DRAWS))
        counts = state.draws[1][side]
    letter = f":{SIDE_BADGES[side]}-badge[{'AB'[side]}] " if several else ""
    with st.container(key=f"lab_side_{side}", gap="xsmall"):
        st.markdown(
            f"{letter}**{safe_inline(place.title)}** keeps **{len(found.kept):,}** of "
            f"{counted(len(found.drawn), 'token')} with **{percent(found.kept_mass)}** of the "
            "probability."
        )
        ids = found.order[:SHOWN].tolist() if shown is None else list(shown)
        figure = _bars_chart(place, found, ids, counts, SIDE_COLOURS[side])
        key = f"bars_{side}_{state.step}"
        clickable = side == 0 or shown is not None  # not with another vocabulary
        st.plotly_chart(
            figure,
            key=key,
            config=_CONFIG,
            on_select=(lambda: _clicked(state, key)) if clickable else "ignore",
            selection_mode="points",
        )


def _bars_chart(
    place: Place, found: Distribution, shown: Sequence[int], counts: np.ndarray | None, colour: str
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


def draw_difference(one: Place, other: Place) -> None:
    """Draw how the second model differs: KL divergence, and the tokens that change their order."""
    if not one.texts.same_as(other.texts):
        st.caption(
            "The two models have different vocabularies, so their probabilities cannot be compared "
            "token by token."
        )
        return
    changes = order_changes(one.logits, other.logits, CHANGES)
    with st.container(horizontal=True, vertical_alignment="center"):
        divergence = kl_divergence(one.logits, other.logits)
        st.metric(
            "KL divergence",
            f"{divergence:.4f} nats",
            help="Kullback–Leibler divergence D(A ‖ B) of the probabilities before the settings: "
            "how many nats less likely B finds A's next token, on average. 0 if both expect the "
            "same.",
            width="content",
        )
        st.metric("Tokens that change their order", f"{len(changes)} of {CHANGES}", width="content")
    if changes:
        p, q = softmax(one.logits), softmax(other.logits)
        frame = pd.DataFrame(
            {
                "Token": label(one.text(each.token_id)),
                "Rank in A": each.rank,
                "Rank in B": each.other_rank,
                "A": percent(p[each.token_id]),
                "B": percent(q[each.token_id]),
            }
            for each in changes
        )
        with st.expander("Which ones", icon=":material/swap_vert:"):
            st.dataframe(frame, hide_index=True)


def _shown(place: Place, token: int) -> str:
    return safe_inline(label(place.text(token)))


def _picked(key: str, act: Callable[[Any], None]) -> None:
    """Callback: act on a choice; a second click clears it."""
    if (value := st.session_state[key]) is not None:
        act(value)


def _clicked(state: Lab, key: str) -> None:
    """Callback: continue from the bar that was clicked."""
    points = st.session_state[key].selection.points
    if points:
        state.take(int(np.ravel(points[0]["customdata"])[0]))
