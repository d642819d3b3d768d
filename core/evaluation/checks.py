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


_Rule = Callable[[Subject], _Found]


@dataclass(frozen=True)
class Kind:
    """One kind of check."""

    compile: Callable[[str], _Rule]
    """From the text after the colon; raises BadRequestError if it is not valid."""
    example: str
    help: str
    needs: str = ""
    """Field of the case without which it cannot be applied."""


def outcome_of(check: str, subject: Subject) -> Outcome:
    """Apply one check."""
    try:
        found = _compiled(check)(subject)
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
        _compiled(check)
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


def _compiled(check: str) -> _Rule:
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
    return kind.compile(argument)


# Texts


def _choices(argument: str) -> list[str]:
    return [part.strip() for part in argument.split(_SEPARATOR) if part.strip()]


def _contains(argument: str) -> _Rule:
    def rule(subject: Subject) -> _Found:
        wanted = _choices(argument) or [_expected(subject, "contains")]
        text = subject.answer.casefold()
        return _Found(
            any(each.casefold() in text for each in wanted),
            f"The answer does not contain {_or(wanted)}.",
        )

    return rule


def _not_contains(argument: str) -> _Rule:
    wanted = _required(argument, "not contains")

    def rule(subject: Subject) -> _Found:
        text = subject.answer.casefold()
        found = [each for each in wanted if each.casefold() in text]
        return _Found(not found, f"The answer contains {_or(found)}.")

    return rule


def _equals(argument: str) -> _Rule:
    def rule(subject: Subject) -> _Found:
        wanted = argument or _expected(subject, "equals")
        return _Found(_bare(subject.answer) == _bare(wanted), f"The answer is not {_or([wanted])}.")

    return rule


def _one_of(argument: str) -> _Rule:
    wanted = _required(argument, "one of")

    def rule(subject: Subject) -> _Found:
        passed = _bare(subject.answer) in map(_bare, wanted)
        return _Found(passed, f"The answer is not {_or(wanted)}.")

    return rule


def _regex(argument: str) -> _Rule:
    import regex

    if not argument:
        raise BadRequestError("The check regex has no expression. Write it after the colon.")
    try:
        pattern = regex.compile(argument)
    except regex.error as error:
        raise BadRequestError(
            f"{_short(argument)} is not a valid regular expression ({error}). Correct it."
        ) from error

    def rule(subject: Subject) -> _Found:
        try:  # ``regex``, unlike ``re``, can end a search that takes exponential time
            found = pattern.search(subject.answer, timeout=REGEX_TIMEOUT_S, concurrent=True)
        except TimeoutError as error:
            raise BadRequestError(
                f"The regular expression {_short(argument)} took more than {REGEX_TIMEOUT_S:g} s. "
                "Write it without nested repetitions."
            ) from error
        return _Found(found is not None, f"The answer does not match {_short(argument)}.")

    return rule


# Numbers and form


def _number(argument: str) -> _Rule:
    low, high = _range(argument, "number", float)

    def rule(subject: Subject) -> _Found:
        numbers = [float(found.replace(",", "")) for found in _NUMBER.findall(subject.answer)]
        wanted = f"{low:g}" if low == high else f"from {low:g} to {high:g}"
        return _Found(
            any(low <= number <= high for number in numbers),
            f"The answer has no number {wanted}.",
        )

    return rule


def _items(argument: str) -> _Rule:
    low, high = _range(argument, "items", int)

    def rule(subject: Subject) -> _Found:
        count = len(_ITEM.findall(subject.answer))
        wanted = f"{low}" if low == high else f"{low} to {high}"
        return _Found(low <= count <= high, f"The answer lists {count} items, not {wanted}.")

    return rule


def _words(argument: str) -> _Rule:
    _, most = _range(argument, "words", int)

    def rule(subject: Subject) -> _Found:
        count = len(subject.answer.split())
        return _Found(count <= most, f"The answer has {count} words, more than {most}.")

    return rule


def _json(argument: str) -> _Rule:
    validator = _validator(argument) if argument else None

    def rule(subject: Subject) -> _Found:
        fenced = _FENCE.fullmatch(subject.answer)
        try:
            value = json.loads(fenced[1] if fenced else subject.answer)
        except (ValueError, RecursionError) as error:
            return _Found(False, f"The answer is not valid JSON ({error}).")
        if validator is None:
            return _Found(True)
        try:
            found = next(validator.iter_errors(value), None)
        except Exception as error:  # a reference that leads nowhere, a pattern that is not valid …
            raise BadRequestError(
                f"The JSON schema cannot be applied ({_short(str(error))}). Correct it."
            ) from error
        if found is None:
            return _Found(True)
        return _Found(False, f"The JSON does not match the schema: {_short(found.message)}.")

    return rule


def _validator(argument: str) -> Any:
    import jsonschema
    import referencing

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


def _ends(argument: str) -> _Rule:
    def rule(subject: Subject) -> _Found:
        passed = subject.stop_reason in _ENDED
        return _Found(passed, "The answer did not end by itself.")

    return rule


# With the case's context or expected answer


def _grounded(argument: str) -> _Rule:
    def rule(subject: Subject) -> _Found:
        if not subject.context:
            raise BadRequestError("The check grounded needs a context. Add it to the case.")
        missing = unsupported_names(subject.answer, f"{subject.context}\n{subject.instruction}")
        return _Found(not missing, f"Not in the context: {', '.join(missing[:5])}.")

    return rule


def _f1(argument: str) -> _Rule:
    least, _ = _range(argument, "f1", float)

    def rule(subject: Subject) -> _Found:
        value = f1(subject.answer, _expected(subject, "f1"))
        return _Found(value >= least, f"F1 is {value:.2f}, below {least:g}.", value)

    return rule


def _likelihood(argument: str) -> _Rule:
    least, _ = _range(argument, "likelihood", float)

    def rule(subject: Subject) -> _Found:
        _expected(subject, "likelihood")
        if subject.likelihood is None:
            raise BadRequestError(
                "The likelihood of a given answer cannot be computed for this model. Remove the "
                "check, or choose a local model."
            )
        value = subject.likelihood()
        return _Found(
            value >= least,
            f"The mean log probability per token is {value:.2f}, below {least:g}.",
            value,
        )

    return rule


def _held_out(argument: str) -> _Rule:
    number, _ = _range(argument, "held-out task", int)
    tasks = held_out_tasks()
    if not 0 < number <= len(tasks):
        raise BadRequestError(f"There is no held-out task {number}; there are {len(tasks)}.")
    check = tasks[number - 1].check

    def rule(subject: Subject) -> _Found:
        passed = subject.stop_reason in _ENDED and check.passes(subject.answer)
        return _Found(passed, "The answer does not satisfy the rules of the task.")

    return rule


KINDS: dict[str, Kind] = {
    "contains": Kind(_contains, "contains: Paris | the capital", "one of these texts occurs"),
    "not contains": Kind(_not_contains, "not contains: as an AI", "none of these texts occurs"),
    "equals": Kind(_equals, "equals: Paris", "is this text (without it: the expected answer)"),
    "one of": Kind(_one_of, "one of: positive | negative", "is one of these texts"),
    "regex": Kind(_regex, r"regex: \b\d{4}\b", "a regular expression matches somewhere"),
    "number": Kind(_number, "number: 40..44", "a number in this range occurs"),
    "json": Kind(_json, 'json: {"type": "object"}', "is valid JSON, and matches a schema"),
    "items": Kind(_items, "items: 5", "is a list with this many bullets or numbers"),
    "words": Kind(_words, "words: 50", "has at most this many words"),
    "ends": Kind(_ends, "ends", "the model ended the answer by itself"),
    "grounded": Kind(
        _grounded,
        "grounded",
        "every name and number is in the context or the instruction",
        "context",
    ),
    "f1": Kind(_f1, "f1: 0.3", "word-level F1 against the expected answer is at least", "expected"),
    "likelihood": Kind(
        _likelihood,
        "likelihood: -2",
        "mean log probability per token of the expected answer is at least",
        "expected",
    ),
    "held-out task": Kind(_held_out, "held-out task: 12", "the rules of a tiny demo model's task"),
}
"""All kinds of checks by name."""


def _required(argument: str, name: str) -> list[str]:
    if not (found := _choices(argument)):
        raise BadRequestError(f"The check {name} has no text. Write “{KINDS[name].example}”.")
    return found


def _expected(subject: Subject, name: str) -> str:
    if not subject.expected:
        raise BadRequestError(f"The check {name} needs an expected answer. Add it to the case.")
    return subject.expected


def _range(argument: str, name: str, kind: type[int] | type[float]) -> tuple[Any, Any]:
    low, dots, high = argument.partition("..")
    try:
        first = kind(low.replace(",", ""))
        return first, kind(high.replace(",", "")) if dots else first
    except ValueError:
        raise BadRequestError(
            f"The check {name} has {_short(argument)} instead of a number. Write "
            f"“{KINDS[name].example}”."
        ) from None


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
