"""Tests of the GenAI runtime: answers, concurrency, and the fallback to Optimum."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.errors import (
    BadRequestError,
    CorruptModelError,
    GenerationError,
    NotEnoughMemoryError,
)
from core.inference.engine import Engine
from core.runtimes import genai
from core.runtimes.base import InterruptedGeneration, LoadedModel, StampedId
from core.runtimes.genai import GenAIModel, GenAIRuntime
from core.runtimes.optimum import OptimumModel, OptimumRuntime
from core.runtimes.spec import (
    ExecutionHints,
    GenAIOptions,
    ModelSpec,
    SamplingSettings,
    Structure,
    TokenRequest,
)
from core.store import resolve
from tests.runtimes.interrupting import interrupted
from tests.waiting import PATIENCE_S

EXACT = ExecutionHints(inference_precision="f32", kv_cache_precision="f32")
GREEDY = SamplingSettings(max_new_tokens=12, greedy=True)


@pytest.fixture(scope="module")
def stored_folder(engine: Engine, spec_of) -> Path:
    spec = spec_of("gpt_neox")
    found = engine.store.get(resolve(spec.model), spec.precision)
    assert found is not None
    return found.folder


@pytest.fixture(scope="module")
def model(stored_folder: Path):
    spec = ModelSpec("mine", Precision.FP32, "CPU", hints=EXACT)
    loaded = GenAIRuntime(at_once=3).load(stored_folder, spec)
    yield loaded
    loaded.close()


@pytest.fixture
def folder(stored_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test can damage."""
    return Path(shutil.copytree(stored_folder, tmp_path / "copy"))


def ids_of(model: LoadedModel, request: TokenRequest) -> list[int]:
    ids: list[int] = []
    model.generate(request, lambda token_id: ids.append(token_id) or True)
    return ids


def all_at_once(model: LoadedModel, requests: list[TokenRequest]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in requests]
    together = threading.Barrier(len(requests))

    def answer(place: int) -> None:
        together.wait(PATIENCE_S)
        found[place] = ids_of(model, requests[place])

    threads = [threading.Thread(target=answer, args=(place,)) for place in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return found


def test_gpu_selected_by_auto_keeps_its_default_precision(
    stored_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[str, dict]] = []

    class Compiled(Exception):
        pass

    def pipeline(folder: Path, own: object, device: str, properties: dict, *rest: object) -> None:
        compiled.append((device, properties))
        raise Compiled

    monkeypatch.setattr(genai, "_pipeline", pipeline)
    for chosen in ("GPU", "CPU"):
        monkeypatch.setattr(genai, "auto_devices", lambda chosen=chosen: [chosen])
        with pytest.raises(Compiled):
            GenAIRuntime().load(stored_folder, ModelSpec("mine", Precision.INT8, "AUTO"))
    assert compiled == [
        ("GPU", {"PERFORMANCE_HINT": "LATENCY"}),
        ("CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}),
    ]


def test_answers_equal_those_of_optimum(model: GenAIModel, stored_folder: Path):
    other = OptimumRuntime().load(
        stored_folder, ModelSpec("mine", Precision.FP32, "CPU", hints=EXACT)
    )
    try:
        for prompt in [(5,), (5, 6, 7), tuple(range(3, 300))]:
            request = TokenRequest(prompt, GREEDY)
            assert ids_of(model, request) == ids_of(other, request)
        assert (model.end_ids, model.positions) == (other.end_ids, other.positions)
        assert model.conditions.devices_used == other.conditions.devices_used
        assert model.conditions.threads == other.conditions.threads
    finally:
        other.close()


def test_conditions_are_read_from_the_plugin(model: GenAIModel):
    conditions = model.conditions
    assert (conditions.execution_precision, conditions.kv_cache_precision) == ("f32", "f32")
    assert conditions.hints["KV_CACHE_PRECISION"] == "f32"
    assert (conditions.runtime, conditions.note) == (None, None)


def test_free_memory_limits_concurrent_answers(stored_folder: Path, monkeypatch):
    spec = ModelSpec("mine", Precision.FP32, "CPU", hints=EXACT)
    with monkeypatch.context() as patch:
        patch.setattr("core.runtimes.genai.available_memory_bytes", lambda: 0)
        without_memory = GenAIRuntime(at_once=3).load(stored_folder, spec)
        without_memory.close()
    assert without_memory.at_once == 1
    with_memory = GenAIRuntime(at_once=3).load(stored_folder, spec)
    with_memory.close()
    assert with_memory.at_once == 3


def test_seed_reproduces_an_answer_alone_and_in_a_batch(model: GenAIModel):
    def request(seed: int) -> TokenRequest:
        sampling = SamplingSettings(max_new_tokens=16, temperature=2.0, top_p=0.95, seed=seed)
        return TokenRequest((5, 6, 7), sampling)

    alone = ids_of(model, request(7))
    assert ids_of(model, request(7)) == alone
    assert ids_of(model, request(8)) != alone
    batched = all_at_once(model, [request(8), request(7), request(9)])
    assert batched[1] == alone


def test_every_sampling_setting_has_an_effect(model: GenAIModel):
    def answer(**settings) -> list[int]:
        sampling = SamplingSettings(
            max_new_tokens=24, **({"temperature": 3.0, "seed": 3} | settings)
        )
        return ids_of(model, TokenRequest((5, 6, 7), sampling))

    greedy = answer(greedy=True)
    assert answer() != greedy
    assert answer(top_k=1) == greedy
    assert answer(top_p=0.05) != answer()
    assert answer(temperature=0.1) != answer()
    penalised = answer(greedy=True, repetition_penalty=2.0)
    assert len(set(penalised)) > len(set(greedy)) or penalised != greedy


def test_every_option_has_an_effect(model: GenAIModel):
    prompt = (5, 6, 7)

    def answer(seed: int | None = None, **options) -> list[int]:
        sampling = SamplingSettings(
            max_new_tokens=40, temperature=3.0, greedy=seed is None, seed=seed
        )
        stop_ids = frozenset(options.get("stop_token_ids", ()))
        request = TokenRequest(prompt, sampling, stop_ids, GenAIOptions(**options))
        return ids_of(model, request)

    greedy, sampled = answer(), answer(seed=3)
    assert answer(seed=3, min_p=0.9) != sampled
    assert answer(seed=3, min_p=1.0) == answer(seed=4, min_p=1.0), "the likeliest token is left"
    repeated = len(greedy) - len(set(greedy))
    assert repeated > 2
    for name in ("presence_penalty", "frequency_penalty"):
        penalised = answer(**{name: 2.0})
        assert len(penalised) - len(set(penalised)) < repeated
    first = greedy[0]
    assert answer(stop_token_ids=(first,)) == [first]
    later = answer(stop_token_ids=(first,), min_tokens=5)
    assert first not in later[:5] and len(later) >= 5


def test_log_probabilities_are_those_of_the_chosen_tokens(model: GenAIModel):
    found: list[StampedId] = []
    sampling = SamplingSettings(max_new_tokens=6, temperature=5.0, seed=1)
    request = TokenRequest((5, 6, 7), sampling, options=GenAIOptions(logprobs=True))
    model.generate(request, lambda token_id: found.append(token_id) or True)
    plain = ids_of(model, replace(request, options=GenAIOptions()))
    assert found == plain
    whole = model.log_probabilities((5, 6, 7, *plain))
    assert [each.log_probability for each in found] == pytest.approx(whole[2:], abs=1e-3)


STRUCTURES = {
    "json_schema": (
        '{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": '
        '["a"], "additionalProperties": false}',
        r'\{\s*"a"\s*:\s*(true|false)\s*\}',
    ),
    "regex": ("[a-c]{3}", "[a-c]{3}"),
    "grammar": ('root ::= "left" | "right"', "left|right"),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_answers_match_their_structure(model: GenAIModel, kind: str):
    text, expected = STRUCTURES[kind]
    options = GenAIOptions(structure=Structure(kind, text, "field"))
    for seed in range(5):
        sampling = SamplingSettings(max_new_tokens=60, temperature=2.0, seed=seed)
        ids = ids_of(model, TokenRequest((5, 6, 7), sampling, model.end_ids, options))
        if ids[-1] in model.end_ids:
            assert re.fullmatch(expected, model.tokenizer.decode(ids, skip_special_tokens=True))
        else:
            assert kind == "json_schema" and len(ids) == 60  # white space up to the limit


def test_unusable_structure_is_an_error_and_other_answers_continue(model: GenAIModel):
    options = GenAIOptions(structure=Structure("regex", "(a", "guided_regex"))
    long = TokenRequest((5, 6, 7), replace(GREEDY, max_new_tokens=200))
    expected = ids_of(model, long)
    others: list[list[int]] = []
    began = threading.Event()

    def other() -> None:
        ids: list[int] = []
        model.generate(long, lambda token_id: (ids.append(token_id), began.set()) and True)
        others.append(ids)

    thread = threading.Thread(target=other)
    thread.start()
    assert began.wait(PATIENCE_S)
    for _ in range(2):
        with pytest.raises(BadRequestError, match="parenthesis is not closed"):
            ids_of(model, TokenRequest((5, 6), GREEDY, options=options))
    thread.join(PATIENCE_S)
    assert others == [expected] and ids_of(model, long) == expected


def test_concurrent_answers_are_independent(model: GenAIModel):
    requests = [TokenRequest((place, place + 1, 9), GREEDY) for place in range(5, 8)]
    alone = [ids_of(model, request) for request in requests]
    assert len({tuple(ids) for ids in alone}) == 3
    assert all_at_once(model, requests) == alone


def test_stop_id_ends_generation_and_is_included(model: GenAIModel):
    free = ids_of(model, TokenRequest((5, 6, 7), GREEDY))
    stop = free[4]
    for stops in ({stop}, {stop, *model.end_ids}):
        stopped = ids_of(model, TokenRequest((5, 6, 7), GREEDY, frozenset(stops)))
        assert stopped == free[: free.index(stop) + 1]


def test_end_of_text_token_is_ignored_unless_requested(folder: Path):
    settings = folder / "generation_config.json"
    spec = ModelSpec("mine", Precision.FP32, "CPU", hints=EXACT)
    free = GenAIRuntime().load(folder, spec)
    ids = ids_of(free, TokenRequest((5, 6, 7), GREEDY))
    free.close()
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": ids[2]}))
    ending = GenAIRuntime().load(folder, spec)
    assert ending.end_ids == {ids[2]}
    assert ids_of(ending, TokenRequest((5, 6, 7), GREEDY)) == ids
    ending.close()


def test_on_token_can_end_the_answer_or_raise(model: GenAIModel):
    ids: list[int] = []
    sampling = SamplingSettings(max_new_tokens=200, greedy=True)
    model.generate(
        TokenRequest((5, 6, 7), sampling), lambda token_id: ids.append(token_id) or len(ids) < 3
    )
    assert len(ids) == 3

    def fail(token_id: int) -> bool:
        raise KeyError(token_id)

    neighbour: list[list[int]] = []
    request = TokenRequest((5, 6, 7), sampling)
    thread = threading.Thread(target=lambda: neighbour.append(ids_of(model, request)))
    thread.start()
    with pytest.raises(KeyError):
        model.generate(TokenRequest((5,), GREEDY), fail)
    thread.join(PATIENCE_S)
    assert len(neighbour[0]) == 200


def test_interrupt_ends_only_the_prefill_of_that_request(model: GenAIModel):
    short = TokenRequest((5, 6, 7), GREEDY)
    before = ids_of(model, short)
    long = TokenRequest((5, 6, 7) * 2600, GREEDY)
    twin = TokenRequest((5, 6, 7), SamplingSettings(max_new_tokens=40, greedy=True))
    neighbour: list[list[int]] = []
    thread = threading.Thread(target=lambda: neighbour.append(ids_of(model, twin)))
    thread.start()
    with interrupted(model, long), pytest.raises(InterruptedGeneration):
        ids_of(model, long)
    thread.join(PATIENCE_S)
    assert len(neighbour[0]) == 40
    assert ids_of(model, short) == before


def test_long_prompt_does_not_block_other_answers(model: GenAIModel):
    stamps: list[float] = []
    first_of_long: list[float] = []
    sampling = SamplingSettings(max_new_tokens=5000, greedy=True)

    def talk() -> None:  # until the other answer has begun
        model.generate(
            TokenRequest((5, 6, 7), sampling),
            lambda _: stamps.append(time.monotonic()) or not first_of_long,
        )

    thread = threading.Thread(target=talk)
    thread.start()
    while len(stamps) < 5:
        time.sleep(0.001)
    began = time.monotonic()
    model.generate(
        TokenRequest((5, 6, 7) * 1300, SamplingSettings(max_new_tokens=1, greedy=True)),
        lambda _: first_of_long.append(time.monotonic()) or True,
    )
    thread.join(PATIENCE_S)
    meanwhile = [stamp for stamp in stamps if began < stamp < first_of_long[0]]
    assert len(meanwhile) > 8, "3,900 prompt tokens are processed in 16 chunks"


def test_interrupt_of_an_idle_model_does_nothing(model: GenAIModel):
    model.interrupt(TokenRequest((5,), GREEDY))
    assert len(ids_of(model, TokenRequest((5,), GREEDY))) == 12


def test_rejected_request_does_not_affect_the_model(model: GenAIModel):
    with pytest.raises(GenerationError) as failure:
        ids_of(model, TokenRequest((), GREEDY))
    assert "\n" not in str(failure.value)
    assert len(ids_of(model, TokenRequest((5,), GREEDY))) == 12


def test_log_probabilities_match_the_logits(model: GenAIModel, stored_folder: Path):
    import numpy as np

    other = OptimumRuntime().load(
        stored_folder, ModelSpec("mine", Precision.FP32, "CPU", hints=EXACT)
    )
    ids = list(range(3, 40)) * 8  # more than one piece of the prompt
    logits = other.scores(ids).astype(np.float64)
    other.close()
    chosen = logits[np.arange(len(ids) - 1), ids[1:]]
    expected = chosen - np.log(np.exp(logits[:-1]).sum(axis=-1))
    assert model.log_probabilities(ids) == pytest.approx(list(expected), abs=1e-3)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights cut off": lambda folder: cut(folder / "openvino_model.bin", 0.5),
    "network cut off": lambda folder: cut(folder / "openvino_model.xml", 0.5),
    "tokenizer damaged": lambda folder: cut(folder / "tokenizer.json", 0.5),
    "configuration damaged": lambda folder: (folder / "config.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_files_raise_a_one_line_error(damage, folder: Path):
    damage(folder)
    with pytest.raises(CorruptModelError) as failure:
        GenAIRuntime().load(folder, ModelSpec("mine", Precision.FP32, "CPU"))
    assert "\n" not in str(failure.value) and len(str(failure.value)) < 400


def test_missing_openvino_tokenizer_is_converted_when_loading(folder: Path):
    for path in folder.glob("openvino_*tokenizer*"):
        path.unlink()
    before = sorted(path.name for path in folder.iterdir())
    loaded = GenAIRuntime().load(folder, ModelSpec("mine", Precision.FP32, "CPU"))
    assert isinstance(loaded, GenAIModel)
    assert len(ids_of(loaded, TokenRequest((5, 6), GREEDY))) == 12
    loaded.close()
    assert sorted(path.name for path in folder.iterdir()) == before, "stored files unchanged"


def test_model_with_unconvertible_tokenizer_runs_on_optimum(folder, monkeypatch):
    for path in folder.glob("openvino_*tokenizer*"):
        path.unlink()

    def refuse(*args, **options):
        raise RuntimeError("this tokenizer is of no known kind")

    monkeypatch.setattr("openvino_tokenizers.convert_tokenizer", refuse)
    loaded = GenAIRuntime().load(folder, ModelSpec("mine", Precision.FP32, "CPU"))
    assert isinstance(loaded, OptimumModel)
    assert loaded.conditions.runtime == "optimum"
    assert "cannot be converted" in loaded.conditions.note
    assert len(ids_of(loaded, TokenRequest((5, 6), GREEDY))) == 12
    loaded.close()


def test_answer_without_memory_for_its_kv_cache_is_an_error(
    stored_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino_genai

    def two_blocks() -> openvino_genai.SchedulerConfig:
        made = SchedulerConfig()
        made.num_kv_blocks = 2
        return made

    SchedulerConfig = openvino_genai.SchedulerConfig
    monkeypatch.setattr(openvino_genai, "SchedulerConfig", two_blocks)
    model = GenAIRuntime(at_once=1).load(stored_folder, ModelSpec("mine", Precision.FP32, "CPU"))
    try:
        request = TokenRequest((5, 6, 7) * 40, SamplingSettings(max_new_tokens=50, greedy=True))
        with pytest.raises(NotEnoughMemoryError, match="KV cache is used up"):
            ids_of(model, request)
        assert ids_of(model, TokenRequest((5, 6, 7), GREEDY)), "the model stays usable"
    finally:
        model.close()
