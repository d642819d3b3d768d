"""Tests of the end of an answer: end-of-text ids, and the end of the model's turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.catalogue import Precision
from core.inference.answer import StopReason
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.runtimes.tokenizer import load_tokenizer
from core.settings import Settings
from core.store import ModelStore, resolve
from tests.builders import edit_json, tiny_checkpoint, tiny_tokenizer
from tests.fakes import FakeHandle, FakeModel
from tests.waiting import PATIENCE_S

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SAID = "Rain.<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>\n"
"""Output of a model that continues as the user if its turn is not ended."""


@pytest.mark.parametrize(
    "named",
    [True, False],
    ids=["in the configuration", "in the template only"],
)
def test_end_of_turn_token_ends_the_answer(named: bool, tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path, special_tokens=("<|im_start|>", "<|im_end|>"), chat_template=CHATML)
    tokenizer = load_tokenizer(tmp_path)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = tokenizer(SAID, add_special_tokens=False)["input_ids"]
    model = FakeModel(tokenizer, lambda request: ids, end_ids=[0, end] if named else [0])
    sampling = SamplingSettings(max_new_tokens=len(ids), greedy=True)
    handle = FakeHandle(model, key="not-in-the-catalogue")
    request = GenerationRequest("Why?", sampling=sampling)
    job = Job(handle, request, handle.scheduler, timeout_s=PATIENCE_S).start()
    assert job.wait(PATIENCE_S) and job.answer is not None and job.answer.error is None
    assert job.answer.text == "Rain."
    assert job.answer.stop_reason in (StopReason.END_OF_TEXT, StopReason.STOP_MARKER)


@pytest.mark.parametrize(
    ("user", "assistant", "said"),
    [
        ("### Instruction:\nX\n\n", "### Response:\nX\n\n", "Rain.\n\n### Instruction:\nAnd?"),
        ("### Human: X", "### Assistant: X", "Rain.### Human: And?"),
        ("USER: X ", "ASSISTANT: X ", "Rain. USER: And?"),
        ("user: X\n", "assistant: X\n", "Rain.\nuser: And?"),
        ("<| user |>X<| end |>", "<| bot |>X<| end |>", "Rain.<| end |><| user |>And?"),
    ],
)
def test_turn_end_without_a_token_ends_the_answer(
    user: str, assistant: str, said: str, tmp_path: Path
) -> None:
    def written(turn: str) -> str:
        return "{{ '" + turn.replace("\n", "\\n").replace("X", "' + m['content'] + '") + "' }}"

    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}" + written(user) + "{% else %}"
        f"{written(assistant)}{{% endif %}}{{% endfor %}}"
    )
    tiny_tokenizer(tmp_path, special_tokens=(), chat_template=template)
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    handle = FakeHandle(FakeModel(tokenizer, lambda request: ids, end_ids=[0]), key="unlisted")
    sampling = SamplingSettings(max_new_tokens=len(ids), greedy=True)
    request = GenerationRequest("Why?", sampling=sampling)
    job = Job(handle, request, handle.scheduler, timeout_s=PATIENCE_S).start()
    assert job.wait(PATIENCE_S) and job.answer is not None
    assert (job.answer.text.rstrip(), job.answer.stop_reason) == ("Rain.", StopReason.STOP_MARKER)


@pytest.mark.parametrize(
    ("generation_config", "config"),
    [({"eos_token_id": [0, 77]}, {}), (None, {"eos_token_id": [0, 77]})],
    ids=["generation_config.json", "config.json only"],
)
def test_conversion_keeps_several_end_of_text_ids(
    generation_config: dict[str, Any] | None, config: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "llama")
    edit_json(folder / "config.json", **config)
    if generation_config is None:
        (folder / "generation_config.json").unlink()
    else:
        edit_json(folder / "generation_config.json", **generation_config)
    store = ModelStore(Settings(home=tmp_path / "home"))
    stored = store.ensure(resolve(str(folder)), Precision.FP32)
    for runtime in (GenAIRuntime(), OptimumRuntime()):
        runtime.prepare(stored.folder)
        model = runtime.load(stored.folder, ModelSpec("mine", Precision.FP32, "CPU"))
        try:
            assert model.end_ids == {0, 77}
        finally:
            model.close()
