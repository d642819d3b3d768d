"""Reduce a JSON schema to what OpenVINO GenAI's grammar (xgrammar) enforces.

An answer that ends by itself must be valid, so a keyword that GenAI would ignore or apply wrongly
is rejected by name. Where a stricter schema can be enforced instead, it replaces the given one:
``additionalProperties`` is false beside ``properties``, and lengths of strings become patterns.

Tried with GenAI 2026.4: ``uniqueItems``, ``multipleOf``, ``allOf`` and keywords beside ``$ref``,
``enum`` and ``anyOf`` are not enforced, bounds of numbers are wrong (-10 passes for at most -22)
unless they are a minimum of 0 or 1, and some patterns break the JSON. A range of integers is
therefore written as the list of its values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from core.api.errors import invalid_value

MAX_DEPTH = 32
MAX_COUNT = 10_000
MAX_PATTERN = 500
MAX_INTEGER = 2**53
MAX_RANGE = 1000
_WITHOUT_EFFECT = frozenset(
    (
        *("$comment", "$id", "$schema", "default", "deprecated", "description"),
        *("discriminator", "examples", "readOnly", "title", "writeOnly"),
    )
)
_DEFINITIONS = ("$defs", "definitions")
_KEYWORDS: dict[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": ("minimum",),
    "boolean": (),
    "null": (),
}
"""The supported keywords of each type; in JSON Schema, those of another type have no effect."""
_PYTHON: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_COMBINING = ("$ref", "allOf", "anyOf", "oneOf", "const", "enum")
_FORMATS = ("date", "date-time", "time", "uuid", "email", "uri", "hostname", "duration")
_ANY_CHARACTER = "[ !#-\\[\\]-\ud7ff]"
"""Characters that need no escape in JSON."""
_SAFE_PATTERN = re.compile(
    r"""(?: [^\\.\[\]"^$\x00-\x1f]                 # characters, groups and quantifiers
    | \\[dw.*+?()\[\]{}|/^$-]
    | \[(?!\^)(?:[^\\\[\]"\x00-\x1f]|\\[dw.*+?()\[\]{}|/^$-])+\] )*""",
    re.VERBOSE,
)
"""Patterns that match only texts without quotes, backslashes and control characters."""


def enforced_schema(schema: Any, path: str) -> dict[str, Any]:
    """Return the schema that GenAI is asked to enforce; what matches it also matches ``schema``.

    Args:
        path: where the schema is in the request, for errors.

    Raises:
        ApiError: it is no schema, or it needs a keyword that cannot be enforced.
    """
    return _Schema(schema, path).enforced()


class _Schema:
    def __init__(self, root: Any, path: str) -> None:
        self._root, self._path = root, path
        self._used: list[str] = []
        """References in the order of their use."""

    def enforced(self) -> dict[str, Any]:
        found = self._enforced(self._root, 0)
        targets = {"#": found}
        definitions: dict[str, dict[str, Any]] = {}
        for reference in self._used:  # grows while definitions are added
            if reference not in targets:
                targets[reference] = self._enforced(self._target(reference), 0)
                group, name = reference.removeprefix("#/").split("/")
                definitions.setdefault(group, {})[name] = targets[reference]
        self._refuse_endless(targets)
        return found | definitions

    def _enforced(self, schema: Any, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            self._refuse("is nested too deeply", f"Use at most {MAX_DEPTH} levels.")
        if schema is True:
            return {}
        if not isinstance(schema, Mapping):
            self._refuse("contains a part that is not an object", "Correct it.")
        kept = {name: value for name, value in schema.items() if name not in _WITHOUT_EFFECT}
        for name in _DEFINITIONS if schema is self._root else ():
            kept.pop(name, None)
        types = kept.pop("type", None)
        for name in _COMBINING:
            if name in kept:
                value = kept.pop(name)
                for other in kept:
                    self._refuse_keyword(f"{other}` beside `{name}")
                return self._combined(name, value, types, "discriminator" in schema, depth)
        if types is None:
            types = [each for each, names in _KEYWORDS.items() if kept.keys() & set(names)][:1]
        elif isinstance(types, str):
            types = [types]
        names = types if isinstance(types, list) else [None]
        if any(not isinstance(each, str) or each not in _KEYWORDS for each in names):
            self._refuse("has an unknown `type`", f"Use {', '.join(_KEYWORDS)}.")
        known = {name for names in _KEYWORDS.values() for name in names}
        for name in kept:
            if name not in known:
                self._refuse_keyword(name)
        branches = [self._of_type(each, kept, depth) for each in types]
        if not branches:
            return {}
        return branches[0] if len(branches) == 1 else {"anyOf": branches}

    def _combined(
        self, name: str, value: Any, types: Any, tagged: bool, depth: int
    ) -> dict[str, Any]:
        """Return the schema for a keyword of :data:`_COMBINING`, which stands alone."""
        if name in ("const", "enum"):
            values = [value] if name == "const" else value
            if not isinstance(values, list) or not values:
                self._refuse(f"has an invalid `{name}`", "List at least one value.")
            self._check_numbers(values, depth)
            allowed = [types] if isinstance(types, str) else types
            fitting = [each for each in values if allowed is None or _is_one_of(each, allowed)]
            if not fitting:
                self._refuse(f"has an `{name}` without a value of its type", "Correct it.")
            return {"enum": fitting}
        if types is not None:
            self._refuse_keyword(f"type` beside `{name}")
        if name == "$ref":
            self._target(value)
            self._used.append(value)
            return {"$ref": value}
        if not isinstance(value, list) or not value:
            self._refuse(f"has an invalid `{name}`", "List at least one schema.")
        branches = [self._enforced(each, depth + 1) for each in value]
        if len(branches) == 1:
            return branches[0]
        if name == "allOf" or (name == "oneOf" and not tagged):  # branches of oneOf may overlap
            self._refuse_keyword(name)
        return {"anyOf": branches}

    def _of_type(self, kind: Any, keywords: Mapping[str, Any], depth: int) -> dict[str, Any]:
        of_kind = {name: keywords[name] for name in _KEYWORDS[kind] if name in keywords}
        if kind == "number":
            for name in _KEYWORDS["integer"]:
                if name in keywords and name not in of_kind:
                    self._refuse_keyword(f"{name}` of a `number")
        build = {"object": self._object, "array": self._array, "string": self._string}
        if kind in build:
            return {"type": kind} | build[kind](of_kind, depth)
        if kind == "number" and of_kind.get("minimum", 0) != 0:
            self._refuse("has a `minimum` of a `number` that cannot be enforced", "Use 0.")
        return self._integer(of_kind) if kind == "integer" else {"type": kind} | of_kind

    def _integer(self, bounds: dict[str, Any]) -> dict[str, Any]:
        for name, value in bounds.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
                self._refuse(f"has an invalid `{name}`", "Use an integer.")
        lows = [bounds.get("minimum"), _plus(bounds.get("exclusiveMinimum"), 1)]
        highs = [bounds.get("maximum"), _plus(bounds.get("exclusiveMaximum"), -1)]
        low = max((int(each) for each in lows if each is not None), default=None)
        high = min((int(each) for each in highs if each is not None), default=None)
        if high is None and low in (None, 0, 1):
            return {"type": "integer"} | ({} if low is None else {"minimum": low})
        if low is None or high is None or not 0 <= high - low < MAX_RANGE:
            self._refuse(
                "has a range of integers that cannot be enforced",
                f"Set `minimum` and `maximum` so that there are at most {MAX_RANGE} values.",
            )
        return {"enum": list(range(low, high + 1))}

    def _object(self, keywords: dict[str, Any], depth: int) -> dict[str, Any]:
        properties, required = keywords.get("properties", {}), keywords.get("required", [])
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            self._refuse("has invalid `properties` or `required`", "Correct it.")
        for name in properties:
            if re.search(r'["\\\x00-\x1f]', name):
                self._refuse("has a property name with a quote or backslash", "Rename it.")
        for name in required:
            if not isinstance(name, str) or name not in properties:
                self._refuse("requires a property that it does not describe", "Describe it.")
        if not properties:
            others = keywords.get("additionalProperties", True)
            if not isinstance(others, bool):
                others = self._enforced(others, depth + 1)
            return {"additionalProperties": others}
        return {
            "properties": {
                name: self._enforced(each, depth + 1) for name, each in properties.items()
            },
            "required": required,
            "additionalProperties": False,
        }

    def _array(self, keywords: dict[str, Any], depth: int) -> dict[str, Any]:
        found = dict(keywords)
        if "prefixItems" in keywords:
            if not isinstance(keywords["prefixItems"], list):
                self._refuse("has invalid `prefixItems`", "Use a list of schemas.")
            found["prefixItems"] = [
                self._enforced(each, depth + 1) for each in keywords["prefixItems"]
            ]
        items = keywords.get("items", "prefixItems" not in keywords)
        found["items"] = False if items is False else self._enforced(items, depth + 1)
        for name in ("minItems", "maxItems"):
            if name in found:
                found[name] = self._count(name, found[name])
        return found

    def _string(self, keywords: dict[str, Any], depth: int) -> dict[str, Any]:
        lengths = [name for name in ("minLength", "maxLength") if name in keywords]
        others = [name for name in ("pattern", "format") if name in keywords]
        if len(others) + bool(lengths) > 1:
            self._refuse_keyword(f"{(lengths or others[1:])[0]}` beside `{others[0]}")
        if lengths:
            low = self._count("minLength", keywords.get("minLength", 0))
            high = keywords.get("maxLength")
            most = "" if high is None else self._count("maxLength", high)
            return {"pattern": f"^({_ANY_CHARACTER}{{{low},{most}}})$"}
        if "format" in keywords:
            if keywords["format"] not in _FORMATS:
                self._refuse("has an unsupported `format`", f"Use {', '.join(_FORMATS)}.")
            return keywords
        if "pattern" not in keywords:
            return {}
        pattern = keywords["pattern"]
        inner = pattern.removeprefix("^") if isinstance(pattern, str) else '"'
        if inner.endswith("$") and not inner.endswith("\\$"):
            inner = inner[:-1]
        if not _SAFE_PATTERN.fullmatch(inner) or len(inner) > MAX_PATTERN:
            self._refuse(
                "has an unsupported `pattern`",
                "Use characters, groups, alternatives, repetitions, \\d, \\w and [a-z], without "
                ". and [^a].",
            )
        return {"pattern": f"^({inner})$"}

    def _count(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
            self._refuse(f"has an invalid `{name}`", f"Use an integer from 0 to {MAX_COUNT}.")
        return value

    def _check_numbers(self, value: Any, depth: int) -> None:
        """Check that GenAI can write the numbers in a constant, which it reads as 64-bit floats."""
        if depth > MAX_DEPTH:
            self._refuse("is nested too deeply", f"Use at most {MAX_DEPTH} levels.")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            self._refuse("contains a number with too many digits", "Use a smaller one.")
        inner = value.values() if isinstance(value, Mapping) else value
        for each in inner if isinstance(value, Mapping | list) else ():
            self._check_numbers(each, depth + 1)

    def _target(self, reference: Any) -> Any:
        if reference == "#":
            return self._root
        group, _, name = str(reference).removeprefix("#/").partition("/")
        definitions = self._root.get(group) if group in _DEFINITIONS else None
        if not isinstance(definitions, Mapping) or name not in definitions or "/" in name:
            self._refuse("has a `$ref` to something else than its definitions", "Use #/$defs/….")
        return definitions[name]

    def _refuse_endless(self, targets: Mapping[str, dict[str, Any]]) -> None:
        """Refuse references that lead to themselves without an object or array between them."""
        left = {reference: set(_direct(schema)) for reference, schema in targets.items()}
        while ends := [each for each, leads_to in left.items() if not leads_to & left.keys()]:
            for reference in ends:
                del left[reference]
        if left:
            self._refuse("has a `$ref` that leads back to itself", "Correct it.")

    def _refuse_keyword(self, name: str) -> NoReturn:
        self._refuse(f"uses `{name[:60]}`, which cannot be enforced", "Remove it.")

    def _refuse(self, what: str, remedy: str) -> NoReturn:
        raise invalid_value(
            f"The JSON schema in `{self._path}` {what}. {remedy}",
            self._path,
        )


def _plus(value: float | None, step: int) -> float | None:
    return None if value is None else value + step


def _direct(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the references of a schema and of its alternatives."""
    if "$ref" in schema:
        yield schema["$ref"]
    for branch in schema.get("anyOf", ()):
        yield from _direct(branch)


def _is_one_of(value: Any, types: Any) -> bool:
    """Return whether a value has one of these JSON types."""
    if not isinstance(types, list):
        return False
    if isinstance(value, bool):
        return "boolean" in types
    return any(isinstance(value, _PYTHON.get(each, ())) for each in types if isinstance(each, str))
