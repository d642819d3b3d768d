"""Runs of test sets with tiny models: results, resuming, failures, the command line."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import comb, sqrt
from pathlib import Path

import pytest

from core.__main__ import main
from core.db import EvaluationState, Holder
from core.db.tables import evaluations
from core.errors import BadRequestError, ModelBusyError, RecordsError
from core.evaluation.cases import Case, TestSet, read_test_set
from core.evaluation.checks import Verdict
from core.evaluation.plan import Candidate, Plan, labelled
from core.evaluation.report import Report, from_json, to_csv, to_json
from core.evaluation.run import Evaluations, TestRun, results_of
from core.inference.engine import Engine
from core.inference.request import User
from core.runtimes.spec import ModelSpec, SamplingSettings
from tests.waiting import PATIENCE_S

ME = Holder("guest", "a browser")
SHORT = SamplingSettings(max_new_tokens=12, greedy=True)


@pytest.fixture(scope="module")
def spec(spec_of: Callable[..., ModelSpec]) -> ModelSpec:
    return spec_of("gpt_neox")


@pytest.fixture(scope="module")
def plan(spec: ModelSpec) -> Plan:
    cases = [
        Case(instruction=f"Say {n} times yes.", tags=("even",) * (n % 2 == 0)) for n in range(7)
    ]
    cases.append(Case(instruction="x", checks=("regex: (",), tags=("even",)))
    cases.append(Case(instruction="word " * 9000, checks=("words: 1",)))
    cases.append(Case(instruction="Likely?", expected="yes no", checks=("likelihood: -99",)))
    return Plan.of(
        TestSet(name="Mine", cases=tuple(cases), default_checks=(r"regex: ^\W*\w*[a-m]",)),
        [
            Candidate(spec=spec, prompt_format="dolly", sampling=SHORT),
            Candidate(spec=spec, prompt_format="plain", sampling=SHORT),
        ],
    )


@pytest.fixture(scope="module")
def finished(engine: Engine, plan: Plan) -> TestRun:
    run = Evaluations(engine).start(plan, ME, User(lane="somebody"), "a set")
    assert run.wait(PATIENCE_S)
    return run


def test_run_gives_every_case_a_result_and_one_failing_case_ends_nothing(
    engine: Engine, finished: TestRun, plan: Plan
):
    assert finished.state is EvaluationState.DONE
    report = Report.of_run(plan, finished.results())
    first, second = report.verdicts(0), report.verdicts(1)
    assert len(first) == len(second) == 10 and None not in (*first, *second)
    assert first[7] is Verdict.ERROR  # the broken expression
    assert "not a valid regular expression" in report.result(0, 7).outcomes[0].detail
    assert report.result(0, 7).answer and report.result(0, 7).error is None
    assert first[8] is Verdict.ERROR and "context length" in report.result(0, 8).error
    assert first[9] is Verdict.PASS and -99 < report.result(0, 9).outcomes[0].value < 0
    assert sum(not row.contended for row in finished.results()) >= 2
    assert report.summaries()[0].decode_tokens_per_s is not None
    loaded = {each.spec for each in engine.pool.loaded()}
    assert plan.candidates[0].exact_spec not in loaded, "it is unloaded at the end"
    row = finished.results()[0]
    assert row.conditions["execution_precision"] == row.conditions["kv_cache_precision"] == "f32"


def test_results_are_stored_and_equal_in_a_second_run(
    engine: Engine, finished: TestRun, plan: Plan
):
    stored = results_of(engine.evaluations, finished.id)
    assert stored == finished.results()
    again = Evaluations(engine).start(plan, ME, User(), "a set")  # without limits: larger batches
    assert again.wait(PATIENCE_S)
    assert [row.answer for row in again.results()] == [row.answer for row in stored]
    assert [row.verdict for row in again.results()] == [row.verdict for row in stored]
    change = Report.of_run(plan, again.results()).changes(Report.of_run(plan, stored))[1]
    assert (change.regressed, change.mended, change.unmatched) == ((), (), 0)


def test_scores_and_tests_agree_with_a_script_on_the_exported_json(finished: TestRun, plan: Plan):
    document = json.loads(to_json(Report.of_run(plan, finished.results())))
    verdicts = {(r["label"], r["case_key"]): r["verdict"] for r in document["results"]}
    labels = [each["label"] for each in document["candidates"]]
    tagged = {
        r["case_key"] for r in document["results"] if "even" in document["cases"][r["case"]]["tags"]
    }
    for score in document["scores"]:
        counts = Counter(
            verdict
            for (label, key), verdict in verdicts.items()
            if label == score["label"] and (score["tag"] is None or key in tagged)
        )
        passed, n = counts["pass"], counts["pass"] + counts["fail"]
        assert (score["passed"], score["n"]) == (passed, n)
        middle = (passed + 1.96**2 / 2) / (n + 1.96**2)
        half = 1.96 * sqrt(passed * (n - passed) / n + 1.96**2 / 4) / (n + 1.96**2)
        assert (score["low"], score["high"]) == pytest.approx(
            (middle - half, middle + half), abs=1e-4
        )
    keys = {key for _, key in verdicts}
    pairs = Counter((verdicts[labels[0], key], verdicts[labels[1], key]) for key in keys)
    b, c = pairs["pass", "fail"], pairs["fail", "pass"]
    p = min(1.0, 2 * sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c))
    (test,) = document["compared_with_first"]
    assert (test["only_first"], test["only_second"], test["p"]) == (b, c, pytest.approx(p))
    back = from_json(json.dumps(document).encode())
    assert back.candidates == plan.candidates
    assert [back.verdicts(i) for i in (0, 1)] == [
        Report.of_run(plan, finished.results()).verdicts(i) for i in (0, 1)
    ]


def test_exported_csv_has_no_formula(plan: Plan, finished: TestRun):
    row = finished.results()[0].model_copy(update={"answer": "=cmd|' /C calc'!A0"})
    text = to_csv(Report.of_run(plan, [row]))
    assert ",'=cmd" in text and ",=cmd" not in text


def test_interrupted_run_resumes_with_what_is_missing(
    engine: Engine, finished: TestRun, plan: Plan
):
    store, service = engine.evaluations, Evaluations(engine)
    store.begin("1" * 32, ME, None, "Mine", plan.model_dump(mode="json"))
    kept = [row for row in finished.results() if row.case < 4]
    store.save_results(
        "1" * 32, {(row.candidate, row.case): row.model_dump(mode="json") for row in kept}
    )
    dead = {"instance_pid": 2**22 + 1, "instance_started": 1.0}
    with engine.runs.database.writing() as connection:
        connection.execute(evaluations.update().where(evaluations.c.id == "1" * 32).values(dead))
    assert store.mark_interrupted() == 1
    assert store.run("1" * 32, ME).state is EvaluationState.INTERRUPTED
    assert store.run("1" * 32, Holder("guest", "another browser")) is None
    run = service.resume("1" * 32, ME, User())
    with pytest.raises(ModelBusyError):
        service.resume("1" * 32, ME, User())
    assert run.wait(PATIENCE_S) and run.state is EvaluationState.DONE
    assert [r.answer for r in run.results()] == [r.answer for r in finished.results()]
    times = {(r.candidate, r.case): r.total_ms for r in run.results()}
    assert all(times[row.candidate, row.case] == row.total_ms for row in kept), "not repeated"


def test_stopped_run_keeps_its_results(engine: Engine, plan: Plan, monkeypatch: pytest.MonkeyPatch):
    service, answer, started = Evaluations(engine), engine.answer, []

    def answer_and_stop(*given, **options):
        started.append(answer(*given, **options))
        if len(started) == 3:
            (run,) = service._runs.values()
            run.stop()
        return started[-1]

    monkeypatch.setattr(engine, "answer", answer_and_stop)
    run = service.start(plan, ME, User())
    assert run.wait(PATIENCE_S)
    # The third one is cancelled, unless it ends before.
    assert len(started) == 3 and len(run.results()) in (2, 3)
    assert results_of(engine.evaluations, run.id) == run.results()
    assert engine.evaluations.run(run.id, ME).state is EvaluationState.STOPPED


def test_deleted_run_stops(engine: Engine, plan: Plan, monkeypatch: pytest.MonkeyPatch):
    store = engine.evaluations
    save, given = store.save_results, []

    def delete_and_save(run_id, results):
        given.append(len(results))
        store.delete_set("its set", ME)
        return save(run_id, results)

    monkeypatch.setattr(store, "save_results", delete_and_save)
    run = Evaluations(engine).start(plan, ME, User(), "its set")
    assert run.wait(PATIENCE_S)
    assert (run.state, given, run.progress().problem) == (EvaluationState.STOPPED, [1], None)
    assert store.run(run.id, ME) is None and store.results(run.id) == []


def test_locked_database_loses_no_result(
    engine: Engine, plan: Plan, monkeypatch: pytest.MonkeyPatch
):
    save, failures = engine.evaluations.save_results, []

    def locked(run_id, results):
        if len(failures) < 3:
            failures.append(run_id)
            raise RecordsError("The run database is locked by another program. Close it.")
        return save(run_id, results)

    monkeypatch.setattr(engine.evaluations, "save_results", locked)
    small = plan.model_copy(update={"cases": plan.cases[:3], "candidates": plan.candidates[:1]})
    run = Evaluations(engine).start(small, ME, User())
    assert run.wait(PATIENCE_S) and failures and run.progress().problem is None
    assert len(results_of(engine.evaluations, run.id)) == 3


def test_candidate_that_cannot_be_loaded_fails_alone(engine: Engine, plan: Plan, tmp_path: Path):
    missing = Candidate(spec=ModelSpec(str(tmp_path / "nowhere")), sampling=SHORT)
    cases = plan.cases[:3]
    both = Plan.of(
        TestSet(name="x", cases=cases, default_checks=("words: 99",)),
        [missing, plan.candidates[0]],
    )
    run = Evaluations(engine).start(both, ME, User())
    assert run.wait(PATIENCE_S)
    report = Report.of_run(both, run.results())
    assert report.verdicts(0) == [Verdict.ERROR] * 3 and report.verdicts(1) == [Verdict.PASS] * 3
    assert "nowhere" in report.result(0, 0).error


def test_pinning_a_run_unpins_the_others_of_its_set(
    engine: Engine, finished: TestRun, plan: Plan, monkeypatch: pytest.MonkeyPatch
):
    store = engine.evaluations
    store.begin("2" * 32, ME, "a set", "Mine", plan.model_dump(mode="json"))
    store.pin(finished.id, ME, pinned=True)
    store.pin("2" * 32, ME, pinned=True)
    pinned = [row.id for row in store.runs(ME, "a set") if row.pinned]
    assert pinned == ["2" * 32]
    monkeypatch.setattr("core.db.evaluations.LISTED_RUNS", 2)
    for digit in "345":
        store.begin(digit * 32, ME, "a set", "Mine", {})
    listed = [row.id for row in store.runs(ME, "a set")]
    assert listed == ["5" * 32, "2" * 32], "the baseline is never cut off"
    store.delete_run("2" * 32, ME)
    assert "2" * 32 not in [row.id for row in store.runs(ME)]


def test_stored_sets_belong_to_their_holder(engine: Engine):
    store = engine.evaluations
    given = TestSet(name="Ours", cases=(Case(instruction="Hi."),))
    set_id = store.save_set(None, ME, given.name, {"cases": [{"instruction": "Hi."}]}, 1)
    assert [each.id for each in store.sets(ME)] == [set_id]
    assert store.sets(Holder("guest", "b")) == []
    assert store.get_set(set_id, Holder("guest", "b")) is None
    assert read_test_set(json.dumps(store.get_set(set_id, ME)), "x.json").cases == given.cases
    assert store.save_set(set_id, ME, "Theirs", {"cases": []}, 0) == set_id
    store.delete_all(ME)
    assert store.count(ME) == (0, 0)


def test_candidates_have_different_labels(spec: ModelSpec):
    alpaca = Candidate(spec=spec, prompt_format="alpaca")
    system = Candidate(spec=spec, prompt_format="alpaca", system="Be brief.")
    labels = [each.label for each in labelled([alpaca, system])]
    assert len(set(labels)) == 2 and "system prompt" in labels[1]
    other = Candidate(spec=spec, prompt_format="alpaca", system="Be long.")
    assert len({each.label for each in labelled([alpaca, system, other])}) == 3
    for wrong in ([], [alpaca, alpaca], [replace_device(alpaca, n) for n in range(9)]):
        with pytest.raises(BadRequestError):
            labelled(wrong)


def replace_device(candidate: Candidate, number: int) -> Candidate:
    spec = replace(candidate.spec, device=f"GPU.{number}")
    return candidate.model_copy(update={"spec": spec})


def test_evaluate_exits_with_1_for_a_planted_regression_and_with_0_without(
    spec: ModelSpec,
    shared_home: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(os.environ, "PADDOCK_HOME", str(shared_home))
    file, before, after = tmp_path / "set.json", tmp_path / "before.json", tmp_path / "after.json"
    ask = [f"Name {n} things." for n in range(4)]
    file.write_text(json.dumps([{"instruction": each, "checks": ["words: 500"]} for each in ask]))
    model = f"{spec.model}:fp32@CPU"
    common = ("--models", model, "--max-new-tokens", "12")
    code = main(["evaluate", str(file), *common, "--prompt-format", "dolly", "--json", str(before)])
    out, err = capfd.readouterr()
    assert code == 0, err
    # What the model answers in this format is what it must contain, in two of the four cases.
    answers = [row["answer"] for row in json.loads(before.read_text())["results"]]
    cases = [
        {
            "instruction": each,
            "checks": [f"regex: ^{re.escape(answer[:12])}" if n % 2 else "words: 99"],
        }
        for n, (each, answer) in enumerate(zip(ask, answers, strict=True))
    ]
    file.write_text(json.dumps(cases))
    run = ["evaluate", str(file), *common, "--json"]
    assert main([*run, str(before), "--prompt-format", "dolly"]) == 0
    base = ("--baseline", str(before))
    assert main([*run, str(after), "--prompt-format", "dolly", *base]) == 0
    capfd.readouterr()
    assert main([*run, str(after), "--prompt-format", "plain", *base]) == 1
    out, err = capfd.readouterr()
    summary = json.loads(out.splitlines()[-1])
    assert (summary["regressed"], summary["complete"]) == (2, True), out
    assert "regressed: case 2" in out and "regressed: case 4" in out
    keys = [Case(instruction=ask[n]).key for n in (1, 3)]
    assert json.loads(after.read_text())["changes"][0]["regressed"] == keys
    for wrong in (["--resume", "1" * 32, "--seed", "0"], ["x.csv", "--first", "0"]):
        assert main(["evaluate", *wrong]) == 2
    err = capfd.readouterr().err
    assert "as it was planned" in err and "--first is 0" in err
    assert main([*run, str(after), "--baseline", str(file)]) == 2
    assert "not an exported test run" in capfd.readouterr().err
