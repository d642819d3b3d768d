"""Fields of a request that set what the answer must match (structured output)."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from core.api.body import REMOVE, Fields, invalid, unsupported
from core.api.errors import invalid_value
from core.api.json_schema import enforced_schema
from core.runtimes.spec import Structure

MAX_CHARACTERS = 20_000
"""Characters of a schema, expression or grammar. OpenVINO GenAI compiles it between two steps of
the batch: 300 properties take half a second."""
MAX_DEPTH = 32
"""Nesting of brackets in an expression or grammar; the compiler recurses."""

_ANY_OBJECT = {"type": "object"}


class ResponseFormat(Fields):
    """The object ``response_format``."""

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="text, json_object or json_schema"
    )
    json_schema: dict[str, Any] | None = Field(None, description="an object")


class StructureFields(Fields):
    """OpenAI's ``response_format``, and vLLM's fields for the same purpose."""

    response_format: dict[str, Any] = Field(
        {}, description='an object like {"type": "json_object"}'
    )
    guided_json: dict[str, Any] | str | None = Field(None, description="a JSON schema")
    guided_regex: str | None = Field(None, min_length=1)
    guided_grammar: str | None = Field(None, min_length=1)

    def structure(self) -> Structure | None:
        """Return what the answer must match, if anything.

        Raises:
            ApiError: a field is invalid, or several are given.
        """
        found = [each for each in (self._format(), *self._guided()) if each is not None]
        if len(found) > 1:
            raise invalid_value(
                f"`{found[0].field}` and `{found[1].field}` cannot be combined. Remove one.",
                found[1].field,
            )
        return _checked(found[0]) if found else None

    def _format(self) -> Structure | None:
        if not self.response_format:
            return None
        name = "response_format"
        given = ResponseFormat.parse(self.response_format, name)
        if given.json_schema is not None and given.type != "json_schema":
            raise unsupported(f"{name}.json_schema", 'Set the type "json_schema".')
        if given.type == "text":
            return None
        schema: Any = _ANY_OBJECT
        if given.type == "json_schema":
            schema = _named_schema(given.json_schema, f"{name}.json_schema")
        return Structure("json_schema", json.dumps(schema), name)

    def _guided(self) -> list[Structure]:
        found = []
        if self.guided_json is not None:
            schema: Any = self.guided_json
            if isinstance(schema, str):
                try:
                    schema = json.loads(schema)
                except (ValueError, RecursionError) as error:
                    raise invalid("guided_json", self.guided_json, "a JSON schema") from error
            text = json.dumps(enforced_schema(schema, "guided_json"))
            found.append(Structure("json_schema", text, "guided_json"))
        if self.guided_regex is not None:
            found.append(Structure("regex", self.guided_regex, "guided_regex"))
        if self.guided_grammar is not None:
            found.append(Structure("grammar", self.guided_grammar, "guided_grammar"))
        return found


def _named_schema(value: dict[str, Any] | None, path: str) -> dict[str, Any]:
    """Return the schema in the object ``response_format.json_schema``.

    Its name and description are not shown to the model, and ``strict`` may be false: a schema is
    always enforced.
    """
    if value is None:
        raise invalid(path, value, "an object with a JSON schema as `schema`")
    for name in value:
        if name not in ("description", "name", "schema", "strict"):
            raise unsupported(f"{path}.{name[:60]}", REMOVE)
    return enforced_schema(value.get("schema"), f"{path}.schema")


def _checked(structure: Structure) -> Structure:
    depth = deepest = 0
    for character in structure.text if structure.kind != "json_schema" else "":
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if len(structure.text) > MAX_CHARACTERS or deepest > MAX_DEPTH:
        raise invalid_value(
            f"`{structure.field}` has {len(structure.text):,} characters and {deepest} levels of "
            f"brackets. Use at most {MAX_CHARACTERS:,} and {MAX_DEPTH}.",
            structure.field,
        )
    return structure
