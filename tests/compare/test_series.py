"""Running a list of instructions: order, stop, results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from core.compare import series as series_module
from core.compare import timed_answers
from core.compare.instructions import Instruction, parse_instructions
from core.compare.match import SideState
from core.compare.series import Series
from core.compare.setup import Mode
from core.errors import BadRequestError
from core.inference.request import GenerationRequest
from core.runtimes.spec import SamplingSettings, TokenRequest
from tests.compare.conftest import GREEDY, PATIENCE_S, USER, OutOfOrder, Stable, spec

SIDES = (spec("one"), spec("two"))
LIST = parse_instructions("Say one.\nSay two.\nSay three.")


def series(stable: Stable, *, mode: Mode = Mode.FAIR, sampling=GREEDY, found=LIST) -> Series:
    return Series(SIDES, found, GenerationRequest("", sampling=sampling), mode, stable, USER)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


@pytest.mark.parametrize("mode", list(Mode))
def test_every_instruction_runs_on_every_side_in_order(stable: Stable, mode: Mode):
    models = [stable.add(name, "It is quiet.") for name in ("one", "two")]
    done = series(stable, mode=mode)
    assert done.wait(PATIENCE_S) and done.done and done.progress == (3, 3)
    for model in models:
        prompts = [stable.tokenizer.decode(request.prompt_ids) for request in model.requests]
        said = [prompt.split("### Instruction:\n")[1].split("\n")[0] for prompt in prompts]
        assert said == ["Say one.", "Say two.", "Say three."]
    rows = done.rows()
    assert [row.number for row in rows] == [1, 2, 3]
    assert [row.instruction for row in rows] == [item.instruction for item in LIST]
    assert all(row.divergence is None for row in rows), "they are different models"
    assert all(row.match.jobs[0].answer is row.match.answers[0] for row in rows)
    for side, summary in enumerate(done.summary()):
        assert (summary.answered, summary.failed) == (3, 0)
        assert summary.new_tokens == sum(row.figures[side].new_tokens for row in rows)
        rates = sorted(row.figures[side].decode_tokens_per_s for row in rows)
        assert summary.decode_tokens_per_s == rates[1]
        assert summary.fastest == sum(row.fastest == side for row in rows)


@pytest.mark.parametrize(("shortest_s", "judged"), [(1.0, 0), (0.0, 3)])
def test_fastest_side_is_reported_only_for_long_answers(
    stable: Stable, monkeypatch: pytest.MonkeyPatch, shortest_s: float, judged: int
):
    monkeypatch.setattr(timed_answers, "SHORTEST_S", shortest_s)

    def slowly(request: TokenRequest) -> Iterator[int]:
        for token_id in [40] * 6 + [0]:
            time.sleep(0.03)
            yield token_id

    stable.add("one", slowly)
    stable.add("two", "It is quiet.")
    done = series(stable)
    assert done.wait(PATIENCE_S)
    rows = done.rows()
    assert [row.timed for row in rows] == [bool(judged)] * 3
    assert [row.fastest for row in rows] == ([1] * 3 if judged else [None] * 3)
    assert [(each.fastest, each.timed) for each in done.summary()] == [
        (0, judged),
        (judged, judged),
    ]
    assert all(again is row for again, row in zip(done.rows(), rows, strict=True)), "kept"


def test_contexts_are_used_and_seeds_are_random_unless_given(stable: Stable):
    for name in ("one", "two"):
        stable.add(name, "It is quiet.")
    found = (Instruction("Why?", "It rains."), Instruction("How?"))
    free = series(stable, sampling=SamplingSettings(), found=found)
    assert free.wait(PATIENCE_S)
    assert free.setups[0].request.context == "It rains."
    seeds = [[answer.seed for answer in match.answers] for match in free.matches]
    assert all(len(set(sides)) == 1 for sides in seeds) and seeds[0] != seeds[1]
    fixed = series(stable, sampling=SamplingSettings(seed=3), found=found)
    assert fixed.wait(PATIENCE_S)
    assert {answer.seed for match in fixed.matches for answer in match.answers} == {3}


def test_series_reports_progress_and_can_be_stopped(stable: Stable):
    stable.add("one", "It is quiet.")
    held = stable.hold("two")
    under_way = series(stable)
    assert held.begun.wait(PATIENCE_S)
    until(lambda: under_way.rows()[0].states == (SideState.DONE, SideState.RUNNING))
    assert under_way.progress == (0, 3) and under_way.running
    rows = under_way.rows()
    assert rows[0].figures[0].new_tokens and rows[0].figures[1] is None
    assert rows[1].match is None and rows[1].states == (SideState.WAITING,) * 2
    under_way.stop()
    held.open()
    assert under_way.wait(PATIENCE_S) and under_way.stopped
    assert len(under_way.matches) == 1 and under_way.current.done
    assert under_way.progress == (1, 3) and under_way.rows()[2].match is None
    assert stable.started == ["one", "two"]


def test_failed_side_is_counted_and_does_not_affect_the_other(stable: Stable):
    stable.failures["one"] = OutOfOrder("It is closed; open it.")
    stable.add("two", "It is quiet.")
    done = series(stable)
    assert done.wait(PATIENCE_S)
    first, second = done.summary()
    assert (first.answered, first.failed, first.decode_tokens_per_s) == (0, 3, None)
    assert (second.answered, second.failed) == (3, 0)
    assert all(row.errors == ("It is closed; open it.", None) for row in done.rows())
    assert all(row.fastest is None and row.divergence is None for row in done.rows())


def test_race_rows_are_marked(stable: Stable):
    first, second = stable.hold("one"), stable.hold("two")
    done = series(stable, mode=Mode.RACE, found=LIST[:1])
    assert first.begun.wait(PATIENCE_S) and second.begun.wait(PATIENCE_S)
    first.open()
    second.open()
    assert done.wait(PATIENCE_S)
    assert done.rows()[0].contended and all(side.contended for side in done.summary())


def test_nothing_starts_if_an_instruction_is_invalid(stable: Stable):
    for found in ((), (Instruction("Why?"), Instruction(" "))):
        with pytest.raises(BadRequestError):
            series(stable, found=found)
    assert stable.started == []


@pytest.mark.parametrize("there", [True, False])
def test_list_ends_when_its_owner_has_gone(
    stable: Stable, monkeypatch: pytest.MonkeyPatch, there: bool
):
    monkeypatch.setattr(series_module, "ABSENCE_S", 0.0)
    for name in ("one", "two"):
        stable.add(name, "It is quiet.")
    run = Series(
        SIDES,
        LIST,
        GenerationRequest("", sampling=GREEDY),
        Mode.FAIR,
        stable,
        USER,
        owner_is_there=lambda: there,
    )
    assert run.wait(PATIENCE_S)
    assert run.abandoned is not there
    assert len(run.matches) == (3 if there else 1)


def test_short_absence_does_not_end_a_list(stable: Stable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(series_module, "ABSENCE_S", 3600.0)
    for name in ("one", "two"):
        stable.add(name, "It is quiet.")
    run = Series(
        SIDES,
        LIST,
        GenerationRequest("", sampling=GREEDY),
        Mode.FAIR,
        stable,
        USER,
        owner_is_there=lambda: False,
    )
    assert run.wait(PATIENCE_S)
    assert not run.abandoned and run.progress == (3, 3)
