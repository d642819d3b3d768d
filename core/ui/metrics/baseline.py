"""Key figures of one configuration, compared with a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from core.metrics.rows import Point, PointSource, precision_label
from core.ui.metrics.bars import point_labels
from core.ui.widgets.link import link_choice, one_of
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, duration_text, milliseconds_text

_METRIC_PX = 172
"""Width for seven metrics side by side on a usual screen and two on a narrow one."""

_SAME = 0.005
"""Changes below 0.5 % are shown as "the same"."""


@dataclass(frozen=True)
class KeyFigure:
    """One figure of the top row."""

    name: str
    value: str
    delta: str | None
    """Signed change from the baseline; None without one."""
    lower_is_better: bool
    help: str


def draw_key_figures(points: Sequence[Point]) -> None:
    """Draw selectors of a configuration and a baseline, and the figures of the configuration.

    Args:
        points: The newest point of each configuration, sorted.
    """
    known = {point_key(point): point for point in points if point.decode is not None}
    if not known:
        return
    default = point_key(default_point(list(known.values())))
    labels = point_labels(known)
    left, right = st.columns(2)
    link_choice("shown", default, one_of(list(known)))
    _reset_if_unavailable("shown", known, default)
    shown = left.selectbox(
        "Configuration",
        list(known),
        format_func=labels.__getitem__,
        key="shown",
        persist_state="session",
        on_change=_reset_baseline,
    )
    point = known[shown or default]
    others = ["none", *(key for key in known if key != point_key(point))]
    base = default_baseline(point, list(known.values()))
    default_base = "none" if base is None else point_key(base)
    link_choice("against", default_base, one_of(others))
    _reset_if_unavailable("against", others, default_base)
    against = right.selectbox(
        "Compared with",
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
    """Return the identifier of a configuration in links, independent of the time."""
    subject = point.subject
    parts = [
        subject.model,
        "random" if subject.random else "",
        subject.precision,
        "" if subject.weights == precision_label(subject.precision) else subject.weights,
        "" if subject.device == subject.device_requested else subject.device_requested,
        subject.device,
        subject.runtime,
        str(point.prompt_tokens) if point.measured else "answers",
        subject.host,
        "imported" if subject.source is PointSource.IMPORTED else "",
        "contended" if subject.contended else "",
    ]
    return "~".join(part for part in parts if part)


def default_point(points: Sequence[Point]) -> Point:
    """Return the configuration selected by default: the fastest of the last measured model."""
    measured = [point for point in points if point.measured] or list(points)
    newest = max(measured, key=lambda point: point.when).subject
    same = [p for p in measured if (p.subject.name, p.subject.host) == (newest.name, newest.host)]
    return max(same, key=lambda point: point.decode.median if point.decode else 0.0)


def default_baseline(point: Point, points: Sequence[Point]) -> Point | None:
    """Return the default baseline: the same model in its highest precision, other runtimes last."""
    own = point.subject
    comparable = [
        other
        for other in points
        if (other.subject.name, other.subject.host) == (own.name, own.host)
        and other.measured == point.measured
        and (not point.measured or other.prompt_tokens == point.prompt_tokens)
        and other.subject != own
    ]
    if not comparable:
        return None
    return min(
        comparable,
        key=lambda other: (
            other.subject.runtime != own.runtime,
            other.subject.device_label != own.device_label,
            other.subject.order,
        ),
    )


def key_figures(point: Point, baseline: Point | None) -> list[KeyFigure]:
    """Return the known figures of ``point``."""
    found = [
        _figure(
            "Tokens/s",
            point,
            baseline,
            lambda p: p.decode.median if p.decode else None,
            lambda rate: f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}",
            "Decode rate without prefill: median of 1 / TPOT.",
        ),
        _figure(
            "First token",
            point,
            baseline,
            lambda p: p.ttft_ms.median if p.ttft_ms else None,
            milliseconds_text,
            "Time from the start of work to the first token, including prefill (median).",
            lower_is_better=True,
        ),
        _figure(
            "Memory",
            point,
            baseline,
            lambda p: p.memory if p.memory_scope == point.memory_scope else None,
            bytes_text,
            f"Private plus file-backed memory after the first answer ({point.memory_scope}).",
            lower_is_better=True,
        ),
        _figure(
            "Load time",
            point,
            baseline,
            lambda p: p.load_s,
            lambda seconds: f"{seconds:.1f} s" if seconds < 60 else duration_text(seconds),
            "Time until the model is ready, including warm-up.",
            lower_is_better=True,
        ),
        _figure(
            "MBU",
            point,
            baseline,
            lambda p: p.mbu,
            lambda share: f"{100 * share:.0f} %",
            "Model bandwidth utilisation: bytes read per token × tokens/s ÷ measured read "
            "bandwidth.",
        ),
        _figure(
            "Perplexity ×",
            point,
            baseline,
            lambda p: p.quality.perplexity_ratio if p.quality else None,
            lambda ratio: f"{ratio:.3f}",
            "Perplexity ÷ perplexity of the reference precision, on a fixed set of texts.",
            lower_is_better=True,
        ),
        _figure(
            "Accuracy",
            point,
            baseline,
            lambda p: p.quality.task_accuracy if p.quality else None,
            lambda share: f"{100 * share:.0f} %",
            "Share of held-out tasks solved; only measured for the tiny demo models.",
        ),
    ]
    return [figure for figure in found if figure is not None]


def _figure(
    name: str,
    point: Point,
    baseline: Point | None,
    read: Callable[[Point], float | None],
    to_text: Callable[[float], str],
    help_text: str,
    *,
    lower_is_better: bool = False,
) -> KeyFigure | None:
    value = read(point)
    if value is None:
        return None
    before = read(baseline) if baseline is not None else None
    return KeyFigure(name, to_text(value), _change(value, before), lower_is_better, help_text)


def _change(value: float, before: float | None) -> str | None:
    """Return the change as text: in percent below +100 %, otherwise as a factor."""
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
    requested = (
        ""
        if subject.device == subject.device_requested
        else f" (requested: {subject.device_requested})"
    )
    parts = [
        point.answers,
        f"on {subject.device}{requested}",
        point.conditions,
        f"{subject.host}, {subject.host_cpu}",
        f"{point.when:%Y-%m-%d %H:%M} UTC",
    ]
    if point.bandwidth:
        parts.append(f"read bandwidth {point.bandwidth / 1e9:.1f} GB/s")
    if subject.contended:
        parts.append("measured while busy")
    return safe_inline(" · ".join(part for part in parts if part))


def _reset_baseline() -> None:
    """Select the default baseline of a newly selected configuration; a callback."""
    st.session_state["against"] = None


def _reset_if_unavailable(
    key: str, options: Sequence[str] | dict[str, Point], default: str
) -> None:
    """Select the default if the filter excludes the selected option."""
    if st.session_state[key] not in options:
        st.session_state[key] = default
