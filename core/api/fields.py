"""Fields of a JSON object, each taken with its type and range, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.api.errors import ApiError

_SHOWN = 60
"""Characters of a wrong value that are repeated."""


class Fields:
    """What a program sent; an explicit null counts as not sent."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, name: str) -> Any:
        """The value as it is; None where there is none."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """
        Raises:
            ApiError: it is missing, empty or no text.
        """
        value = self.get(name)
        if not isinstance(value, str) or not value:
            raise wrong(name, value, "a text")
        return value

    def flag(self, name: str) -> bool:
        """
        Raises:
            ApiError: it is neither true nor false.
        """
        value = self.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise wrong(name, value, "true or false")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """
        Raises:
            ApiError: it is no number or out of range.
        """
        value = self.get(name)
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise wrong(name, value, f"a number from {low} to {high}")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """
        Raises:
            ApiError: it is no whole number or out of range.
        """
        value = self.get(name)
        if value is None:
            return None
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not low <= value <= high or value != int(value):
            raise wrong(name, value, f"a whole number from {low} to {high}")
        return int(value)


def wrong(name: str, value: Any, wanted: str) -> ApiError:
    """The refusal of a value."""
    if value is None:
        return ApiError(
            400, f"{name} is missing; it must be {wanted}.", code="missing_value", param=name
        )
    return ApiError(
        400, f"{name} is {_shown(value)}, but must be {wanted}.", code="invalid_value", param=name
    )


def unsupported(name: str, why: str) -> ApiError:
    """The refusal of something that is not done here."""
    return ApiError(400, why, code="unsupported_parameter", param=name)


def _shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value}"
        case int():
            return f"{value}" if abs(value) < 10**_SHOWN else "a number of many digits"
        case str():
            return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
        case list():
            return "a list" if value else "an empty list"
        case _:
            return "an object"
