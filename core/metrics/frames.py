"""Data frames for the charts and the comparison table of the Metrics page."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from core.metrics.labels import configuration_names, model_names
from core.metrics.rows import Point, Range

MB = 1e6
KEY = ["model", "configuration"]
"""Columns that identify a configuration: a row of the charts and of the comparison table."""


def point_frame(points: Sequence[Point]) -> pd.DataFrame:
    """Return one row per point, in the same order. Unknown figures are NaN.

    Columns: ``point``; ``model``, ``configuration`` and ``series`` (display names); ``measured``,
    ``contended``, ``when``; ``rate`` (tokens/s), ``ttft`` (ms) and ``mbu`` (%), each with
    ``_low`` and ``_high``; ``private``, ``file_backed`` and ``memory`` (MB); ``disk`` (MB);
    ``load`` (s); ``perplexity`` (ratio to the reference), ``accuracy`` (%).
    """
    subjects = [point.subject for point in points]
    rows = [
        {
            "point": point,
            "model": model,
            "configuration": configuration,
            "series": _series(point),
            "measured": point.measured,
            "contended": point.subject.contended,
            "when": point.when,
            "prompt_tokens": point.prompt_tokens or 0,
            **_range("rate", point.decode),
            **_range("ttft", point.ttft_ms),
            **_range("mbu", _mbu(point)),
            "private": point.memory_private,
            "file_backed": point.memory_file_backed,
            "memory": point.memory,
            "disk": point.disk_bytes,
            "load": point.load_s,
            "perplexity": point.quality.perplexity_ratio if point.quality else None,
            "accuracy": point.quality.task_accuracy if point.quality else None,
        }
        for point, model, configuration in zip(
            points, model_names(subjects), configuration_names(subjects), strict=True
        )
    ]
    frame = pd.DataFrame(rows)
    if not rows:
        return frame
    sizes = ["private", "file_backed", "memory", "disk"]
    columns = ["rate", "ttft", "mbu", *sizes, "load", "perplexity", "accuracy"]
    columns += ["rate_low", "rate_high", "ttft_low", "ttft_high", "mbu_low", "mbu_high"]
    frame = frame.astype(dict.fromkeys(columns, "float64"))
    frame[sizes] /= MB
    frame["accuracy"] *= 100
    return frame


def most_recent(frame: pd.DataFrame, count: int) -> tuple[pd.DataFrame, int]:
    """Return the rows of the ``count`` most recently measured configurations, and how many more
    there are."""
    newest = frame.groupby(KEY, sort=False)["when"].max().sort_values()
    kept = pd.MultiIndex.from_frame(frame[KEY]).isin(newest.index[-count:])
    return frame[kept], max(0, len(newest) - count)


def best_known(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per configuration: the benchmark with the shortest prompt, else answers.

    What was measured on an idle machine is preferred.
    """
    order = frame.sort_values(
        ["contended", "measured", "prompt_tokens"], ascending=[True, False, True], kind="stable"
    )
    return order.drop_duplicates(KEY).sort_index()


def pareto(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the Pareto front of memory and decode rate, by ascending memory.

    Rows without memory or decode rate are left out; of equal rows, the first is kept.
    """
    known = frame.dropna(subset=["memory", "rate"]).sort_values(
        ["memory", "rate"], ascending=[True, False], kind="stable"
    )
    return known[known["rate"] > known["rate"].cummax().shift(fill_value=0.0)]


def _series(point: Point) -> str:
    kind = f"{point.prompt_tokens}-token prompt" if point.measured else "answers in the app"
    return f"{kind}, measured while busy" if point.subject.contended else kind


def _range(name: str, found: Range | None) -> dict[str, float | None]:
    values = (None, None, None) if found is None else (found.median, found.low, found.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _mbu(point: Point) -> Range | None:
    """Return the model bandwidth utilisation in percent; its spread is that of the decode rate."""
    if point.mbu is None:
        return None
    share, rate = 100 * point.mbu, point.decode
    if rate is None or not rate.median:
        return Range(share, share, share)
    return Range(share, share * rate.low / rate.median, share * rate.high / rate.median)
