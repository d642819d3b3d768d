"""Formats quantities as text: sizes, durations, counts, rates."""

from __future__ import annotations

from collections.abc import Sequence


def bytes_text(size: float) -> str:
    """Format a size in bytes with decimal units: ``5.5 GB``, ``412 MB``, ``8 kB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= factor * 0.9995:
            value = size / factor
            return f"{value:.1f} {unit}" if abs(value) < 9.95 else f"{value:,.0f} {unit}"
    return f"{size:.0f} B"


def duration_text(seconds: float) -> str:
    """Format a duration: ``8 s``, ``1 min 20 s``, ``2 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(count: int, noun: str) -> str:
    """Format a count with its noun: ``1 measurement``, ``2 measurements``.

    Args:
        noun: singular of a noun whose plural is formed with "s".
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def parameters_text(count: int) -> str:
    """Format a parameter count: ``2.78 B``, ``410 M``, ``4.2 M``."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} B"
    if count >= 1e7:
        return f"{count / 1e6:.0f} M"
    return f"{count / 1e6:.1f} M"


def milliseconds_text(duration_ms: float) -> str:
    """Format a duration given in milliseconds: ``4.1 ms``, ``320 ms``, ``2.4 s``."""
    if duration_ms >= 1000:
        return f"{duration_ms / 1000:.1f} s"
    return f"{duration_ms:.1f} ms" if duration_ms < 10 else f"{duration_ms:.0f} ms"


def rate_text(tokens_per_s: float | None) -> str:
    """Format a rate: ``534 tokens/s``, ``4.2 tokens/s``; a dash for None."""
    if tokens_per_s is None:
        return "— tokens/s"
    digits = 1 if tokens_per_s < 100 else 0
    return f"{tokens_per_s:,.{digits}f} tokens/s"


def speculation_text(tokens_per_step: float, acceptance_rate: float | None) -> str:
    """Format the effect of speculation: ``2.4 tokens per step, 28 % of guesses accepted``."""
    text = f"{tokens_per_step:.1f} tokens per step"
    if acceptance_rate is None:
        return text
    return f"{text}, {acceptance_rate:.0%} of guesses accepted".replace("%", " %")


def int4_text(
    *,
    symmetric: bool,
    group_size: int,
    ratio: float,
    scale_estimation: bool = False,
    awq: bool = False,
    other_groups: str = "",
) -> str:
    """Format INT4 settings: "asymmetric, group size 128, ratio 0.8"."""
    group = f"group size {group_size}" if group_size > 0 else "one scale per channel"
    if other_groups:
        group = f"{group} (others {other_groups})"
    parts = [
        "symmetric" if symmetric else "asymmetric",
        group,
        f"ratio {ratio:g}",
        *(["AWQ"] if awq else []),
        *(["scale estimation on generated texts"] if scale_estimation else []),
    ]
    return ", ".join(parts)


def listed(parts: Sequence[str]) -> str:
    """Join words for a sentence, such as "A, B and C"; empty for no words."""
    *most, last = parts or [""]
    return f"{', '.join(most)} and {last}" if most else last
