"""Running a list of instructions: order, stop, results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.compare import series as series_module
from core.compare.match import SideState
from core.compare.report import MatchReport, describe
from core.compare.series import Series
from core.compare.setup import Mode, Setup
from core.errors import BadRequestError
from core.inference.request import GenerationRequest
from core.runtimes.spec import SamplingSettings
from core.settings import Settings
from core.store import ModelStore
from tests.compare.conftest import GREEDY, PATIENCE_S, USER, OutOfOrder, Stable, spec
from tests.waiting import eventually

SIDES = (spec("one"), spec("two"))
LIST = ("Say one.", "Say two.", "Say three.")


def series(
    stable: Stable,
    *,
    mode: Mode = Mode.FAIR,
    sampling: SamplingSettings = GREEDY,
    texts: tuple[str, ...] = LIST,
    **more: Any,
) -> Series:
    requests = [GenerationRequest(text, sampling=sampling) for text in texts]
    return Series([Setup(SIDES, each, mode) for each in requests], stable, USER, **more)


def reports(done: Series, home: Path) -> list[MatchReport]:
    store = ModelStore(Settings(home=home))
    return [describe(match, store) for match in done.matches]


@pytest.mark.parametrize("mode", list(Mode))
def test_every_instruction_runs_on_every_side_in_order(stable: Stable, mode: Mode, tmp_path: Path):
    models = [stable.add(name, "It is quiet.") for name in ("one", "two")]
    done = series(stable, mode=mode)
    assert done.wait(PATIENCE_S) and not done.running and done.progress == (3, 3)
    for model in models:
        prompts = [stable.tokenizer.decode(request.prompt_ids) for request in model.requests]
        said = [prompt.split("### Instruction:\n")[1].split("\n")[0] for prompt in prompts]
        assert said == list(LIST)
    found = reports(done, tmp_path)
    assert [report.request.instruction for report in found] == list(LIST)
    assert all(side.text == "It is quiet." for report in found for side in report.sides)
    assert not any(report.pairs for report in found), "they are different models"


def test_seeds_are_random_unless_given(stable: Stable):
    for name in ("one", "two"):
        stable.add(name, "It is quiet.")
    free = series(stable, sampling=SamplingSettings(), texts=LIST[:2])
    assert free.wait(PATIENCE_S)
    seeds = [[answer.seed for answer in match.answers] for match in free.matches]
    assert all(len(set(sides)) == 1 for sides in seeds) and seeds[0] != seeds[1]
    fixed = series(stable, sampling=SamplingSettings(seed=3), texts=LIST[:2])
    assert fixed.wait(PATIENCE_S)
    assert {answer.seed for match in fixed.matches for answer in match.answers} == {3}


def test_series_reports_progress_and_can_be_stopped(stable: Stable):
    stable.add("one", "It is quiet.")
    held = stable.hold("two")
    under_way = series(stable)
    assert held.begun.wait(PATIENCE_S)
    (match,) = under_way.matches
    eventually(lambda: match.state(1) is SideState.RUNNING)
    assert match.state(0) is SideState.DONE
    assert under_way.progress == (0, 3) and under_way.running
    under_way.stop()
    held.open()
    assert under_way.wait(PATIENCE_S) and under_way.stopped
    assert under_way.matches == (match,) and match.done
    assert under_way.progress == (1, 3)
    assert stable.started == ["one", "two"]


def test_failed_side_does_not_affect_the_other(stable: Stable, tmp_path: Path):
    stable.failures["one"] = OutOfOrder("It is closed; open it.")
    stable.add("two", "It is quiet.")
    done = series(stable)
    assert done.wait(PATIENCE_S)
    for report in reports(done, tmp_path):
        assert [side.state for side in report.sides] == [SideState.FAILED, SideState.DONE]
        assert report.sides[0].error == "It is closed; open it."
        assert report.fastest is None and report.pairs == ()


def test_race_is_marked(stable: Stable, tmp_path: Path):
    first, second = stable.hold("one"), stable.hold("two")
    done = series(stable, mode=Mode.RACE, texts=LIST[:1])
    assert first.begun.wait(PATIENCE_S) and second.begun.wait(PATIENCE_S)
    first.open()
    second.open()
    assert done.wait(PATIENCE_S)
    assert reports(done, tmp_path)[0].contended


def test_nothing_starts_without_an_instruction_or_above_a_limit(stable: Stable):
    stable.most_characters = len(LIST[0])
    for texts in ((), LIST):
        with pytest.raises(BadRequestError):
            series(stable, texts=texts)
    assert stable.started == []


@pytest.mark.parametrize("there", [True, False])
def test_list_ends_when_its_owner_has_gone(
    stable: Stable, monkeypatch: pytest.MonkeyPatch, there: bool
):
    monkeypatch.setattr(series_module, "ABSENCE_S", 0.0)
    for name in ("one", "two"):
        stable.add(name, "It is quiet.")
    run = series(stable, owner_is_there=lambda: there)
    assert run.wait(PATIENCE_S)
    assert run.abandoned is not there
    assert len(run.matches) == (3 if there else 1)


def test_short_absence_does_not_end_a_list(stable: Stable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(series_module, "ABSENCE_S", 3600.0)
    for name in ("one", "two"):
        stable.add(name, "It is quiet.")
    run = series(stable, owner_is_there=lambda: False)
    assert run.wait(PATIENCE_S)
    assert not run.abandoned and run.progress == (3, 3)
