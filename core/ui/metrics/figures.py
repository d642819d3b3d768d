"""Key figures of one configuration, with their change against another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from core.metrics.rows import Point, PointSource
from core.ui.metrics.bars import point_labels
from core.ui.widgets.link import link_choice, one_of
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, duration_text, milliseconds_text

_METRIC_PX = 172
"""So wide that seven stand beside each other on a usual screen, and two on a narrow one."""

_SAME = 0.005
"""A change of less than half a per cent is none."""


@dataclass(frozen=True)
class KeyFigure:
    """One figure of the row on top."""

    name: str
    value: str
    delta: str | None
    """Change against the baseline, signed; None without one."""
    lower_is_better: bool
    help: str


def draw_key_figures(points: Sequence[Point]) -> None:
    """Let the person choose a configuration and a baseline, and draw the figures of both.

    Args:
        points: the newest of each configuration, sorted.
    """
    known = {point_key(point): point for point in points if point.decode is not None}
    if not known:
        return
    usual = point_key(usual_point(list(known.values())))
    labels = point_labels(known)
    left, right = st.columns(2)
    link_choice("shown", usual, one_of(list(known)))
    _keep_possible("shown", known, usual)
    shown = left.selectbox(
        "Key figures of",
        list(known),
        format_func=labels.__getitem__,
        key="shown",
        persist_state="session",
        on_change=_usual_baseline_again,
    )
    point = known[shown or usual]
    others = ["none", *(key for key in known if key != point_key(point))]
    base = usual_baseline(point, list(known.values()))
    usual_base = "none" if base is None else point_key(base)
    link_choice("against", usual_base, one_of(others))
    _keep_possible("against", others, usual_base)
    against = right.selectbox(
        "Change against",
        others,
        format_func=lambda key: labels.get(key, "nothing"),
        key="against",
        persist_state="session",
    )
    baseline = known.get(against or "none")
    with st.container(horizontal=True, gap="small", key="key_figures"):
        for figure in key_figures(point, baseline):
            st.metric(
                figure.name,
                figure.value,
                figure.delta,
                delta_color="off"
                if figure.delta == "the same"
                else "inverse"
                if figure.lower_is_better
                else "normal",
                delta_arrow="off" if figure.delta == "the same" else "auto",
                help=figure.help,
                border=True,
                width=_METRIC_PX,
            )
    st.caption(_conditions(point))


def point_key(point: Point) -> str:
    """What stands for a configuration in a link: the same on every day and machine."""
    subject = point.subject
    parts = [
        subject.model,
        "random" if subject.random else "",
        subject.precision,
        "" if subject.device == subject.device_requested else subject.device_requested,
        subject.device,
        subject.runtime,
        str(point.prompt_tokens) if point.measured else "answers",
        subject.host,
        "imported" if subject.source is PointSource.IMPORTED else "",
        "contended" if subject.contended else "",
    ]
    return "~".join(part for part in parts if part)


def usual_point(points: Sequence[Point]) -> Point:
    """The configuration that is shown at first: of what was measured last, the fastest."""
    measured = [point for point in points if point.measured] or list(points)
    newest = max(measured, key=lambda point: point.when).subject
    same = [p for p in measured if (p.subject.name, p.subject.host) == (newest.name, newest.host)]
    return max(same, key=lambda point: point.decode.median if point.decode else 0.0)


def usual_baseline(point: Point, points: Sequence[Point]) -> Point | None:
    """What it is compared with at first: the same model in its highest precision, PyTorch last."""
    mine = point.subject
    comparable = [
        other
        for other in points
        if (other.subject.name, other.subject.host) == (mine.name, mine.host)
        and other.measured == point.measured
        and (not point.measured or other.prompt_tokens == point.prompt_tokens)
        and other.subject != mine
    ]
    if not comparable:
        return None
    return min(
        comparable,
        key=lambda other: (
            other.subject.runtime != mine.runtime,
            other.subject.device_label != mine.device_label,
            other.subject.order,
        ),
    )


def key_figures(point: Point, baseline: Point | None) -> list[KeyFigure]:
    """The figures that are known of ``point``."""
    found = [
        _figure(
            "Tokens/s",
            point,
            baseline,
            lambda p: p.decode.median if p.decode else None,
            lambda rate: f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}",
            "Decode rate without prefill: the median of 1 / TPOT.",
        ),
        _figure(
            "First token",
            point,
            baseline,
            lambda p: p.ttft_ms.median if p.ttft_ms else None,
            milliseconds_text,
            "Start of work to the first token, prefill included; median.",
            lower_is_better=True,
        ),
        _figure(
            "Memory",
            point,
            baseline,
            lambda p: p.memory if p.memory_scope == point.memory_scope else None,
            bytes_text,
            f"Private and file-backed together, of {point.memory_scope}, after the first answer.",
            lower_is_better=True,
        ),
        _figure(
            "Load time",
            point,
            baseline,
            lambda p: p.load_s,
            lambda seconds: f"{seconds:.1f} s" if seconds < 60 else duration_text(seconds),
            "Until it is ready, warm-up included.",
            lower_is_better=True,
        ),
        _figure(
            "MBU",
            point,
            baseline,
            lambda p: p.mbu,
            lambda share: f"{100 * share:.0f} %",
            "Use of the memory bandwidth: bytes read per token × tokens/s over the measured read "
            "bandwidth.",
        ),
        _figure(
            "Perplexity ×",
            point,
            baseline,
            lambda p: p.quality.perplexity_ratio if p.quality else None,
            lambda ratio: f"{ratio:.3f}",
            "Times that of the model's reference precision, on a fixed set of texts.",
            lower_is_better=True,
        ),
        _figure(
            "Accuracy",
            point,
            baseline,
            lambda p: p.quality.task_accuracy if p.quality else None,
            lambda share: f"{100 * share:.0f} %",
            "Of an embedded model, on instructions it has not seen.",
        ),
    ]
    return [figure for figure in found if figure is not None]


def _figure(
    name: str,
    point: Point,
    baseline: Point | None,
    read: Callable[[Point], float | None],
    words: Callable[[float], str],
    help_text: str,
    *,
    lower_is_better: bool = False,
) -> KeyFigure | None:
    value = read(point)
    if value is None:
        return None
    before = read(baseline) if baseline is not None else None
    return KeyFigure(name, words(value), _change(value, before), lower_is_better, help_text)


def _change(value: float, before: float | None) -> str | None:
    """How much more or less than before: per cent up to twice as much, then a factor."""
    if not before:
        return None
    change = value / before - 1
    if abs(change) < _SAME:
        return "the same"
    if change >= 1:
        return f"{value / before:.1f} ×"
    return f"{100 * change:+.0f} %"


def _conditions(point: Point) -> str:
    subject = point.subject
    asked = (
        ""
        if subject.device == subject.device_requested
        else f", asked for {subject.device_requested}"
    )
    parts = [
        point.answers,
        f"on {subject.device}{asked}",
        point.conditions,
        f"{subject.host}, {subject.host_cpu}",
        f"{point.when:%Y-%m-%d %H:%M} UTC",
    ]
    if point.bandwidth:
        parts.append(f"read bandwidth {point.bandwidth / 1e9:.1f} GB/s")
    if subject.contended:
        parts.append("contended")
    return safe_inline(" · ".join(part for part in parts if part))


def _usual_baseline_again() -> None:
    """With another configuration, its own baseline is the one to start from; a callback."""
    st.session_state["against"] = None


def _keep_possible(key: str, options: Sequence[str] | dict[str, Point], usual: str) -> None:
    """Choose anew where the filter took away what was chosen."""
    if st.session_state[key] not in options:
        st.session_state[key] = usual
