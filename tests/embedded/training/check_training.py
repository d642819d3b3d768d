"""Tokenizer, batches, learning rate, checkpoints and optimizer of the training."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from core.embedded.training import train
from core.embedded.training.batches import DECISION_WEIGHT, PROMPT_WEIGHT, chunk_batches, encoded
from core.embedded.training.build import CONTEXT_LENGTH, build_tokenizer
from core.embedded.training.corpus import Split, examples
from core.embedded.training.models import EMBEDDED_MODELS, EmbeddedModel, prompt_text
from core.embedded.training.optimizer import orthogonalized
from core.embedded.training.train import COOLDOWN_SHARE, Progress, rate_scale

MODELS = list(EMBEDDED_MODELS.values())


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model.key)
def made(request: pytest.FixtureRequest) -> tuple[EmbeddedModel, object]:
    return request.param, build_tokenizer(request.param)


def test_the_tokenizer_round_trips_every_text(made) -> None:
    model, tokenizer = made
    text = prompt_text(model, 'Who\'s Zoë? 1984 – "x"\tüß 日本 🙂', "a\n\n b  c")
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert tokenizer("1984", add_special_tokens=False).tokens() == ["1", "9", "8", "4"]


def test_special_tokens_are_one_id_each(made) -> None:
    model, tokenizer = made
    for expected, text in enumerate(model.special_tokens):
        assert tokenizer(text, add_special_tokens=False).input_ids == [expected]


def test_batches_are_reproducible_and_weighted(made) -> None:
    model, tokenizer = made
    first, again = (next(iter(chunk_batches(model, tokenizer, 5, 0, 2048))) for _ in range(2))
    assert torch.equal(first.ids, again.ids)
    assert first.ids.numel() <= 2048 + 8 * len(first.ids)
    given = sorted(set(first.weights.unique().tolist()))
    assert given[0] == 0.0 and given[1] == pytest.approx(PROMPT_WEIGHT)
    assert all(weight > 1.3 * PROMPT_WEIGHT for weight in given[2:])


def test_the_end_token_has_a_higher_weight(made) -> None:
    model, tokenizer = made
    end = tokenizer.convert_tokens_to_ids(model.end_token)
    batch = next(iter(chunk_batches(model, tokenizer, 5, 0, 2048)))
    for ids, weights in zip(batch.ids, batch.weights, strict=True):
        last = int(weights.nonzero().max())
        assert ids[last] == end
        usual = weights[weights > PROMPT_WEIGHT].min()
        assert weights[last] == pytest.approx(DECISION_WEIGHT * usual)


def test_answers_end_with_the_end_token(made) -> None:
    model, tokenizer = made
    stream = examples(1, Split.TRAIN)
    chunk = [next(stream) for _ in range(50)]
    end = tokenizer.convert_tokens_to_ids(model.end_token)
    for example, row in zip(chunk, encoded(model, tokenizer, chunk), strict=True):
        assert row.ids[-1] == end and row.ids.count(end) == 1 + (model.architecture == "llama")
        assert tokenizer.decode(row.ids[row.answer : -1]) == example.answer
        assert 0 < row.user < row.answer


def test_the_longest_out_of_scope_instruction_fits_with_its_refusal(made) -> None:
    model, tokenizer = made
    chunk = list(islice(examples(3, Split.TRAIN, "out_of_scope"), 400))
    lengths = [len(row.ids) for row in encoded(model, tokenizer, chunk)]
    assert CONTEXT_LENGTH / 2 < max(lengths) < CONTEXT_LENGTH


def test_tokens_of_the_requested_value_are_marked(made) -> None:
    model, tokenizer = made
    stream = examples(2, Split.TRAIN, "closed_qa")
    chunk = [next(stream) for _ in range(50)]
    for example, row in zip(chunk, encoded(model, tokenizer, chunk), strict=True):
        told = tokenizer.decode([row.ids[place] for place in row.values]).lower()
        assert all(any(text.lower() in told for text in choice) for choice in example.check.needs)
        assert row.values and min(row.values) >= row.answer


def test_the_learning_rate_warms_up_stays_and_decays() -> None:
    total = 1000
    assert rate_scale(Progress(1), total) < 0.05
    assert rate_scale(Progress(1, step=500, tokens=500), total) == 1.0
    late = Progress(1, step=900, tokens=int(total * (1 - COOLDOWN_SHARE / 2)))
    assert rate_scale(late, total) == pytest.approx(0.5, abs=0.02)


def test_the_learning_rate_warms_up_again_from_finished_weights() -> None:
    begun = {"step": 900, "tokens": 5000, "first_step": 900, "first_tokens": 5000}
    assert rate_scale(Progress(1, **begun), total=6000) < 0.05
    assert rate_scale(Progress(1, **{**begun, "step": 990, "tokens": 5100}), total=6000) == 1.0
    assert rate_scale(Progress(1, **{**begun, "step": 2000, "tokens": 6000}), total=6000) == 0.01


def test_training_continues_from_the_included_weights(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr(train, "CHECKPOINTS_DIR", tmp_path)
    model = EMBEDDED_MODELS["paddock-neox"]
    training = train.Training(model, seed=3, total=10**9, batch_tokens=512, from_weights=True)
    shipped = load_file(model.folder / "model.safetensors")
    for name, value in training.network.state_dict().items():
        assert torch.equal(value, shipped[name].float())
    before = training.progress.tokens
    training._step(next(iter(training._chunk())))
    assert training.progress.tokens > before == training.progress.first_tokens > 0
    training.save()
    again = train.Training(model, seed=3, total=10**9, batch_tokens=512)
    again.resume()
    assert again.progress == training.progress
    assert again.tokenizer.get_vocab() == training.tokenizer.get_vocab()


def test_orthogonalized_matrices_have_singular_values_near_one() -> None:
    stack = torch.randn(2, 24, 48, generator=torch.Generator().manual_seed(1))
    for values in torch.linalg.svdvals(orthogonalized(stack)):
        assert values.min() > 0.5 and values.max() < 1.5
