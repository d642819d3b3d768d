"""Fields of a JSON object as pydantic models, with errors that name the field."""

from __future__ import annotations

from collections.abc import Set
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from core.api.errors import ApiError

REMOVE = "Remove it from the request."
_SHOWN = 60
"""Characters of an invalid value or an unknown name that are quoted in an error."""


class Fields(BaseModel):
    """Fields of a JSON object; any other is rejected by name.

    Nothing is converted: "5" is not a number, and 1 is not true. The description of a field says in
    errors what it must be; a boolean or a plain string needs none.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")

    no_effect: ClassVar[Set[str]] = frozenset()
    """Further fields, which are ignored because they do not change the answer."""

    @classmethod
    def parse(cls, values: Any, path: str = "") -> Self:
        """Return the fields of an object; an explicit null counts as missing.

        Args:
            values: parsed JSON.
            path: where the object is in the request, for errors.

        Raises:
            ApiError: it is not an object, or a field is invalid or missing.
        """
        if not isinstance(values, dict):
            raise invalid(path, values, "an object")
        given = {
            name: value
            for name, value in values.items()
            if value is not None and name not in cls.no_effect
        }
        for name in given:
            if name not in cls.model_fields:
                shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
                raise unsupported(f"{path}.{shown}".removeprefix("."), REMOVE)
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            name = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        field = cls.model_fields[name]
        wanted = field.description or ("true or false" if field.annotation is bool else "a string")
        raise invalid(f"{path}.{name}".removeprefix("."), values.get(name), wanted)


Whole = Annotated[
    int, BeforeValidator(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v)
]
"""An integer, which JSON may have with a decimal point: 40.0."""


def number(low: float, high: float, *, default: float | None = None) -> Any:
    """Return a field for a number."""
    return Field(default, ge=low, le=high, description=f"a number from {low} to {high}")


def whole(low: int, high: int, *, default: int | None = None) -> Any:
    """Return a field for a :data:`Whole`."""
    return Field(default, ge=low, le=high, description=f"an integer from {low} to {high}")


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
    """Return the error for a field that is not supported; the hint says what to do instead."""
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
            return f"a list of length {len(value):,}" if value else "an empty list"
        case _:
            return "an object"
