"""End-to-end tests of answers of tiny models of every architecture with the real runtime."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.catalogue import CONVERTED_PRECISIONS, Precision
from core.catalogue.prompts import prompt_format
from core.inference.answer import Answer, StopReason
from core.inference.engine import Engine
from core.inference.job import Job, Phase
from core.inference.request import GenerationRequest
from core.runtimes.base import OnToken
from core.runtimes.optimum import OptimumModel
from core.runtimes.spec import ModelSpec, RuntimeName, SamplingSettings, TokenRequest
from core.runtimes.subprocess_runtime import ProcessModel
from core.store import resolve
from tests.builders import ARCHITECTURES, tiny_checkpoint
from tests.waiting import PATIENCE_S, eventually

QUESTION = "Where does the river go?"
LONG_CONTEXT = "The cat is playing in the garden and the dog sleeps near the warm stove. " * 250
"""Thousands of tokens, which take seconds of prefill with these models."""

SpecOf = Callable[..., ModelSpec]


@pytest.fixture
def ask(engine: Engine) -> Callable[..., Job]:
    """Return a function that starts an unrecorded answer in Dolly's format."""

    def start(spec: ModelSpec, *, timeout_s: float = PATIENCE_S, **more: object) -> Job:
        settings = {name: more.pop(name) for name in list(more) if name not in ("context",)}
        settings = {"greedy": "seed" not in settings} | settings
        request = GenerationRequest(
            QUESTION, sampling=SamplingSettings(**settings), prompt_format="dolly", **more
        )
        handle = engine.pool.handle(spec)
        return Job(handle, request, engine.scheduler, timeout_s=timeout_s).start()

    return start


def ended(job: Job) -> Answer:
    assert job.wait(PATIENCE_S)
    assert job.answer is not None
    assert job.answer.error is None, job.answer.error_sentence
    return job.answer


@pytest.fixture
def on_token_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Return a function that sets a callback after each token of the real runtime."""

    def install(then: Callable[[int], None]) -> None:
        for kind in (ProcessModel, OptimumModel):
            monkeypatch.setattr(kind, "generate", watched(kind.generate, then))

    def watched(generate: Callable[..., None], then: Callable[[int], None]) -> Callable[..., None]:
        def generate_watched(self: object, request: TokenRequest, on_token: OnToken) -> None:
            count = 0

            def counted(token_id: int) -> bool:
                nonlocal count
                count += 1
                go_on = on_token(token_id)
                then(count)
                return go_on

            generate(self, request, counted)

        return generate_watched

    return install


def by_transformers(folder: str, new_tokens: int) -> list[int]:
    """Return the greedy answer of the checkpoint in transformers, including a stop token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = tokenizer(prompt_format("dolly").render(QUESTION), return_tensors="pt")
    stops = [0, tokenizer.convert_tokens_to_ids("### End")]
    with torch.inference_mode():
        out = model.generate(
            prompt["input_ids"],
            attention_mask=prompt["attention_mask"],
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=0,
        )
    return out[0, prompt["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_equals_transformers_token_for_token(architecture: str, spec_of: SpecOf, ask):
    spec = spec_of(architecture)
    answer = ended(ask(spec, max_new_tokens=64))
    assert list(answer.token_ids) == by_transformers(spec.model, 64)
    assert len(set(answer.token_ids)) > 8  # the answer is not trivial
    assert answer.conditions.execution_precision == "f32"
    assert answer.conditions.kv_cache_precision == "f32"


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [
        *(("llama", precision) for precision in CONVERTED_PRECISIONS),
        *((other, Precision.INT4) for other in ARCHITECTURES if other != "llama"),
    ],
)
def test_every_precision_generates(architecture, precision, spec_of, engine, ask):
    spec = spec_of(architecture, precision)
    job = ask(spec, max_new_tokens=24, seed=5, temperature=1.5)
    answer = ended(job)
    tokenizer = AutoTokenizer.from_pretrained(spec.model)
    text = tokenizer.decode(answer.token_ids, skip_special_tokens=True)
    assert answer.text == text.strip() == "".join(job.read(0)[0]).strip()
    if answer.stop_reason is StopReason.LENGTH:
        assert len(answer.token_ids) == 24
    assert ended(ask(spec, max_new_tokens=24, seed=5, temperature=1.5)).token_ids == (
        answer.token_ids
    )
    assert answer.timings.ttft_ms > 0 and answer.timings.tpot_ms > 0
    assert len(answer.token_times_ms) == len(answer.token_ids)
    assert list(answer.token_times_ms) == sorted(answer.token_times_ms)
    assert answer.conditions.devices_used == ("CPU",)
    expected = {"fp16": None}.get(precision.value, "f32")
    assert expected is None or answer.conditions.execution_precision == expected
    assert answer.facts.load_s > 0
    engine.pool.unload(spec)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stop_marker_and_end_of_text_end_the_answer(architecture, spec_of, ask):
    spec = spec_of(architecture)
    marker = AutoTokenizer.from_pretrained(spec.model).convert_tokens_to_ids("### End")
    last_token = {StopReason.STOP_MARKER: marker, StopReason.END_OF_TEXT: 0}
    seen: set[StopReason] = set()
    for seed in range(60):  # at this temperature any token can be sampled
        answer = ended(ask(spec, max_new_tokens=400, temperature=5.0, top_p=1.0, seed=seed))
        assert not {0, marker} & set(answer.token_ids[:-1])
        if answer.stop_reason is not StopReason.LENGTH:
            assert answer.token_ids[-1] == last_token[answer.stop_reason]
            assert "### End" not in answer.text and "endoftext" not in answer.text
            seen.add(answer.stop_reason)
        if seen == set(last_token):
            return
    pytest.fail(f"only seen: {seen}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cancel_takes_effect_within_one_token(architecture, spec_of, ask, on_token_of):
    jobs: list[Job] = []
    started = threading.Event()

    def cancel_after_seven(count: int) -> None:
        assert started.wait(PATIENCE_S)
        if count == 7:
            jobs[0].cancel()

    spec = spec_of(architecture)
    whole = ended(ask(spec, max_new_tokens=20)).token_ids
    on_token_of(cancel_after_seven)
    jobs.append(ask(spec, max_new_tokens=20))
    started.set()
    answer = ended(jobs[0])
    assert answer.stop_reason is StopReason.CANCELLED
    assert answer.token_ids == whole[:8]
    jobs[0] = ask(spec, max_new_tokens=6)
    assert ended(jobs[0]).token_ids == whole[:6]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_model_stays_usable_after_cancel_during_prefill(architecture, spec_of, ask):
    spec = spec_of(architecture)
    before = ended(ask(spec, max_new_tokens=16))

    def cancelled() -> Answer | None:  # on a busy machine it may come after the prefill
        job = ask(spec, max_new_tokens=16, context=LONG_CONTEXT)
        eventually(lambda: job.snapshot().phase is not Phase.PREPARING)
        time.sleep(0.05)
        job.cancel()
        return answer if not (answer := ended(job)).token_ids else None

    answer = eventually(cancelled, "cancelled during the prefill")
    assert answer.stop_reason is StopReason.CANCELLED and answer.text == ""
    assert answer.timings.prompt_tokens > 4000
    assert ended(ask(spec, max_new_tokens=16)).token_ids == before.token_ids


def test_timeout_during_prefill(spec_of: SpecOf, ask):
    spec = spec_of("llama")
    before = ended(ask(spec, max_new_tokens=8))

    def timed_out() -> bool:  # on a busy machine the prefill may end before
        answer = ended(ask(spec, max_new_tokens=8, context=LONG_CONTEXT, timeout_s=0.1))
        return answer.stop_reason is StopReason.TIMEOUT and answer.token_ids == ()

    eventually(timed_out, "a timeout during the prefill")
    assert ended(ask(spec, max_new_tokens=8)).token_ids == before.token_ids


def test_timeout_during_generation(spec_of: SpecOf, ask, on_token_of):
    spec = spec_of("llama")
    ended(ask(spec, max_new_tokens=2))
    on_token_of(lambda count: time.sleep(0.02))

    def timed_out() -> bool:  # on a busy machine it may come before the second token
        answer = ended(ask(spec, max_new_tokens=1000, timeout_s=0.5))
        assert answer.stop_reason is StopReason.TIMEOUT
        return 1 < len(answer.token_ids) < 100

    eventually(timed_out, "a timeout after some tokens")


def test_cancel_while_queued(spec_of: SpecOf, ask, on_token_of):
    spec, go_on = replace(spec_of("gpt_neox"), runtime=RuntimeName.OPTIMUM), threading.Event()
    ended(ask(spec, max_new_tokens=2))
    on_token_of(lambda count: go_on.wait(PATIENCE_S))
    first = ask(spec, max_new_tokens=4)
    while first.snapshot().new_tokens < 1:
        time.sleep(0.002)
    second = ask(spec, max_new_tokens=4)
    while second.snapshot().place != 1:
        time.sleep(0.002)
    second.cancel()
    assert ended(second).stop_reason is StopReason.CANCELLED
    go_on.set()
    assert len(ended(first).token_ids) == 4


def test_a_seed_reproduces_while_another_model_samples(spec_of: SpecOf, ask, on_token_of):
    one, other = spec_of("llama"), spec_of("phi")
    alone = ended(ask(one, max_new_tokens=120, seed=11, temperature=1.0))
    assert not alone.contended
    assert ended(ask(one, max_new_tokens=120, seed=12, temperature=1.0)).token_ids != (
        alone.token_ids
    )
    ended(ask(other, max_new_tokens=2))
    meeting = threading.Barrier(2)
    on_token_of(lambda count: meeting.wait(PATIENCE_S) if count == 1 else None)
    jobs = [
        (ask(one, max_new_tokens=120, seed=11, temperature=1.0),
         ask(other, max_new_tokens=120, seed=11, temperature=1.0))
        for _ in range(4)
    ]  # fmt: skip
    answers = [ended(job) for job, _ in jobs]
    others = [ended(job) for _, job in jobs]
    assert {answer.token_ids for answer in answers} == {alone.token_ids}
    assert len({answer.token_ids for answer in others}) == 1
    assert all(answer.contended for answer in answers)


def test_concurrent_answers_of_two_models_are_contended(spec_of: SpecOf, ask, on_token_of):
    one, other = spec_of("llama"), spec_of("mistral")
    alone = [ended(ask(spec, max_new_tokens=12)) for spec in (one, other)]
    assert [answer.contended for answer in alone] == [False, False]
    meeting = threading.Barrier(2)
    on_token_of(lambda count: meeting.wait(PATIENCE_S) if count == 3 else None)
    jobs = [ask(spec, max_new_tokens=12) for spec in (one, other)]
    answers = [ended(job) for job in jobs]
    assert [answer.contended for answer in answers] == [True, True]
    assert [a.token_ids for a in answers] == [a.token_ids for a in alone]


def test_many_concurrent_answers_of_one_model_are_correct(spec_of: SpecOf, ask):
    spec = spec_of("gpt_neox")
    expected = ended(ask(spec, max_new_tokens=24)).token_ids
    jobs = [ask(spec, max_new_tokens=24) for _ in range(8)]
    assert {ended(job).token_ids for job in jobs} == {expected}


def test_sampling_settings_are_applied(spec_of: SpecOf, ask):
    spec = spec_of("mistral")
    greedy = ended(ask(spec, max_new_tokens=16)).token_ids
    for only_one in ({"top_k": 1}, {"top_p": 0.05}, {"temperature": 0.1, "top_k": 1}):
        assert ended(ask(spec, max_new_tokens=16, seed=3, **only_one)).token_ids == greedy
    free = ended(ask(spec, max_new_tokens=16, seed=3, temperature=5.0, top_p=1.0)).token_ids
    assert free != greedy


def test_repetition_penalty_is_applied(spec_of: SpecOf, ask):
    spec = spec_of("llama")
    plain = ended(ask(spec, max_new_tokens=64)).token_ids
    varied = ended(ask(spec, max_new_tokens=64, repetition_penalty=2.0)).token_ids
    assert len(set(varied)) / len(varied) > len(set(plain)) / len(plain)


def test_sampling_defaults_of_the_checkpoint_are_ignored(spec_of: SpecOf, engine, ask):
    """A generation configuration with a low temperature must have no effect."""
    spec = spec_of("phi")
    expected = ended(ask(spec, max_new_tokens=16)).token_ids
    engine.pool.unload(spec)
    stored = next(s for s in engine.store.list() if str(s.manifest.source.location) == spec.model)
    config = stored.folder / "generation_config.json"
    original = config.read_bytes()
    own = {"do_sample": True, "top_k": 3, "suppress_tokens": [expected[0], expected[1]]}
    config.write_text(json.dumps(json.loads(original) | own), encoding="utf-8")
    try:
        model = engine.pool._runtimes[spec.runtime].load(stored.folder, spec)
        ids = []
        text = prompt_format("dolly").render(QUESTION)
        request = TokenRequest(
            tuple(model.tokenizer(text)["input_ids"]),
            SamplingSettings(max_new_tokens=16, greedy=True),
            frozenset({0}),
        )
        model.generate(request, lambda token_id: ids.append(token_id) or True)
        model.close()
    finally:
        config.write_bytes(original)
    assert tuple(ids) == expected


def test_chat_template_is_tokenized_without_a_second_bos_token(spec_of, engine):
    spec = spec_of("llama", with_chat_template=True)
    request = GenerationRequest("Why?", sampling=SamplingSettings(max_new_tokens=4, greedy=True))
    job = Job(engine.pool.handle(spec), request, engine.scheduler, timeout_s=PATIENCE_S).start()
    answer = ended(job)
    tokenizer = AutoTokenizer.from_pretrained(spec.model)
    text = "<|user|>\nWhy?<|endoftext|>\n<|assistant|>\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert answer.prompt_format == "chat"
    assert answer.timings.prompt_tokens == len(ids)


def test_model_without_template_requires_a_prompt_format(spec_of: SpecOf, engine: Engine):
    handle = engine.pool.handle(spec_of("llama"))
    job = Job(handle, GenerationRequest("Why?"), engine.scheduler, timeout_s=PATIENCE_S).start()
    assert job.wait(PATIENCE_S)
    assert "choose a prompt format" in job.answer.error_sentence
    assert job.answer.stop_reason is StopReason.ERROR


def test_real_model_without_marker_token_stops_at_the_text(tmp_path: Path, engine: Engine):
    folder = says_a_marker_of_two_tokens(tmp_path / "says-end")
    engine.store.ensure(resolve(str(folder)), Precision.FP32)
    request = GenerationRequest(
        "Why?", sampling=SamplingSettings(max_new_tokens=64, greedy=True), prompt_format="dolly"
    )
    spec = ModelSpec(str(folder), Precision.FP32, "CPU")
    job = Job(engine.pool.handle(spec), request, engine.scheduler, timeout_s=PATIENCE_S).start()
    answer = ended(job)
    assert answer.stop_reason is StopReason.STOP_MARKER
    assert answer.text == "Hello" == "".join(job.read(0)[0])
    assert len(answer.token_ids) == 3
    engine.pool.unload(spec)


def says_a_marker_of_two_tokens(folder: Path) -> Path:
    """Write a checkpoint that answers "Hello### End" to any prompt that ends in a newline.

    Attention and feed-forward parts add nothing, and the output head maps each token's embedding
    onto the token that is to follow it.
    """
    pieces = ("Hello", "###", " End")
    tiny_checkpoint("llama", folder, special_tokens=pieces, hidden=128, positions=2048)
    description = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for token in description["added_tokens"]:
        token["special"] = token["content"] not in pieces
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings["extra_special_tokens"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chain = [tokenizer("\n")["input_ids"][0], *tokenizer.convert_tokens_to_ids(list(pieces)), 0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.zero_()
        embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
        embeddings.normal_(generator=torch.Generator().manual_seed(0))
        head.zero_()
        for token_id, following in itertools.pairwise(chain):
            head[following] = embeddings[token_id]
    model.save_pretrained(folder)
    return folder
