"""Checks of answers, and the statistics over their verdicts."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from core.evaluation.checks import (
    KINDS,
    Subject,
    Verdict,
    f1,
    outcome_of,
    problem_of,
    unsupported_names,
    verdict_of,
)
from core.evaluation.statistics import mcnemar, paired, share_of, wilson
from core.inference.answer import StopReason

PASS, FAIL, ERROR = Verdict


@pytest.mark.parametrize(
    ("check", "answer", "expected"),
    [
        ("contains: Paris | Lutetia", "It is paris.", PASS),
        ("contains: Paris", "It is Rome.", FAIL),
        ("does not contain: as an AI", "As an AI, I cannot.", FAIL),
        ("not contains: as an AI", "Paris.", PASS),
        ("equals: paris", " **Paris**.", PASS),
        ("equals: Paris", "In Paris", FAIL),
        ("one of: positive | negative", "Negative.", PASS),
        ("one of: positive | negative", "Not negative", FAIL),
        (r"regex: ^\d{4}$", "1912", PASS),
        (r"regex: ^\d{4}$", "19 12", FAIL),
        ("number: 1,000..2,000", "About 1,500 people.", PASS),
        ("number: 42", "There are 41.9 of them.", FAIL),
        ("json", '```json\n{"a": 1}\n```', PASS),
        ("json", "{a: 1}", FAIL),
        ('json: {"type": "object", "required": ["name"]}', '{"name": "x"}', PASS),
        ('json: {"type": "object", "required": ["name"]}', '{"nom": "x"}', FAIL),
        ("items: 3", "1. a\n2. b\n3. c", PASS),
        ("items: 2..4", "- a", FAIL),
        ("words: 3", "one two three", PASS),
        ("words: 3", "one two three four", FAIL),
        ("f1: 0.5", "the capital is Paris", FAIL),
    ],
)
def test_check_passes_or_fails(check: str, answer: str, expected: Verdict):
    outcome = outcome_of(check, Subject(answer, expected="Paris, France"))
    assert outcome.verdict is expected, outcome
    assert bool(outcome.detail) == (expected is FAIL)


def test_ends_by_itself_looks_at_the_stop_reason():
    assert outcome_of("ends", Subject("a", StopReason.STOP_MARKER)).verdict is PASS
    assert outcome_of("ends", Subject("a", StopReason.LENGTH)).verdict is FAIL


@pytest.mark.parametrize(
    ("check", "part"),
    [
        ("regex: (", "not a valid regular expression"),
        ("regex:", "no expression"),
        ("contain: x", "There is no check"),
        ("number: many", "instead of a number"),
        ("json: {", "JSON schema"),
        ('json: {"type": 5}', "JSON schema"),
        ('json: {"$schema": 5}', "JSON schema"),
        ('json: {"pattern": "a{99999999999999999999}"}', "JSON schema"),
        ('json: {"anyOf": [{"pattern": "^(a+)+$"}]}', "with pattern are not supported"),
        ('json: {"$defs": {"x": {"patternProperties": {"(a+)+$": {}}}}}', "with pattern are not"),
        ('json: {"x": {"properties": {"pattern": "a"}}, "$ref": "#/x/properties"}', "with pattern"),
        ("one of:", "has no text"),
        ("held-out task: 999", "no held-out task"),
    ],
)
def test_invalid_check_is_an_error_and_not_a_failure(check: str, part: str):
    outcome = outcome_of(check, Subject("x"))
    assert outcome.verdict is ERROR and part in outcome.detail
    assert problem_of(check) == outcome.detail


def test_schema_may_have_a_property_named_pattern():
    check = 'json: {"properties": {"pattern": {"type": "string"}}}'
    assert outcome_of(check, Subject('{"pattern": "("}')).verdict is PASS
    assert outcome_of(check, Subject('{"pattern": 1}')).verdict is FAIL


def test_examples_of_all_checks_are_valid():
    assert [problem_of(kind.example) for kind in KINDS.values()] == [None] * len(KINDS)


def test_check_that_lacks_a_field_of_the_case_is_an_error():
    for check in ("f1: 0.1", "grounded", "likelihood: -1", "equals"):
        assert outcome_of(check, Subject("x")).verdict is ERROR


def test_exponential_regular_expression_ends_with_an_error():
    outcome = outcome_of("regex: ^(a|a?)+$", Subject("a" * 60 + "b"))
    assert outcome.verdict in (ERROR, FAIL)
    hard = outcome_of(r"regex: ^(\w+\s?)*\1x$", Subject("word " * 40))
    assert hard.verdict in (ERROR, FAIL)


def test_json_schema_is_never_fetched():
    outcome = outcome_of('json: {"$ref": "http://127.0.0.1:9/x"}', Subject("1"))
    assert outcome.verdict is ERROR and "cannot be applied" in outcome.detail


def test_failed_check_decides_beside_one_with_an_error():
    bad, good = outcome_of("regex: (", Subject("x")), outcome_of("contains: x", Subject("x"))
    failed = outcome_of("contains: y", Subject("x"))
    assert verdict_of((good,)) is PASS
    assert verdict_of((good, bad)) is ERROR
    assert verdict_of((bad, failed)) is FAIL
    assert verdict_of(()) is None


def test_f1_is_squads():
    assert f1("The cat, sat!", "a cat sat") == 1.0
    assert f1("a big cat", "the cat") == pytest.approx(2 / 3)
    assert f1("", "the") == 1.0 and f1("", "cat") == 0.0


def test_names_and_numbers_must_be_in_the_source():
    source = "Ines Calder founded Norbex in Portwell in 2009; it has 1,200 workers."
    assert unsupported_names("Norbex was founded by Calder in 2009.", source) == []
    assert unsupported_names("It has 1200 workers. They like it.", source) == []
    assert unsupported_names("1. Norbex\n2) Calder\n3. It grew.", source) == []
    found = unsupported_names("John Smith founded it in 2010 in Portwell's centre.", source)
    assert found == ["John", "Smith", "2010"]
    assert outcome_of("grounded", Subject("In 1999.", context=source)).verdict is FAIL


def test_wilson_and_mcnemar_agree_with_scipy():
    for passed, n in ((0, 5), (3, 34), (17, 34), (34, 34)):
        interval = binomtest(passed, n).proportion_ci(method="wilson")
        assert wilson(passed, n) == pytest.approx((interval.low, interval.high), abs=1e-9)
    for only_first, only_second in ((0, 1), (3, 9), (12, 1), (5, 5)):
        exact = binomtest(only_first, only_first + only_second).pvalue
        assert mcnemar(only_first, only_second) == pytest.approx(exact)
    assert wilson(0, 0) == (0.0, 1.0) and mcnemar(0, 0) == 1.0


def test_errors_count_in_no_share_and_no_pair():
    first, second = [PASS, PASS, FAIL, ERROR, None], [PASS, FAIL, PASS, PASS, PASS]
    assert (share_of(first).passed, share_of(first).n) == (2, 3)
    result = paired(first, second)
    assert (result.n, result.only_first, result.only_second) == (3, 1, 1)
    assert result.sentence == "Cannot be told apart with 3 cases (+1 −1, p = 1)."
    assert paired([PASS] * 9, [FAIL] * 9).sentence.startswith("Worse")
