"""Typed access to the fields of a JSON object, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.api.errors import ApiError

_SHOWN = 60
"""Characters of an invalid value that are quoted in an error."""


class Fields:
    """Fields of a request; an explicit null counts as missing."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, name: str) -> Any:
        """Return the value unchecked, or None if it is missing."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """Return a required string.

        Raises:
            ApiError: it is missing, empty or not a string.
        """
        value = self.get(name)
        if not isinstance(value, str) or not value:
            raise invalid(name, value, "a string")
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean, by default False.

        Raises:
            ApiError: it is not a boolean.
        """
        value = self.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise invalid(name, value, "true or false")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """Return a number, or None if it is missing.

        Raises:
            ApiError: it is not a number or out of range.
        """
        value = self.get(name)
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise invalid(name, value, f"a number from {low} to {high}")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Return an integer, or None if it is missing.

        Raises:
            ApiError: it is not an integer or out of range.
        """
        value = self.get(name)
        if value is None:
            return None
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not low <= value <= high or value != int(value):
            raise invalid(name, value, f"an integer from {low} to {high}")
        return int(value)


def invalid(name: str, value: Any, wanted: str) -> ApiError:
    """Return the error for an invalid or missing value."""
    if value is None:
        return ApiError(
            400, f"`{name}` is missing. It must be {wanted}.", code="missing_value", param=name
        )
    return ApiError(
        400, f"`{name}` is {_shown(value)}, but must be {wanted}.", code="invalid_value", param=name
    )


def unsupported(name: str, hint: str) -> ApiError:
    """Return the error for a field that is not supported.

    Args:
        name: the field, also ``param`` of the error.
        hint: what to do instead.
    """
    message = f"`{name}` is not supported. {hint}"
    return ApiError(400, message, code="unsupported_parameter", param=name)


def _shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value}"
        case int():
            return f"{value}" if abs(value) < 10**_SHOWN else "a number with too many digits"
        case str():
            return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
        case list():
            return "a list" if value else "an empty list"
        case _:
            return "an object"
