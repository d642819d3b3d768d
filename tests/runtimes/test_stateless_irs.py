"""Tests of OpenVINO models without a state, which Optimum can run and GenAI cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.errors import PaddockError
from core.inference.engine import Engine
from core.store import resolve
from core.store.convert import load_tokenizer, write_openvino_tokenizer
from core.store.library_env import disable_telemetry
from tests.builders import tiny_checkpoint
from tests.in_process import converted, engine_in_process, greedy_answer

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = engine_in_process(tmp_path_factory.mktemp("home"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint("llama", tmp_path_factory.mktemp("checkpoint") / "llama")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that exports the checkpoint with options of Optimum."""

    def make(**options: bool) -> Path:
        disable_telemetry()
        from optimum.intel import OVModelForCausalLM

        folder = tmp_path_factory.mktemp("ir")
        model = OVModelForCausalLM.from_pretrained(
            checkpoint, export=True, compile=False, load_in_8bit=False, **options
        )
        model.save_pretrained(folder)
        tokenizer = load_tokenizer(checkpoint)
        tokenizer.save_pretrained(folder)
        write_openvino_tokenizer(tokenizer, folder)
        return folder

    return make


@pytest.fixture(scope="module")
def past_as_inputs(exported: Callable[..., Path]) -> Path:
    return exported(stateful=False)


@pytest.fixture(scope="module")
def without_past(exported: Callable[..., Path]) -> Path:
    return exported(stateful=False, use_cache=False)


@pytest.mark.parametrize(
    "runtime",
    [
        "optimum",
        "genai",
    ],
)
def test_optimum_runs_an_ir_whose_kv_cache_is_an_input(
    runtime: str, past_as_inputs: Path, checkpoint: Path, engine: Engine
) -> None:
    wanted = greedy_answer(
        engine, converted(engine, checkpoint), runtime="optimum", prompt_format="plain"
    )
    folder = converted(engine, past_as_inputs)
    answer = greedy_answer(engine, folder, runtime=runtime, prompt_format="plain")
    assert answer.error is None, answer.error_sentence
    assert answer.token_ids == wanted.token_ids
    if runtime == "genai":
        assert answer.conditions.runtime == "optimum"
        assert "Optimum" in answer.conditions.note


@pytest.mark.parametrize(
    ("runtime", "wrong_advice"),
    [
        ("genai", "Choose another device"),
        ("optimum", "convert the model again"),
    ],
)
def test_error_for_an_ir_without_kv_cache_states_the_cause(
    runtime: str, wrong_advice: str, without_past: Path, engine: Engine
) -> None:
    try:
        engine.store.ensure(resolve(str(without_past)), Precision.FP32)
    except PaddockError as error:
        message = str(error)
    else:
        answer = greedy_answer(engine, without_past, runtime=runtime, prompt_format="plain")
        assert answer.error is not None
        message = str(answer.error)
    assert "cache" in message or "stateful" in message
    assert wrong_advice not in message
