"""Contrast of two colours, as WCAG 2.2 defines it."""

from __future__ import annotations

import re

TEXT = 4.5
"""Success criterion 1.4.3, of text that is not large."""

PARTS = 3.0
"""Success criterion 1.4.11, of what must be seen to use a control."""


def contrast(one: str, other: str) -> float:
    """From 1, the same, to 21, black on white; colours are ``#rrggbb`` or ``rgb(r, g, b)``."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def over(colour: str, ground: str, opacity: float) -> str:
    """What is seen of a colour that lets the ground shine through."""
    mixed = (
        round(opacity * one + (1 - opacity) * other)
        for one, other in zip(_channels(colour), _channels(ground), strict=True)
    )
    return f"rgb({', '.join(map(str, mixed))})"


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(channel / 255) for channel in _channels(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def _channels(colour: str) -> tuple[int, ...]:
    if re.fullmatch("#[0-9a-f]{6}", colour):
        return tuple(bytes.fromhex(colour[1:]))
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found, f"{colour} is no colour without transparency"
    return tuple(map(int, found.groups()))
