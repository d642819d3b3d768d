"""Scores of a run, its comparison with a baseline, and the exported files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

from pydantic import Field, ValidationError

from core.compare.timed_answers import known_median
from core.errors import BadRequestError
from core.evaluation.checks import Verdict
from core.evaluation.plan import Plan, Result
from core.evaluation.statistics import Paired, Share, paired, share_of
from core.hardware.devices import host_facts, library_versions
from core.metrics.tables import csv_text

MAX_BYTES = 100 * 2**20
ALL = ""
"""Tag of the score over all cases."""


@dataclass(frozen=True)
class Summary:
    """Figures of one candidate over a run."""

    label: str
    share: Share
    errors: int
    """Cases with an error: no answer, or a check that cannot be applied."""
    unanswered: int
    """Cases without a result yet."""
    mean_f1: float | None
    """Over the cases that measured it; None without one."""
    mean_likelihood: float | None
    decode_tokens_per_s: float | None
    """Median of the answers that were generated alone."""
    ttft_ms: float | None
    """The same."""
    private_bytes: int | None
    file_backed_bytes: int | None
    load_s: float | None


@dataclass(frozen=True)
class Change:
    """A candidate compared with a candidate of a baseline, case by case."""

    label: str
    baseline: str
    """Label of the baseline's candidate."""
    regressed: tuple[int, ...]
    """Indices of the cases that passed in the baseline and do not pass now."""
    mended: tuple[int, ...]
    """Indices of the cases that did not pass in the baseline and pass now."""
    unmatched: int
    """Cases that the baseline does not have."""
    test: Paired
    """The baseline is the first."""


class Report(Plan):
    """A run: its plan with the results so far. It is exported as JSON, and read as a baseline."""

    format: Literal["paddock-test-run"] = "paddock-test-run"
    version: Literal[1] = 1
    results: tuple[Result, ...] = Field(max_length=1_000_000)

    @classmethod
    def of_run(cls, plan: Plan, results: Sequence[Result]) -> Report:
        """Return the report of a plan with these results, by candidate and case."""
        return cls(**dict(plan), results=results)

    @cached_property
    def _results(self) -> dict[tuple[int, int], Result]:
        return {(each.candidate, each.case): each for each in self.results}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {case.key: number for number, case in enumerate(self.cases)}

    def result(self, candidate: int, case: int) -> Result | None:
        """Return a result; None if there is none yet."""
        return self._results.get((candidate, case))

    def verdicts(self, candidate: int, tag: str = ALL) -> list[Verdict | None]:
        """Return the verdicts of a candidate on all cases, or on those with a tag."""
        found = []
        for number, case in enumerate(self.cases):
            if tag == ALL or tag in case.tags:
                result = self.result(candidate, number)
                found.append(None if result is None else result.verdict)
        return found

    def share(self, candidate: int, tag: str = ALL) -> Share:
        """Return the share of passed cases."""
        return share_of(self.verdicts(candidate, tag))

    def paired(self, first: int, second: int) -> Paired:
        """Compare two candidates."""
        return paired(self.verdicts(first), self.verdicts(second))

    def differing(self, number: int) -> bool:
        """Return whether candidates have different verdicts on a case."""
        rows = [self.result(index, number) for index in range(len(self.candidates))]
        return len({row.verdict for row in rows if row is not None}) > 1

    def summaries(self) -> list[Summary]:
        """Return the figures of all candidates."""
        return [self._summary(index) for index in range(len(self.candidates))]

    def _summary(self, index: int) -> Summary:
        rows = [row for key, row in self._results.items() if key[0] == index]
        alone = [row for row in rows if not row.contended]
        return Summary(
            label=self.candidates[index].label,
            share=self.share(index),
            errors=sum(row.verdict is Verdict.ERROR for row in rows),
            unanswered=len(self.cases) - len(rows),
            mean_f1=_mean(rows, "f1"),
            mean_likelihood=_mean(rows, "likelihood"),
            decode_tokens_per_s=known_median(row.decode_tokens_per_s for row in alone),
            ttft_ms=known_median(row.ttft_ms for row in alone),
            private_bytes=max((row.private_bytes or 0 for row in rows), default=0) or None,
            file_backed_bytes=max((row.file_backed_bytes or 0 for row in rows), default=0) or None,
            load_s=max((row.load_s or 0.0 for row in rows), default=0.0) or None,
        )

    def changes(self, baseline: Report) -> list[Change]:
        """Compare each candidate with its :meth:`counterpart` in a baseline, case by case."""
        return [self._change(index, baseline) for index in range(len(self.candidates))]

    def counterpart(self, candidate: int, case: int, baseline: Report) -> Result | None:
        """Return the baseline's result for a candidate and case; None if it has none.

        Cases are matched by their keys.
        """
        number = baseline._numbers.get(self.cases[case].key)
        other = self._counterpart(candidate, baseline)
        return None if number is None else baseline.result(other, number)

    def _counterpart(self, index: int, baseline: Report) -> int:
        """Return the baseline's candidate of the same label, or else of the same model name, or
        else its first one."""
        own, theirs = self.candidates[index], baseline.candidates
        labels = [each.label for each in theirs]
        names = [each.model_name for each in theirs]
        if own.label in labels:
            return labels.index(own.label)
        return names.index(own.model_name) if own.model_name in names else 0

    def _change(self, index: int, baseline: Report) -> Change:
        numbers = range(len(self.cases))
        found = [self.counterpart(index, number, baseline) for number in numbers]
        before = [None if result is None else result.verdict for result in found]
        now = self.verdicts(index)
        passed = {number for number in numbers if now[number] is Verdict.PASS}
        passed_before = {number for number in numbers if before[number] is Verdict.PASS}
        known = {number for number in numbers if now[number] and before[number]}
        return Change(
            label=self.candidates[index].label,
            baseline=baseline.candidates[self._counterpart(index, baseline)].label,
            regressed=tuple(sorted(known & passed_before - passed)),
            mended=tuple(sorted(known & passed - passed_before)),
            unmatched=sum(case.key not in baseline._numbers for case in self.cases),
            test=paired(before, now),
        )


def to_json(report: Report, baseline: Report | None = None) -> str:
    """Return a run as JSON, with its scores, and with a baseline what has changed."""
    keys = [case.key for case in report.cases]
    labels = [candidate.label for candidate in report.candidates]
    document = report.model_dump(mode="json")
    document["results"] = [
        {"case_key": keys[row["case"]], "label": labels[row["candidate"]]} | row
        for row in document["results"]
    ]
    document["scores"] = [
        {"label": labels[index], "tag": tag or None} | asdict(report.share(index, tag))
        for index in range(len(labels))
        for tag in (ALL, *report.tags)
    ]
    document["summaries"] = [asdict(each) for each in report.summaries()]
    document["compared_with_first"] = [
        {"first": labels[0], "second": labels[index]} | asdict(report.paired(0, index))
        for index in range(1, len(labels))
    ]
    if baseline is not None:
        document["changes"] = [
            asdict(change)
            | {name: [keys[number] for number in getattr(change, name)] for name in _CHANGED}
            for change in report.changes(baseline)
        ]
    host = host_facts()
    document["host"] = {"name": host.name, "cpu": host.cpu, "os": host.os}
    document["versions"] = library_versions()
    return json.dumps(document, indent=1, ensure_ascii=False)


def from_json(data: bytes) -> Report:
    """Read an exported run.

    Raises:
        BadRequestError: it is too large or not an exported run.
    """
    wrong = "Name a file that `python -m core evaluate --json` or the page Test sets has written."
    if len(data) > MAX_BYTES:
        raise BadRequestError(f"The baseline is too large. {wrong}")
    try:
        found = Report.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise BadRequestError(
            f"The baseline is not an exported test run ({place}: {first['msg']}). {wrong}"
        ) from error
    most = len(found.candidates), len(found.cases)
    if any(not (0 <= r.candidate < most[0] and 0 <= r.case < most[1]) for r in found.results):
        raise BadRequestError(f"The baseline has results without a case. {wrong}")
    if not found.candidates:
        raise BadRequestError(f"The baseline has no candidate. {wrong}")
    return found


def to_csv(report: Report) -> str:
    """Return a row for each case and candidate; no text in it is a formula."""
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(report.cases):
        for index, candidate in enumerate(report.candidates):
            result = report.result(index, number)
            shown = result or Result(candidate=index, case=number)
            rows.append(
                {
                    "case": number + 1,
                    "id": case.key,
                    "tags": ", ".join(case.tags),
                    "candidate": candidate.label,
                    "verdict": shown.verdict or "",
                    "failed checks": "\n".join(
                        f"{each.check}: {each.detail}"
                        for each in shown.outcomes
                        if each.verdict is not Verdict.PASS
                    ),
                    "error": shown.error or "",
                    "instruction": case.instruction,
                    "context": case.context,
                    "expected": case.expected,
                    "answer": shown.answer,
                    "stop reason": shown.stop_reason or "",
                    "new tokens": shown.new_tokens,
                    "decode tokens/s": shown.decode_tokens_per_s,
                    "measured while busy": result.contended if result else None,
                }
            )
    return csv_text(rows)


_CHANGED = ("regressed", "mended")


def _mean(rows: Sequence[Result], check: str) -> float | None:
    values = [
        outcome.value
        for row in rows
        for outcome in row.outcomes
        if outcome.value is not None and outcome.check.lower().startswith(check)
    ]
    return fmean(values) if values else None
