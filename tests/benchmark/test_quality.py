"""Quality of a precision: definitions on computed examples, then real tiny and demo models."""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.benchmark import scoring
from core.benchmark.prompts import quality_texts
from core.benchmark.quality import Reference, compare, divergence_of, quality_in_process
from core.benchmark.scoring import QUESTIONS, accuracy_of, own_tasks, texts_of
from core.catalogue import Precision
from core.errors import GenerationError
from core.inference.engine import Engine
from core.runtimes.spec import ModelSpec, TokenRequest
from core.store import resolve
from core.workers.child import Channel


def reference(**changes) -> Reference:
    values = {
        "precision": "fp32",
        "nll": 4 * math.log(2),
        "likeliest": ((1, 2), (3, 4)),
        "answers": ((5, 6, 7), (8, 9)),
        "accuracy": None,
    }
    return Reference(**(values | changes))


def test_the_reference_compared_with_itself():
    one = reference()
    found = compare(one, one, one.answers)
    assert found.perplexity == pytest.approx(2)
    assert (found.perplexity_ratio, found.top1_agreement, found.divergent_share) == (1, 1, 0)
    assert found.first_divergent_token == 2.5  # the mean length of the answers
    assert found.tokens == 9 and found.task_accuracy is None


def test_compared_precision_matches_manual_computation():
    own = reference(
        precision="int4",
        nll=8 * math.log(2),
        likeliest=((1, 2), (3, 0)),
        answers=((5, 0, 7), (8, 9)),
        accuracy=0.5,
    )
    found = compare(reference(), own, ((5, 6, 7), (8, 0)))
    assert found.perplexity == pytest.approx(4) and found.perplexity_ratio == pytest.approx(2)
    assert found.top1_agreement == pytest.approx(7 / 9)
    assert found.first_divergent_token == pytest.approx((1 + 2) / 2)
    assert found.divergent_share == pytest.approx((1 / 3 + 0) / 2)
    assert found.reference == "fp32" and found.task_accuracy == 0.5


@pytest.mark.parametrize(
    ("theirs", "ours", "first", "share"),
    [
        ((1, 2, 3), (1, 2, 3), 3, 0),
        ((1, 2, 3), (9, 2, 3), 0, 1 / 3),
        ((1, 2, 3), (1, 9, 2, 3), 1, 1 / 4),  # one token slipped in; the rest matches
        ((1, 2), (1, 2, 3, 4), 2, 1 / 2),
        ((1, 2, 3), (), 0, 1),
        ((), (1,), 0, 1),
        ((), (), 0, 0),
        ((7,) * 300, (7,) * 300, 300, 0),  # difflib takes frequent elements for junk if let
    ],
)
def test_divergence_as_who_what_benchmark_defines_it(theirs, ours, first, share):
    assert divergence_of(theirs, ours) == (first, pytest.approx(share))


def test_different_models_are_not_compared():
    with pytest.raises(GenerationError, match="not the same model"):
        compare(reference(), reference(likeliest=((1, 2, 3), (3, 4))), ((5, 6, 7), (8, 9)))


class Words:
    """A tokenizer whose ids are the lengths of words."""

    chat_template = None
    eos_token_id = 0

    def __call__(self, text: str, **_options) -> dict[str, list[int]]:
        return {"input_ids": [len(word) for word in text.split()]}


class Uniform:
    """Finds every token equally likely, but likes the number of its position a little better."""

    positions = 20
    end_ids = frozenset({0})
    tokenizer = Words()

    def scores(self, ids) -> np.ndarray:
        rows = np.zeros((len(ids), 64), dtype=np.float32)
        rows[np.arange(len(ids)), np.arange(len(ids)) % 64] += 1e-6
        return rows

    def generate(self, request: TokenRequest, on_token) -> None:
        for token in (7, 8):
            on_token(token)


class Runtime:
    def prepare(self, folder: Path | None = None) -> None:
        pass

    def load(self, folder: Path, spec: ModelSpec) -> Uniform:
        return Uniform()


def test_perplexity_of_uniform_predictions_is_the_vocabulary(monkeypatch):
    monkeypatch.setattr(scoring, "_prompt", lambda *_: TokenRequest((1, 2, 3), None))
    heard = io.StringIO()
    spec = ModelSpec("mine", Precision.FP32, "CPU")
    forced = [[5, 6, 7]] * 10
    scores = scoring.score(Runtime(), Path(), spec, forced=forced, channel=Channel(heard))
    steps = [json.loads(line) for line in heard.getvalue().splitlines()]
    found = reference(nll=scores["nll"], likeliest=tuple(map(tuple, scores["likeliest"])))
    assert found.perplexity == pytest.approx(64, rel=1e-4)
    assert all(len(window) < 20 for window in found.likeliest)  # within the model's positions
    assert scores["answers"] == [[7, 8]] * 10
    # The prompt's last position foretells the answer's first token.
    assert scores["forced"] == [[2, 3, 4]] * 10
    assert [step["message"] for step in steps].count("Answering instructions.") == 10


@pytest.mark.long
def test_precisions_are_compared_in_their_own_processes(
    spec_of: Callable[..., ModelSpec], engine: Engine
):
    found = {}
    known: Reference | None = None
    for precision in (Precision.FP32, Precision.INT8):
        spec = spec_of("llama", precision)
        stored = engine.store.get(resolve(spec.model), precision)
        assert stored is not None
        found[precision], known = quality_in_process(
            stored.folder,
            spec,
            known,
            on_progress=lambda message: None,
            cancel=threading.Event(),
        )
    exact, low = found[Precision.FP32], found[Precision.INT8]
    assert known is not None and known.precision == "fp32"
    assert (exact.perplexity_ratio, exact.top1_agreement, exact.divergent_share) == (1, 1, 0)
    assert low.perplexity_ratio == pytest.approx(1, abs=0.1) and low.perplexity_ratio != 1
    assert 0.5 < low.top1_agreement < 1
    assert 0 < low.first_divergent_token <= exact.first_divergent_token
    assert low.tokens == exact.tokens > 2000 and low.task_accuracy is None


def test_embedded_models_have_their_own_texts_and_questions():
    texts = texts_of("paddock-neox", Words())
    assert len(texts.instructions) == QUESTIONS
    assert len(set(texts.instructions)) == QUESTIONS
    assert all("### Response:\n" in text for text in texts.texts)
    assert texts_of("phi-2", Words()) == quality_texts() and own_tasks("phi-2") == ()
    assert accuracy_of("phi-2", Uniform()) is None


def test_accuracy_of_an_embedded_model(engine: Engine, monkeypatch):
    from core.embedded.tasks import held_out_tasks
    from core.runtimes.optimum import OptimumRuntime

    few = held_out_tasks()[::12]
    monkeypatch.setattr(scoring, "held_out_tasks", lambda: few)
    stored = engine.store.ensure(resolve("paddock-llama"), Precision.INT8)
    model = OptimumRuntime().load(stored.folder, ModelSpec("paddock-llama", Precision.INT8, "CPU"))
    share = accuracy_of("paddock-llama", model)
    model.close()
    assert share is not None and 0.25 <= share <= 1
