"""Random bodies for ``/v1``: fields of many servers' APIs, with fitting and arbitrary values."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.api.test_request_bodies import CHANGING, HARMLESS

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**4000), max_value=10**4000)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(st.characters(), max_size=20)
    | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)

_TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"])
_KEYWORDS = """additionalProperties allOf const default enum exclusiveMinimum format maxItems
maxLength maximum minItems minLength minimum multipleOf pattern prefixItems required uniqueItems"""
_names = st.sampled_from(["a", "b", "name", 'a"b', "é"])


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(_names, inner, max_size=3)},
            optional={"required": st.lists(_names, max_size=2), "additionalProperties": inner},
        ),
        st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={"minItems": st.integers(0, 3), "maxItems": st.integers(0, 3)},
        ),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$ref": st.sampled_from(["#", "#/$defs/a", "#/$defs/b"])}),
    )


schemas = st.recursive(
    st.fixed_dictionaries(
        {"type": _TYPES | st.lists(_TYPES, min_size=1, max_size=2)},
        optional={
            "minimum": st.integers(-50, 50) | st.floats(-5, 5),
            "maximum": st.integers(-50, 50),
            "minLength": st.integers(0, 5),
            "maxLength": st.integers(0, 9),
            "pattern": st.sampled_from(["^a|b$", "[a-z]+", "\\d{2}", "a.c", "(", '"']),
            "format": st.sampled_from(["date", "uuid", "phone"]),
        },
    )
    | st.fixed_dictionaries({"enum": st.lists(st.sampled_from(["a", 1, None, 2.5]), max_size=3)})
    | st.fixed_dictionaries({"const": json_values})
    | st.dictionaries(st.sampled_from(_KEYWORDS.split()), json_values, max_size=2),
    _larger,
    max_leaves=6,
)
"""JSON schemas, of which many are invalid or unsupported."""

_formats = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "json_object", "json_schema", "x"])}),
    schemas.map(lambda each: {"type": "json_schema", "json_schema": {"name": "a", "schema": each}}),
)
_expressions = st.sampled_from(["yes|no", "[a-c]{3}", "(a", "a.b", "\\bcat", "(?i)a", "a" * 600])
_grammars = st.sampled_from(['root ::= "a" | "b"', "root ::= b", "nothing", 'root ::= root "a"'])

FITTING: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(1, 12),
    "max_completion_tokens": st.integers(1, 12),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(-1, 100_000),
    "repetition_penalty": st.floats(0.1, 10),
    "min_p": st.floats(0, 1),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "n": st.integers(1, 3),
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=17),
    "min_tokens": st.integers(0, 12),
    "ignore_eos": st.booleans(),
    "stop_token_ids": st.lists(st.integers(0, 6000) | st.just(2**31 - 1), max_size=3),
    "logprobs": st.booleans() | st.just(0),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "return_full_text": st.booleans(),
    "return_token_ids": st.booleans(),
    "echo": st.booleans(),
    "context": st.text(max_size=10),
    "chat_template_kwargs": st.dictionaries(
        st.sampled_from(["enable_thinking", "tools"]), st.booleans()
    ),
    "response_format": _formats,
    "guided_json": schemas,
    "guided_regex": _expressions,
    "guided_grammar": _grammars,
}
"""Supported fields, with values most of which are valid."""

names = st.sampled_from(sorted({*FITTING, *CHANGING, *HARMLESS, "model", "messages", "prompt"}))
_arbitrary = st.dictionaries(names | st.text(max_size=5), json_values, min_size=1, max_size=3)
_fitting = st.fixed_dictionaries({}, optional=FITTING)

bodies = st.one_of(
    _arbitrary, _fitting, st.tuples(_fitting, _arbitrary).map(lambda two: two[0] | two[1])
)
"""Fields to be added to a valid body."""
