"""Prompt lookup through GenAI: equal answers, the same distribution, and what *auto* decides."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import chi2_contingency

from core.catalogue import Precision
from core.errors import NotEnoughMemoryError
from core.inference.engine import Engine
from core.runtimes import genai
from core.runtimes.base import StampedId
from core.runtimes.batching import BatchedAnswer
from core.runtimes.genai import GenAIModel, GenAIRuntime
from core.runtimes.spec import (
    AUTO_SPECULATION,
    NO_SPECULATION,
    ExecutionHints,
    GenAIOptions,
    ModelSpec,
    SamplingSettings,
    Speculation,
    SpeculationMode,
    TokenRequest,
)
from core.runtimes.speculation import (
    FIRST_STEPS,
    MEMORY,
    PASSAGE_TOKENS,
    SAMPLED_TOKENS,
    TRY_AGAIN,
    AutoSpeculation,
    break_even,
)
from core.store import resolve
from tests.waiting import PATIENCE_S

EXACT = ExecutionHints.exact()
ON = Speculation(SpeculationMode.ON)
GREEDY = SamplingSettings(max_new_tokens=40, greedy=True)
PASSAGE = tuple(range(5, 5 + PASSAGE_TOKENS // 2)) * 2 + (7, 8, 9)


@pytest.fixture(scope="module")
def folder(engine: Engine, spec_of) -> Path:
    spec = spec_of("gpt_neox")
    found = engine.store.get(resolve(spec.model), spec.precision)
    assert found is not None
    return found.folder


@pytest.fixture(scope="module")
def model(folder: Path):
    loaded = GenAIRuntime().load(folder, ModelSpec("mine", Precision.FP32, "CPU", hints=EXACT))
    assert isinstance(loaded, GenAIModel)
    loaded.load_lookup()
    yield loaded
    loaded.close()


def tokens_of(model: GenAIModel, request: TokenRequest) -> list[StampedId]:
    found: list[StampedId] = []
    model.generate(request, lambda token: found.append(token) or True)
    return found


def test_greedy_ids_are_those_without_guesses_and_groups_share_a_time(model: GenAIModel) -> None:
    for prompt in (PASSAGE, PASSAGE[::-1], (5, 6, 7)):
        plain = tokens_of(model, TokenRequest(prompt, GREEDY))
        guessed = tokens_of(model, TokenRequest(prompt, GREEDY, speculation=ON))
        assert guessed == plain
        assert {token.step_drafts for token in plain} == {None}
        steps = len({token.stamp_s for token in guessed})
        assert sum(token.step_drafts or 0 for token in guessed) == ON.tokens * (steps - 1)
    # A random model repeats itself, so guesses are accepted.
    assert steps < len(guessed)


def test_sampled_answers_keep_their_distribution(model: GenAIModel) -> None:
    check_distribution(model, answers=120)


def check_distribution(model: GenAIModel, answers: int) -> None:
    """Compare the first and the fifth token of sampled answers with and without guesses."""
    settings = SamplingSettings(max_new_tokens=5, top_k=4, top_p=1.0, temperature=1.0)
    counts: dict[bool, tuple[Counter[int], Counter[int]]] = {}
    for guessing in (False, True):
        speculation = ON if guessing else NO_SPECULATION
        # Other seeds, so that the samples are independent.
        seeds = range(answers * guessing, answers * (guessing + 1))
        found = [
            tokens_of(
                model,
                TokenRequest(
                    (5, 6, 7, 8) * 3, replace(settings, seed=seed), speculation=speculation
                ),
            )
            for seed in seeds
        ]
        counts[guessing] = Counter(each[0] for each in found), Counter(each[4] for each in found)
    for plain, guessed in zip(*counts.values(), strict=True):
        likely = [token for token, count in (plain + guessed).items() if count >= 10]
        assert len(likely) > 1, "the test needs an answer that varies"
        table = [[each[token] for token in likely] for each in (plain, guessed)]
        assert chi2_contingency(table).pvalue > 1e-3


def test_auto_stops_guessing_where_guesses_fail_and_the_answer_stays_the_same(
    model: GenAIModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model._stepper, "auto", AutoSpeculation())
    monkeypatch.setattr("core.runtimes.speculation.COST_OF_GUESS", 2.0)  # no guess can pay
    plain = tokens_of(model, TokenRequest(PASSAGE, GREEDY))
    auto = tokens_of(model, TokenRequest(PASSAGE, GREEDY, speculation=AUTO_SPECULATION))
    assert auto == plain
    guessing = [token.step_drafts is not None for token in auto]
    assert guessing[0] and not guessing[-1], "it was moved"
    steps = len({token.stamp_s for token in auto if token.step_drafts is not None})
    assert steps == 1 + FIRST_STEPS, "the prompt's step and those it was judged by"


def test_auto_does_not_guess_while_answers_share_the_batch(
    model: GenAIModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model._stepper, "auto", AutoSpeculation())
    monkeypatch.setattr("core.runtimes.speculation.COST_OF_GUESS", 0.0)  # guesses always pay
    request = TokenRequest(PASSAGE, GREEDY, speculation=AUTO_SPECULATION)
    alone = tokens_of(model, request)
    assert alone[0].step_drafts is not None
    long = replace(
        request, sampling=replace(GREEDY, max_new_tokens=400), speculation=AUTO_SPECULATION
    )
    first: list[StampedId] = []
    joined, both = threading.Event(), threading.Event()
    add = model._stepper.add

    def add_and_note(answer: BatchedAnswer) -> None:
        add(answer)
        if joined.is_set():
            both.set()

    def take(token: StampedId) -> bool:
        first.append(token)
        joined.set()
        return both.wait(PATIENCE_S)  # otherwise it might end before the other one begins

    def run() -> None:
        model.generate(long, take)

    monkeypatch.setattr(model._stepper, "add", add_and_note)
    thread = threading.Thread(target=run)
    thread.start()
    assert joined.wait(PATIENCE_S)
    second = tokens_of(model, request)
    thread.join(PATIENCE_S)
    assert {token.step_drafts for token in second} == {None}
    assert first[0].step_drafts is not None and first[-1].step_drafts is None
    assert len(first) == 400 and first[:40] == second == alone


def test_auto_loads_the_second_pipeline_after_the_first_answer_with_a_passage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = GenAIRuntime().load(folder, ModelSpec("mine", Precision.FP32, "CPU", hints=EXACT))
    assert isinstance(loaded, GenAIModel)
    try:
        short = TokenRequest((5, 6, 7), GREEDY, speculation=AUTO_SPECULATION)
        tokens_of(loaded, short)
        assert loaded._lookup is None
        passage = replace(short, prompt_ids=PASSAGE)
        with monkeypatch.context() as patch:
            patch.setattr(genai, "available_memory_bytes", lambda: 0)
            with pytest.raises(NotEnoughMemoryError, match="Switch speculation off"):
                tokens_of(loaded, replace(passage, speculation=ON))
            first = tokens_of(loaded, passage)
        assert {token.step_drafts for token in first} == {None}
        tokens_of(loaded, passage)
        with loaded._lookup_lock:  # held while it is loaded in the background
            pass
        loaded.load_lookup()
        assert tokens_of(loaded, passage)[0].step_drafts is not None
    finally:
        loaded.close()


def request_of(prompt_tokens: int, **sampling: object) -> TokenRequest:
    settings = replace(SamplingSettings(), **sampling)
    return TokenRequest((1,) * prompt_tokens, settings, speculation=AUTO_SPECULATION)


def test_auto_chooses_the_number_of_guesses_by_prompt_and_temperature() -> None:
    auto = AutoSpeculation()
    assert auto.drafts_for(request_of(PASSAGE_TOKENS)) == SAMPLED_TOKENS
    assert auto.drafts_for(request_of(PASSAGE_TOKENS, greedy=True)) == AUTO_SPECULATION.tokens
    assert auto.drafts_for(request_of(PASSAGE_TOKENS, temperature=0.2)) == AUTO_SPECULATION.tokens
    assert auto.drafts_for(request_of(20)) == 0
    assert auto.drafts_for(request_of(20, temperature=0.2)) == 1
    assert auto.drafts_for(request_of(20, greedy=True)) == 1
    cannot_move = replace(request_of(PASSAGE_TOKENS), options=GenAIOptions(presence_penalty=0.5))
    assert auto.drafts_for(cannot_move) == 0


def test_auto_learns_from_earlier_answers_and_tries_again() -> None:
    auto, request = AutoSpeculation(), request_of(PASSAGE_TOKENS)
    drafts = auto.drafts_for(request)
    for _ in range(MEMORY):
        auto.note(request, drafts, 20, round(20 * break_even(drafts)) - 2)
    decisions = [auto.drafts_for(request) for _ in range(TRY_AGAIN)]
    assert decisions == [0] * (TRY_AGAIN - 1) + [drafts]
    other = request_of(PASSAGE_TOKENS, greedy=True)
    assert auto.drafts_for(other) == AUTO_SPECULATION.tokens, "another kind"
    for _ in range(MEMORY):
        auto.note(request, drafts, 20, 60)
    assert auto.drafts_for(request) == drafts
