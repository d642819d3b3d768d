"""Comparisons of real (tiny) models on the Optimum runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from core.catalogue import Precision
from core.compare.figures import side_figures
from core.compare.match import Match, SideState
from core.compare.report import describe
from core.compare.setup import Mode, Setup
from core.db import Origin
from core.db.columns import storable_text
from core.inference.answer import StopReason
from core.inference.engine import Engine
from core.inference.job import Job
from core.inference.request import GenerationRequest, User
from core.runtimes.base import OnToken
from core.runtimes.spec import ModelSpec, SamplingSettings, TokenRequest
from core.runtimes.subprocess_runtime import ProcessModel
from tests.waiting import PATIENCE_S

QUESTION = "Name five animals."


@pytest.fixture
def play(engine: Engine) -> Callable[..., Match]:
    """Return a finished comparison of these models."""

    def run(*sides: ModelSpec, mode: Mode = Mode.FAIR, **sampling: object) -> Match:
        settings = SamplingSettings(**({"max_new_tokens": 24} | sampling))
        request = GenerationRequest(QUESTION, sampling=settings, prompt_format="plain")
        match = Match(Setup(sides, request, mode), engine, User(session="a test"))
        assert match.wait(PATIENCE_S)
        assert [match.error(side) for side in range(len(sides))] == [None] * len(sides)
        assert [match.state(side) for side in range(len(sides))] == [SideState.DONE] * len(sides)
        return match

    return run


def ids(match: Match) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in match.answers]


def test_model_against_itself_gives_identical_uncontended_answers(
    play: Callable[..., Match], spec_of: Callable[..., ModelSpec], engine: Engine
):
    model = spec_of("gpt_neox")
    match = play(model, model, greedy=True)
    first, second = ids(match)
    assert first == second and len(first) > 5
    assert not any(answer.contended for answer in match.answers)
    report = describe(match, engine.store)
    assert report.pairs == () and not report.contended
    assert report.sides[0].figures.disk_bytes > 100_000


def test_shown_figures_equal_recorded_figures(
    play: Callable[..., Match], spec_of: Callable[..., ModelSpec], engine: Engine
):
    match = play(spec_of("gpt_neox"), spec_of("llama"))
    for job, answer in zip(match.jobs, match.answers, strict=True):
        row = engine.runs.get(job.run_id)
        assert row.start.origin is Origin.COMPARE and row.result.text == storable_text(answer.text)
        figures = side_figures(answer)
        for name in ("ttft_ms", "tpot_ms", "decode_tokens_per_s", "new_tokens", "contended"):
            assert getattr(figures, name) == getattr(row.result, name) is not None, name
    assert len({engine.runs.get(job.run_id).start.seed for job in match.jobs}) == 1


def test_a_seed_reproduces_a_sampled_answer_even_in_a_race(
    play: Callable[..., Match], spec_of: Callable[..., ModelSpec]
):
    sides = (spec_of("gpt_neox"), spec_of("llama"))
    alone = play(*sides, seed=11, temperature=1.5)
    at_once = play(*sides, seed=11, temperature=1.5, mode=Mode.RACE)
    assert ids(alone) == ids(at_once)
    again = alone.regenerate(0, seed=11)
    assert again.wait(PATIENCE_S) and ids(again) == ids(alone)
    other = alone.regenerate(seed=12)
    assert other.wait(PATIENCE_S) and ids(other) != ids(alone)


def test_race_of_real_models_overlaps_and_is_marked(
    play: Callable[..., Match], spec_of: Callable[..., ModelSpec], monkeypatch: pytest.MonkeyPatch
):
    sides = (spec_of("gpt_neox"), spec_of("llama"))
    play(*sides)  # loads them
    both, generate = threading.Barrier(2, timeout=PATIENCE_S), ProcessModel.generate

    def together(self: ProcessModel, request: TokenRequest, on_token: OnToken) -> None:
        both.wait()  # on a busy machine one might end before the other begins
        generate(self, request, on_token)

    monkeypatch.setattr(ProcessModel, "generate", together)
    match = play(*sides, mode=Mode.RACE)
    assert all(answer.contended for answer in match.answers)


def test_compressed_model_diverges_from_its_reference_under_greedy_decoding_only(
    play: Callable[..., Match], spec_of: Callable[..., ModelSpec], engine: Engine
):
    match = play(spec_of("gpt_neox", Precision.INT8), spec_of("gpt_neox"), greedy=True)
    (pair,) = describe(match, engine.store).pairs
    assert (pair.a, pair.b) == (1, 0), "the reference comes first"
    index = pair.divergence.index
    assert index is None or ids(match)[0][:index] == ids(match)[1][:index]
    third = match.with_side(spec_of("gpt_neox", Precision.INT4))
    assert third.wait(PATIENCE_S) and third.jobs[:2] == match.jobs
    pairs = describe(third, engine.store).pairs
    assert [(each.a, each.b) for each in pairs] == [(1, 0), (1, 2)]
    assert describe(play(*match.setup.sides, seed=1), engine.store).pairs == ()
    chosen = match.regenerate(0, beginning="The")
    assert chosen.wait(PATIENCE_S) and describe(chosen, engine.store).pairs == ()


def test_stopped_side_next_to_a_complete_one(
    play: Callable[..., Match],
    spec_of: Callable[..., ModelSpec],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
):
    model = spec_of("gpt_neox")
    whole = play(model, model, greedy=True, max_new_tokens=200)
    request = whole.setup.request

    def cancelled(self: Job) -> Job:
        if not started:
            self.cancel()
        started.append(self)
        return start(self)

    started, start = [], Job.start
    monkeypatch.setattr(Job, "start", cancelled)
    match = Match(Setup((model, model), request, Mode.FAIR), engine, User())
    assert match.wait(PATIENCE_S)
    assert match.answers[0].stop_reason is StopReason.CANCELLED
    assert match.answers[1].token_ids == whole.answers[1].token_ids
