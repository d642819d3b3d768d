"""JSON schemas that the grammar of OpenVINO GenAI enforces, and those that are rejected."""

from __future__ import annotations

import datetime
import enum
import re
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from core.api.errors import ApiError
from core.api.json_schema import MAX_DEPTH, enforced_schema

INTEGER = {"type": "integer"}


class _Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class _Tree(BaseModel):
    """A model with what pydantic's schemas commonly contain."""

    name: str = Field(min_length=1, max_length=20)
    age: int = Field(ge=0, le=150)
    colour: _Colour
    planted: datetime.date
    kind: Literal["oak", "elm"]
    notes: dict[str, str] = {}
    branches: list[_Tree] = []
    place: tuple[float, float] | None = None


def enforced(schema: Any) -> dict[str, Any]:
    return enforced_schema(schema, "it")


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (True, {}),
        ({"title": "A", "default": 3, "type": "integer"}, INTEGER),
        ({"type": ["integer", "null"]}, {"anyOf": [INTEGER, {"type": "null"}]}),
        ({"type": "integer", "minimum": 1.0}, {"type": "integer", "minimum": 1}),
        ({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}),
        ({"type": "integer", "minimum": -1, "exclusiveMaximum": 2}, {"enum": [-1, 0, 1]}),
        ({"type": "number", "minimum": 0}, {"type": "number", "minimum": 0}),
        ({"type": "integer", "minLength": 3}, INTEGER),
        ({"const": "a"}, {"enum": ["a"]}),
        ({"type": "string", "enum": ["a", 1, None]}, {"enum": ["a"]}),
        ({"type": "integer", "enum": [True, 1]}, {"enum": [1]}),
        ({"allOf": [INTEGER], "description": "one"}, INTEGER),
        ({"type": "array", "minItems": 2}, {"type": "array", "items": {}, "minItems": 2}),
        (
            {"type": "array", "prefixItems": [INTEGER]},
            {"type": "array", "prefixItems": [INTEGER], "items": False},
        ),
        (
            {"properties": {"a": INTEGER}},
            {
                "type": "object",
                "properties": {"a": INTEGER},
                "required": [],
                "additionalProperties": False,
            },
        ),
        (
            {"type": "object", "additionalProperties": INTEGER},
            {"type": "object", "additionalProperties": INTEGER},
        ),
        ({"type": "string", "pattern": "^a|b$"}, {"type": "string", "pattern": "^(a|b)$"}),
        (
            {"type": "string", "pattern": "[a-z]+-\\d{2}"},
            {"type": "string", "pattern": "^([a-z]+-\\d{2})$"},
        ),
    ],
    ids=str,
)
def test_schema_is_reduced_to_what_is_enforced(schema: Any, expected: dict[str, Any]):
    assert enforced(schema) == expected


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (False, "not an object"),
        (3, "not an object"),
        ({"type": "decimal"}, "unknown `type`"),
        ({"type": [{}]}, "unknown `type`"),
        ({"type": "array", "uniqueItems": True}, "`uniqueItems`"),
        ({"type": "integer", "multipleOf": 2}, "`multipleOf`"),
        ({"type": "number", "maximum": 1}, "`maximum` of a `number`"),
        ({"type": "integer", "minimum": 1.5}, "invalid `minimum`"),
        ({"type": "integer", "minimum": 5}, "range of integers"),
        ({"type": "integer", "maximum": 5}, "range of integers"),
        ({"type": "integer", "minimum": 0, "maximum": 10**6}, "range of integers"),
        ({"type": "number", "minimum": 2}, "`minimum` of a `number`"),
        ({"type": "object", "patternProperties": {}}, "`patternProperties`"),
        ({"type": "object", "required": ["a"]}, "requires a property"),
        ({"properties": {'a"': {}}}, "property name"),
        ({"allOf": [INTEGER, {"minimum": 1}]}, "`allOf`"),
        ({"oneOf": [INTEGER, {"type": "number"}]}, "`oneOf`"),
        ({"anyOf": [INTEGER], "minimum": 3}, "`minimum` beside `anyOf`"),
        ({"enum": []}, "invalid `enum`"),
        ({"const": {"a": [2**60]}}, "too many digits"),
        ({"type": "string", "enum": [1]}, "`enum` without a value"),
        ({"type": "string", "format": "phone"}, "unsupported `format`"),
        ({"type": "string", "pattern": "a.c"}, "unsupported `pattern`"),
        ({"type": "string", "pattern": '[^"]'}, "unsupported `pattern`"),
        ({"type": "string", "pattern": "a", "minLength": 2}, "`minLength` beside `pattern`"),
        ({"type": "string", "maxLength": 10**9}, "invalid `maxLength`"),
        ({"$ref": "#/$defs/a"}, "`$ref`"),
        ({"$ref": {}}, "`$ref`"),
        ({"$ref": "http://example.org/schema"}, "`$ref`"),
        ({"$ref": "#"}, "leads back to itself"),
        (
            {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, INTEGER]}}, "$ref": "#/$defs/a"},
            "back",
        ),
        (nested(MAX_DEPTH + 1), "nested too deeply"),
    ],
    ids=str,
)
def test_schema_that_cannot_be_enforced_is_rejected_by_name(schema: Any, words: str):
    with pytest.raises(ApiError, match=re.escape(words)) as caught:
        enforced(schema)
    assert (caught.value.status, caught.value.param) == (400, "it")


def test_recursive_schema_is_accepted():
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    assert enforced(tree)["properties"] == tree["properties"]
    chain = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2 + [INTEGER]} for i in range(60)}
    schema = {"$ref": "#/$defs/d0", "$defs": chain | {"d60": INTEGER}}
    assert len(enforced(schema)["$defs"]) == 61


def test_schema_of_a_pydantic_model_is_accepted():
    schema = enforced(_Tree.model_json_schema())
    assert schema["$ref"] == "#/$defs/_Tree"
    fields = schema["$defs"]["_Tree"]["properties"]
    assert fields["branches"] == {"type": "array", "items": {"$ref": "#/$defs/_Tree"}}
    assert fields["colour"] == {"$ref": "#/$defs/_Colour"}
    assert schema["$defs"]["_Colour"] == {"enum": ["red", "blue"]}
    assert fields["name"]["pattern"].endswith("{1,20})$")
