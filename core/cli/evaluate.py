"""``evaluate``: run a test set through models, and compare the verdicts with a baseline."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.cli.output import check_writable, plain, table, write_file
from core.cli.terminal import follow, say, step_of
from core.errors import BadRequestError, PaddockError
from core.settings import Settings
from core.units import bytes_text, counted, rate_text

if TYPE_CHECKING:
    from core.evaluation.cases import TestSet
    from core.evaluation.plan import Candidate
    from core.evaluation.report import Report
    from core.evaluation.run import TestRun
    from core.inference.engine import Engine

_SHOWN = 20
"""Most cases listed for each candidate."""
_MAX_NEW_TOKENS, _TOP_P = 256, 0.92
_PLAN_OPTIONS = (
    *("models", "system", "prompt_format", "speculation", "max_new_tokens", "temperature"),
    *("top_p", "seed", "check", "context_only", "first"),
)


def evaluate(options: argparse.Namespace, settings: Settings) -> int:
    """Run or resume a test set.

    Returns:
        0: complete, and no case regressed. 1: a case regressed, or cases have an error and there
        is no baseline, or the run was stopped.
    """
    from core.db import Holder
    from core.evaluation.plan import Plan
    from core.evaluation.report import Report, from_json
    from core.evaluation.run import Evaluations
    from core.inference.engine import Engine
    from core.inference.request import User

    check_writable(options.json, options.csv)
    baseline = None if options.baseline is None else from_json(_read(options.baseline))
    with closing(Engine(settings)) as engine:
        service = Evaluations(engine)
        if options.resume:
            given = any(getattr(options, name) is not None for name in _PLAN_OPTIONS)
            if options.set or given:
                raise BadRequestError(
                    "--resume continues a run as it was planned. Leave out the set and the options "
                    "of the run."
                )
            run = service.resume(options.resume, Holder(), User())
        else:
            test_set = _test_set(options)
            for problem in test_set.problems():
                say(problem)
            plan = Plan.of(test_set, _candidates(options, engine))
            run = service.start(plan, Holder(), User())
        say(
            f"{counted(len(run.plan.cases), 'case')} × "
            f"{counted(len(run.plan.candidates), 'candidate')}, run {run.id}."
        )
        follow(run.wait, run.stop, lambda: step_of(run.progress()))
    return _report(options, run, Report.of_run(run.plan, run.results()), baseline)


def _report(
    options: argparse.Namespace, run: TestRun, report: Report, baseline: Report | None
) -> int:
    from core.evaluation.report import to_csv, to_json

    print(_table(report))
    progress = run.progress()
    complete = progress.done == progress.total
    if progress.problem:
        say(progress.problem)
    if not complete:
        say(f"{progress.message} `python -m core evaluate --resume {run.id}` continues it.")
    remedy = f"The results are stored; `--resume {run.id}` writes them again."
    written = [
        write_file(options.json, lambda: to_json(report, baseline), remedy),
        write_file(options.csv, lambda: to_csv(report), remedy),
    ]
    errors = sum(each.errors for each in report.summaries())
    regressed = 0
    if baseline is not None:
        regressed = _print_changes(report, baseline)
    print(
        json.dumps(
            {
                "run": run.id,
                "complete": complete,
                "cases": len(report.cases),
                "candidates": len(report.candidates),
                "errors": errors,
                "regressed": regressed if baseline is not None else None,
            }
        )
    )
    failed = regressed if baseline is not None else errors
    return 0 if complete and all(written) and not failed else PaddockError.exit_code


def _print_changes(report: Report, baseline: Report) -> int:
    """Print what changed, and return the number of regressed cases."""
    total = 0
    for index, change in enumerate(report.changes(baseline)):
        total += len(change.regressed)
        print(
            f"\n{plain(change.label)} compared with {plain(change.baseline)} of the baseline: "
            f"{counted(len(change.regressed), 'case')} regressed, {len(change.mended)} mended. "
            f"{change.test.sentence}"
        )
        if change.unmatched:
            print(f"{counted(change.unmatched, 'case')} not in the baseline.")
        for word, numbers in (("regressed", change.regressed), ("mended", change.mended)):
            for number in numbers[:_SHOWN]:
                result, case = report.result(index, number), report.cases[number]
                why = ""
                if word == "regressed" and result is not None:
                    why = result.error or " ".join(o.detail for o in result.outcomes if o.detail)
                print(
                    plain(f"  {word}: case {number + 1}, {case.instruction}", 90), plain(why, 200)
                )
            if len(numbers) > _SHOWN:
                print(f"  … and {len(numbers) - _SHOWN} more")
    return total


def _table(report: Report) -> str:
    lines = [("Candidate", "Passed", "95 % interval", "Errors", "F1", "Decode", "Memory", "")]
    for index, each in enumerate(report.summaries()):
        share = each.share
        memory = (each.private_bytes or 0) + (each.file_backed_bytes or 0)
        lines.append(
            (
                plain(each.label),
                f"{share.passed} of {share.n}",
                f"{share.low:.0%}–{share.high:.0%}" if share.n else "—",
                str(each.errors),
                "—" if each.mean_f1 is None else f"{each.mean_f1:.2f}",
                rate_text(each.decode_tokens_per_s),
                bytes_text(memory) if memory else "—",
                report.paired(0, index).sentence if index else "",
            )
        )
    return table(lines)


def _test_set(options: argparse.Namespace) -> TestSet:
    from core.evaluation.cases import (
        TestSet,
        checked,
        decode_upload,
        held_out_set,
        preset_set,
        read_test_set,
    )

    if not options.set:
        raise BadRequestError("There is no test set. Name a file, or examples or held-out.")
    if options.first is not None and options.first < 1:
        raise BadRequestError(f"--first is {options.first}. Use at least 1.")
    own = {"examples": preset_set, "held-out": held_out_set}
    if options.set in own and not Path(options.set).exists():
        found = checked(own[options.set]())
    else:
        file = Path(options.set)
        found = checked(read_test_set(decode_upload(_read(file), file.name), file.name))
    cases = tuple(each for each in found.cases if each.context or not options.context_only)
    checks = tuple(options.check) if options.check else found.default_checks
    found = TestSet(name=found.name, cases=cases[: options.first], default_checks=checks)
    return checked(found)


def _candidates(options: argparse.Namespace, engine: Engine) -> list[Candidate]:
    from core.catalogue import Precision
    from core.evaluation.plan import Candidate
    from core.remotes import is_remote
    from core.runtimes.spec import NO_SPECULATION, ModelSpec, SamplingSettings

    if not options.models:
        raise BadRequestError("There is no model. Add --models A,B.")
    tokens = _MAX_NEW_TOKENS if options.max_new_tokens is None else options.max_new_tokens
    sampling = SamplingSettings(max_new_tokens=tokens, greedy=True)
    if options.temperature:
        top_p = _TOP_P if options.top_p is None else options.top_p
        sampling = SamplingSettings(tokens, options.temperature, top_p, seed=options.seed or 0)
    found = []
    for text in options.models:
        if is_remote(text):
            spec = ModelSpec.of_remote(text)
        else:
            spec = ModelSpec.parse(text)
            if not any(f":{each}" in text.lower() for each in Precision):
                precision = engine.store.default_precision(spec.model, ask_hub=True)
                spec = replace(spec, precision=precision)
            spec = engine.named(spec)
        found.append(
            Candidate(
                spec=spec,
                prompt_format=options.prompt_format,
                system=options.system or "",
                sampling=sampling,
                speculation=options.speculation or NO_SPECULATION,
            )
        )
    return found


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadRequestError(
            f"{file} cannot be read ({error.strerror}). Name an existing file."
        ) from error
