"""What a precision costs and brings, in one sentence per model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from core.metrics.rows import Point

EQUAL_SPEED = 0.05
"""Rates within 5 % of each other are called equal: so much do two runs of one model differ."""
SAME_QUALITY = 0.01
"""A perplexity within 1 % of the reference is called the same quality."""
ACCEPTABLE_LOSS = 0.05
"""A recommended precision has at most 5 % more perplexity than the reference."""


@dataclass(frozen=True)
class Verdict:
    """Comparison of the precisions of one model, on one device and runtime."""

    model: str
    recommendation: str
    """Which precision to take, as the rest of a sentence that begins with the model."""
    details: str
    """How each precision compares with the highest one, as a sentence."""


def verdicts(points: Iterable[Point]) -> list[Verdict]:
    """Return a verdict for each model with benchmarks of several precisions, newest first.

    Precisions are compared on the same machine, device and runtime, with the shortest prompt; what
    was measured while busy only among itself, and only if there is nothing else.

    Args:
        points: The newest point of each configuration, the highest precision of a model first.
    """
    groups: dict[tuple[object, ...], dict[str, Point]] = {}
    for point in points:
        subject = point.subject
        if point.measured and point.decode is not None:
            key = (subject.source, subject.model, subject.machine, subject.device_label)
            group = groups.setdefault((*key, subject.runtime, subject.contended), {})
            known = group.get(subject.weights)
            if known is None or (point.prompt_tokens or 0) < (known.prompt_tokens or 0):
                group[subject.weights] = point
    several = [list(group.values()) for group in groups.values() if len(group) > 1]
    newest = sorted(several, key=lambda group: max(p.when for p in group), reverse=True)
    newest.sort(key=lambda group: group[0].subject.contended)
    found: dict[str, Verdict] = {}
    for group in newest:
        found.setdefault(group[0].subject.model, _verdict(group))
    count = Counter(verdict.model for verdict in found.values())
    return [
        replace(verdict, model=f"{verdict.model} ({key})") if count[verdict.model] > 1 else verdict
        for key, verdict in found.items()
    ]


def _verdict(group: Sequence[Point]) -> Verdict:
    reference, *others = group
    measured = any(point.quality for point in others)
    details = "; ".join(_comparison(other, reference, measured) for other in others)
    busy = " Measured while busy, so this may be wrong." if reference.subject.contended else ""
    return Verdict(reference.subject.name, _recommendation(group), f"{details}.{busy}")


def _recommendation(group: Sequence[Point]) -> str:
    reference, *others = group
    fastest = max(group, key=_rate)
    losses = {point.id: loss for point in others if (loss := _loss(point, reference)) is not None}
    if not losses:
        return f"{fastest.subject.weights} is the fastest; quality has not been measured"
    good = [reference, *(p for p in others if losses.get(p.id, math.inf) <= ACCEPTABLE_LOSS)]
    best = max(good, key=_rate)
    near = [p for p in good if _rate(p) >= _rate(best) * (1 - EQUAL_SPEED)]
    taken = min(near, key=lambda point: (point.memory is None, point.memory or 0))
    name = taken.subject.weights
    if taken is fastest is reference:
        return f"take {name}: no lower precision is faster"
    if taken is fastest:
        return f"take {name}, the fastest, with at most 5 % more perplexity"
    return f"take {name}, the fastest with at most 5 % more perplexity"


def _comparison(point: Point, reference: Point, measured: bool) -> str:
    """Return for example "INT8 is 1.6 times as fast as FP16, uses 55 % of its memory and …".

    Args:
        measured: whether the quality of any precision was measured.
    """
    speed = _rate(point) / _rate(reference)
    name = reference.subject.weights
    if abs(speed - 1) <= EQUAL_SPEED:
        parts = [f"is as fast as {name}"]
    else:
        parts = [f"is {speed:.1f} times as fast as {name}"]
    if point.memory and reference.memory:
        parts.append(f"uses {100 * point.memory / reference.memory:.0f} % of its memory")
    loss = _loss(point, reference)
    if loss is None:
        parts += ["has no measured quality"] * measured
    elif abs(loss) <= SAME_QUALITY:
        parts.append("keeps its quality")
    else:
        parts.append(f"has {100 * abs(loss):.0f} % {'more' if loss > 0 else 'less'} perplexity")
    *first, last = parts
    return f"{point.subject.weights} " + (f"{', '.join(first)} and {last}" if first else last)


def _loss(point: Point, reference: Point) -> float | None:
    """Return by how much the perplexity is above that of the reference; None if unknown."""
    if point.quality is None:
        return None
    base = 1.0
    if reference.quality is not None:
        base = reference.quality.perplexity_ratio
    elif point.quality.reference != reference.subject.precision:
        return None
    return point.quality.perplexity_ratio / base - 1


def _rate(point: Point) -> float:
    return point.decode.median if point.decode else 0.0
