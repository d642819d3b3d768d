"""Checks of an answer, each written as one line: ``contains: Paris``.

A check passes, fails, or has an error, such as a regular expression that is not valid; an error is
never counted as a failure.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from core.embedded.tasks import held_out_tasks
from core.errors import BadRequestError, PaddockError
from core.inference.answer import StopReason

REGEX_TIMEOUT_S = 1.0
MAX_CHECK_CHARACTERS = 20_000

_SEPARATOR = "|"
_OUTER = string.whitespace + ".,;:!?\"'“”‘’`*"
"""Characters around an answer that ``equals`` and ``one of`` ignore."""
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_ITEM = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_LIST_NUMBER = re.compile(r"^[ \t]*\d{1,3}[.)](?=\s)", re.MULTILINE)
_FENCE = re.compile(r"\s*```[\w-]*\n(.*?)\n?```\s*", re.DOTALL)
_ENDED = (StopReason.END_OF_TEXT, StopReason.STOP_MARKER)
_WORD = re.compile(r"[^\W\d_][\w'’-]*|\d[\d,.]*")
_SENTENCE_END = re.compile(r"(?:^|[.!?:]|\n)[\s\"'“”‘’(*#>-]*$")


class Verdict(StrEnum):
    """Result of a check, or of all checks of an answer."""

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"


@dataclass(frozen=True)
class Outcome:
    """Result of one check."""

    check: str
    verdict: Verdict
    detail: str = ""
    """Why it failed, or the error; a sentence."""
    value: float | None = None
    """Measured value of ``f1`` and ``likelihood``."""


@dataclass(frozen=True)
class Subject:
    """What a check looks at."""

    answer: str
    stop_reason: StopReason | None = StopReason.END_OF_TEXT
    instruction: str = ""
    context: str = ""
    expected: str = ""
    likelihood: Callable[[], float] | None = None
    """Returns the mean log probability per token of the expected answer, or raises a
    :class:`PaddockError`; None if it cannot be computed."""


class _Found(NamedTuple):
    passed: bool
    detail: str = ""
    """Used if it failed."""
    value: float | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of check."""

    parse: Callable[[str, str], Any]
    """From the name of the check and the text after the colon, what the rule takes; raises
    BadRequestError if the text is not valid."""
    rule: Callable[[Subject, Any], _Found]
    """Raises PaddockError if it cannot be applied."""
    example: str
    help: str
    needs: str = ""
    """Field of the case without which it cannot be applied."""


def outcome_of(check: str, subject: Subject) -> Outcome:
    """Apply one check."""
    try:
        kind, value = _parsed(check)
        found = kind.rule(subject, value)
    except PaddockError as error:
        return Outcome(check, Verdict.ERROR, str(error))
    verdict = Verdict.PASS if found.passed else Verdict.FAIL
    return Outcome(check, verdict, "" if found.passed else found.detail, found.value)


def verdict_of(outcomes: tuple[Outcome, ...]) -> Verdict | None:
    """Return the verdict over all checks of an answer; None without a check.

    A failed check decides, even beside one with an error.
    """
    verdicts = {outcome.verdict for outcome in outcomes}
    order = (Verdict.FAIL, Verdict.ERROR, Verdict.PASS)
    return next((verdict for verdict in order if verdict in verdicts), None)


def problem_of(check: str) -> str | None:
    """Return why a check cannot be applied to any answer, as a sentence; None if it can."""
    try:
        _parsed(check)
    except BadRequestError as error:
        return str(error)
    return None


def applies(check: str, *, context: str, expected: str) -> bool:
    """Return whether a case has the field that a check needs."""
    name, argument = _split(check)
    if name in ("contains", "equals"):
        return bool(argument or expected)
    kind = KINDS.get(name)
    return kind is None or not kind.needs or bool({"context": context}.get(kind.needs, expected))


def f1(answer: str, expected: str) -> float:
    """Return the word-level F1 as in SQuAD's evaluation script, 0 to 1.

    Lower case, without punctuation and the articles a, an and the.
    """
    ours, theirs = _squad_words(answer), _squad_words(expected)
    if not ours or not theirs:
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def unsupported_names(answer: str, source: str) -> list[str]:
    """Return the names and numbers of an answer that do not occur in a source text.

    A name is a capitalised word within a sentence, or at its beginning before another one. The
    numbers of a list are not counted.
    """
    known = {_plain_word(word) for word in _WORD.findall(source)}
    answer = _LIST_NUMBER.sub("", answer)
    found = list(_WORD.finditer(answer))
    missing = []
    for at, match in enumerate(found):
        word = match[0]
        if word[0].isalpha():
            if not word[0].isupper() or word in ("I", "I'm", "I’m"):
                continue
            following = found[at + 1] if at + 1 < len(found) else None
            before_name = (
                following is not None
                and following[0][0].isupper()
                and answer[match.end() : following.start()] == " "
            )
            if _SENTENCE_END.search(answer[: match.start()]) and not before_name:
                continue
        if _plain_word(word) not in known:
            missing.append(word.rstrip(".,"))
    return list(dict.fromkeys(missing))


def _split(check: str) -> tuple[str, str]:
    name, _, argument = check.partition(":")
    name = " ".join(name.lower().split())
    return ("not contains" if name == "does not contain" else name), argument.strip()


def _parsed(check: str) -> tuple[Kind, Any]:
    name, argument = _split(check)
    kind = KINDS.get(name)
    if kind is None:
        raise BadRequestError(
            f"There is no check {check[:60]!r}. Write one of {', '.join(KINDS)}, such as "
            f"“{KINDS['contains'].example}”."
        )
    if len(check) > MAX_CHECK_CHARACTERS:
        raise BadRequestError(
            f"The check {name} has {len(check):,} characters. Use at most {MAX_CHECK_CHARACTERS:,}."
        )
    return kind, kind.parse(name, argument)


# What is after the colon


def _text(name: str, argument: str) -> str:
    return argument


def _texts(name: str, argument: str) -> list[str]:
    return [part.strip() for part in argument.split(_SEPARATOR) if part.strip()]


def _some_texts(name: str, argument: str) -> list[str]:
    if not (found := _texts(name, argument)):
        raise BadRequestError(f"The check {name} has no text. Write “{KINDS[name].example}”.")
    return found


def _range(name: str, argument: str, kind: type[int] | type[float] = float) -> tuple[float, float]:
    low, dots, high = argument.partition("..")
    try:
        first = kind(low.replace(",", ""))
        return first, kind(high.replace(",", "")) if dots else first
    except ValueError:
        raise BadRequestError(
            f"The check {name} has {_short(argument)} instead of a number. Write "
            f"“{KINDS[name].example}”."
        ) from None


_whole_range = partial(_range, kind=int)


def _pattern(name: str, argument: str) -> Any:
    import regex

    if not argument:
        raise BadRequestError("The check regex has no expression. Write it after the colon.")
    try:
        return regex.compile(argument)
    except regex.error as error:
        raise BadRequestError(
            f"{_short(argument)} is not a valid regular expression ({error}). Correct it."
        ) from error


def _schema(name: str, argument: str) -> Any:
    """Return the validator of a JSON schema; None without one."""
    import jsonschema
    import referencing

    if not argument:
        return None
    try:
        schema = json.loads(argument)
        kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except Exception as error:  # also AttributeError, OverflowError … of a hostile schema
        reason = getattr(error, "message", str(error))
        raise BadRequestError(
            f"The JSON schema of a check is not valid ({_short(reason)}). Correct it."
        ) from error
    if _has_pattern(schema):
        raise BadRequestError(
            "JSON schemas with pattern are not supported in a check. Use the check regex."
        )
    # With a registry of its own it never fetches a schema from an address.
    return kind(schema, registry=referencing.Registry())


def _has_pattern(schema: Any) -> bool:
    """Return whether a schema has a regular expression anywhere, as a reference may lead anywhere.

    jsonschema applies it with ``re``, which cannot be ended and holds the interpreter lock. A
    property named ``pattern`` has a schema for its value, no text.
    """
    found = [schema]
    while found:
        value = found.pop()
        if isinstance(value, dict):
            if isinstance(value.get("pattern"), str) or "patternProperties" in value:
                return True
            found.extend(value.values())
        elif isinstance(value, list):
            found.extend(value)
    return False


def _task(name: str, argument: str) -> Any:
    number, _ = _whole_range(name, argument)
    tasks = held_out_tasks()
    if not 0 < number <= len(tasks):
        raise BadRequestError(f"There is no held-out task {number}; there are {len(tasks)}.")
    return tasks[int(number) - 1].check


# The rules


def _contains(subject: Subject, wanted: list[str]) -> _Found:
    wanted = wanted or [_expected(subject, "contains")]
    text = subject.answer.casefold()
    passed = any(each.casefold() in text for each in wanted)
    return _Found(passed, f"The answer does not contain {_or(wanted)}.")


def _not_contains(subject: Subject, wanted: list[str]) -> _Found:
    text = subject.answer.casefold()
    found = [each for each in wanted if each.casefold() in text]
    return _Found(not found, f"The answer contains {_or(found)}.")


def _equals(subject: Subject, wanted: str) -> _Found:
    return _one_of(subject, [wanted or _expected(subject, "equals")])


def _one_of(subject: Subject, wanted: list[str]) -> _Found:
    passed = _bare(subject.answer) in map(_bare, wanted)
    return _Found(passed, f"The answer is not {_or(wanted)}.")


def _regex(subject: Subject, pattern: Any) -> _Found:
    shown = _short(pattern.pattern)
    try:  # ``regex``, unlike ``re``, can end a search that takes exponential time
        found = pattern.search(subject.answer, timeout=REGEX_TIMEOUT_S, concurrent=True)
    except TimeoutError as error:
        raise BadRequestError(
            f"The regular expression {shown} took more than {REGEX_TIMEOUT_S:g} s. Write it "
            "without nested repetitions."
        ) from error
    return _Found(found is not None, f"The answer does not match {shown}.")


def _number(subject: Subject, wanted: tuple[float, float]) -> _Found:
    low, high = wanted
    numbers = [float(found.replace(",", "")) for found in _NUMBER.findall(subject.answer)]
    passed = any(low <= number <= high for number in numbers)
    shown = f"{low:g}" if low == high else f"from {low:g} to {high:g}"
    return _Found(passed, f"The answer has no number {shown}.")


def _items(subject: Subject, wanted: tuple[int, int]) -> _Found:
    low, high = wanted
    count = len(_ITEM.findall(subject.answer))
    shown = f"{low}" if low == high else f"{low} to {high}"
    return _Found(low <= count <= high, f"The answer lists {count} items, not {shown}.")


def _words(subject: Subject, wanted: tuple[int, int]) -> _Found:
    count, most = len(subject.answer.split()), wanted[1]
    return _Found(count <= most, f"The answer has {count} words, more than {most}.")


def _json(subject: Subject, validator: Any) -> _Found:
    fenced = _FENCE.fullmatch(subject.answer)
    try:
        value = json.loads(fenced[1] if fenced else subject.answer)
    except (ValueError, RecursionError) as error:
        return _Found(False, f"The answer is not valid JSON ({error}).")
    try:
        found = next(validator.iter_errors(value), None) if validator is not None else None
    except Exception as error:  # a reference that leads nowhere, a pattern that is not valid …
        raise BadRequestError(
            f"The JSON schema cannot be applied ({_short(str(error))}). Correct it."
        ) from error
    detail = _short(found.message) if found is not None else ""
    return _Found(found is None, f"The JSON does not match the schema: {detail}.")


def _ends(subject: Subject, _: object) -> _Found:
    return _Found(subject.stop_reason in _ENDED, "The answer did not end by itself.")


def _grounded(subject: Subject, _: object) -> _Found:
    if not subject.context:
        raise BadRequestError("The check grounded needs a context. Add it to the case.")
    missing = unsupported_names(subject.answer, f"{subject.context}\n{subject.instruction}")
    return _Found(not missing, f"Not in the context: {', '.join(missing[:5])}.")


def _f1(subject: Subject, wanted: tuple[float, float]) -> _Found:
    value, least = f1(subject.answer, _expected(subject, "f1")), wanted[0]
    return _Found(value >= least, f"F1 is {value:.2f}, below {least:g}.", value)


def _likelihood(subject: Subject, wanted: tuple[float, float]) -> _Found:
    _expected(subject, "likelihood")
    if subject.likelihood is None:
        raise BadRequestError(
            "The likelihood of a given answer cannot be computed for this model. Remove the "
            "check, or choose a local model."
        )
    value, least = subject.likelihood(), wanted[0]
    detail = f"The mean log probability per token is {value:.2f}, below {least:g}."
    return _Found(value >= least, detail, value)


def _held_out(subject: Subject, check: Any) -> _Found:
    passed = subject.stop_reason in _ENDED and check.passes(subject.answer)
    return _Found(passed, "The answer does not satisfy the rules of the task.")


KINDS: dict[str, Kind] = {
    "contains": Kind(
        _texts, _contains, "contains: Paris | the capital", "one of these texts occurs"
    ),
    "not contains": Kind(
        _some_texts, _not_contains, "not contains: as an AI", "none of these texts occurs"
    ),
    "equals": Kind(
        _text, _equals, "equals: Paris", "is this text (without it: the expected answer)"
    ),
    "one of": Kind(_some_texts, _one_of, "one of: positive | negative", "is one of these texts"),
    "regex": Kind(_pattern, _regex, r"regex: \b\d{4}\b", "a regular expression matches somewhere"),
    "number": Kind(_range, _number, "number: 40..44", "a number in this range occurs"),
    "json": Kind(_schema, _json, 'json: {"type": "object"}', "is valid JSON, and matches a schema"),
    "items": Kind(_whole_range, _items, "items: 5", "is a list with this many bullets or numbers"),
    "words": Kind(_whole_range, _words, "words: 50", "has at most this many words"),
    "ends": Kind(_text, _ends, "ends", "the model ended the answer by itself"),
    "grounded": Kind(
        _text,
        _grounded,
        "grounded",
        "every name and number is in the context or the instruction",
        "context",
    ),
    "f1": Kind(
        _range, _f1, "f1: 0.3", "word-level F1 against the expected answer is at least", "expected"
    ),
    "likelihood": Kind(
        _range,
        _likelihood,
        "likelihood: -2",
        "mean log probability per token of the expected answer is at least",
        "expected",
    ),
    "held-out task": Kind(
        _task, _held_out, "held-out task: 12", "the rules of a tiny demo model's task"
    ),
}
"""All kinds of checks by name."""


def _expected(subject: Subject, name: str) -> str:
    if not subject.expected:
        raise BadRequestError(f"The check {name} needs an expected answer. Add it to the case.")
    return subject.expected


def _bare(text: str) -> str:
    return " ".join(text.strip(_OUTER).casefold().split())


def _plain_word(word: str) -> str:
    plain = word.casefold().rstrip(".,").removesuffix("'s").removesuffix("’s")
    return plain.replace(",", "") if plain[:1].isdigit() else plain


def _squad_words(text: str) -> list[str]:
    text = "".join(each for each in text.lower() if each not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _or(texts: list[str]) -> str:
    return " or ".join(map(_short, texts[:5]))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f"“{line if len(line) <= 80 else line[:79] + '…'}”"
