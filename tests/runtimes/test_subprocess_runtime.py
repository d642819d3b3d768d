"""Tests of models in subprocesses: the same answers, and the end of a process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from core.catalogue import Precision
from core.db import Origin
from core.errors import CorruptModelError, GenerationError
from core.inference.engine import Engine
from core.inference.request import GenerationRequest
from core.runtimes.base import InterruptedGeneration, LoadedModel, StampedId
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumModel
from core.runtimes.spec import ExecutionHints, ModelSpec, SamplingSettings, TokenRequest
from core.runtimes.subprocess_runtime import ProcessModel, SubprocessRuntime, _Outgoing
from core.settings import CHECKOUT, Settings
from core.store import resolve
from tests.runtimes.interrupting import interrupted
from tests.waiting import PATIENCE_S, eventually

EXACT = ExecutionHints(inference_precision="f32", kv_cache_precision="f32")
SPEC = ModelSpec("mine", Precision.FP32, "CPU", hints=EXACT)
GREEDY = SamplingSettings(max_new_tokens=12, greedy=True)
LONG = SamplingSettings(max_new_tokens=500, greedy=True)


@pytest.fixture(scope="module")
def stored_folder(engine: Engine, spec_of: Callable[..., ModelSpec]) -> Path:
    spec = spec_of("gpt_neox")
    found = engine.store.get(resolve(spec.model), spec.precision)
    assert found is not None
    return found.folder


@pytest.fixture(scope="module")
def model(stored_folder: Path) -> Iterator[ProcessModel]:
    loaded = SubprocessRuntime(at_once=3).load(stored_folder, SPEC)
    assert isinstance(loaded, ProcessModel)
    yield loaded
    loaded.close()


def ids_of(model: LoadedModel, request: TokenRequest) -> list[int]:
    ids: list[int] = []
    model.generate(request, lambda token_id: ids.append(token_id) or True)
    return ids


def children() -> set[int]:
    """Return the processes of models."""
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ended
            if "core.runtimes.subprocess_runtime" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


# Answers


def test_fast_tokens_are_sent_together_and_none_is_lost() -> None:
    events: list[dict] = []
    stamps = [1.0, 1.001, 1.002, 1.02, 1.021]
    channel = SimpleNamespace(say=lambda **event: events.append(event))
    answer = _Outgoing(channel, 4, TokenRequest((1,), GREEDY))
    for token_id, stamp_s in enumerate(stamps):
        assert answer.take(StampedId(token_id, stamp_s))
    assert [event["columns"][0] for event in events] == [(0,), (1, 2, 3)]
    answer.send()
    answer.send()
    assert [event["columns"][0] for event in events] == [(0,), (1, 2, 3), (4,)]
    assert [stamp for event in events for stamp in event["columns"][1]] == stamps
    assert {event["id"] for event in events} == {4}


def test_answers_and_conditions_equal_those_of_this_process(
    model: ProcessModel, stored_folder: Path
) -> None:
    here = GenAIRuntime(at_once=3).load(stored_folder, SPEC)
    seeded = SamplingSettings(max_new_tokens=12, temperature=1.5, seed=3)
    requests = [TokenRequest((5, 6, 7), GREEDY), TokenRequest((9, 8), seeded)]
    try:
        assert model.conditions == here.conditions
        assert (model.end_ids, model.positions, model.at_once) == (
            here.end_ids,
            here.positions,
            here.at_once,
        )
        for request in requests:
            assert ids_of(model, request) == ids_of(here, request)
    finally:
        here.close()


def test_concurrent_answers_are_independent(model: ProcessModel) -> None:
    requests = [TokenRequest((5 + place, 6), GREEDY) for place in range(3)]
    alone = [ids_of(model, request) for request in requests]
    found: list[list[int]] = [[] for _ in requests]

    def answer(place: int) -> None:
        found[place] = ids_of(model, requests[place])

    threads = [threading.Thread(target=answer, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == alone


def test_tokens_are_timestamped_in_the_subprocess(model: ProcessModel) -> None:
    stamps: list[float] = []
    arrivals: list[float] = []

    def take(token_id: int) -> bool:
        assert isinstance(token_id, StampedId)
        arrivals.append(time.perf_counter())
        stamps.append(token_id.stamp_s)
        return True

    began = time.perf_counter()
    model.generate(TokenRequest((5, 6, 7), GREEDY), take)
    assert stamps == sorted(stamps) and len(stamps) == GREEDY.max_new_tokens
    assert began < stamps[0]
    assert all(made <= came for made, came in zip(stamps, arrivals, strict=True))


def test_stop_id_ends_generation_and_is_included(model: ProcessModel) -> None:
    free = ids_of(model, TokenRequest((5, 6, 7), GREEDY))
    stop = free[4]
    ended = ids_of(model, TokenRequest((5, 6, 7), GREEDY, frozenset([stop])))
    assert ended == free[: free.index(stop) + 1]


def test_on_token_can_end_the_answer_or_raise(model: ProcessModel) -> None:
    taken: list[int] = []
    model.generate(
        TokenRequest((5, 6), LONG), lambda token_id: taken.append(token_id) or len(taken) < 3
    )
    assert len(taken) == 3

    def fail(token_id: int) -> bool:
        raise ValueError("not mine")

    with pytest.raises(ValueError, match="not mine"):
        model.generate(TokenRequest((5, 6), LONG), fail)
    assert len(ids_of(model, TokenRequest((5, 6), GREEDY))) == GREEDY.max_new_tokens


def test_interrupt_ends_only_the_prefill_of_that_request(model: ProcessModel) -> None:
    long = TokenRequest(tuple(range(5, 105)) * 75, GREEDY)
    other = TokenRequest((5, 6), LONG)
    begun, found = threading.Event(), []

    def answer() -> None:
        model.generate(other, lambda token_id: begun.set() or found.append(token_id) or True)

    other_thread = threading.Thread(target=answer)
    other_thread.start()
    assert begun.wait(PATIENCE_S)
    with interrupted(model, long), pytest.raises(InterruptedGeneration):
        model.generate(long, lambda token_id: True)
    other_thread.join(PATIENCE_S)
    assert len(found) == LONG.max_new_tokens
    model.interrupt(long)  # no effect after its end


def test_rejected_request_does_not_affect_the_model(model: ProcessModel) -> None:
    with pytest.raises(GenerationError, match=r"^Generation failed \("):
        ids_of(model, TokenRequest((), GREEDY))
    assert ids_of(model, TokenRequest((5,), GREEDY))


def test_memory_growth_is_that_of_the_subprocess(model: ProcessModel) -> None:
    grown = model.growth()
    assert grown.rss_bytes == grown.private_bytes + grown.file_backed_bytes > 2**20


def test_the_app_does_not_import_genai(stored_folder: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from core.catalogue import Precision\n"
        "from core.runtimes.subprocess_runtime import SubprocessRuntime\n"
        "from core.runtimes.spec import ModelSpec, SamplingSettings, TokenRequest\n"
        "runtime = SubprocessRuntime()\n"
        "spec = ModelSpec('m', Precision.FP32, 'CPU')\n"
        f"model = runtime.load(Path({str(stored_folder)!r}), spec)\n"
        "ids = []\n"
        "request = TokenRequest((5,), SamplingSettings(max_new_tokens=3, greedy=True))\n"
        "model.generate(request, lambda token: ids.append(token) or True)\n"
        "model.close()\n"
        "print(len(ids), 'openvino_genai' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "False"]


# Loading


def test_one_prepared_process_is_kept_and_used(stored_folder: Path) -> None:
    before, runtime = children(), SubprocessRuntime()
    runtime.prepare()
    runtime.prepare(stored_folder)
    (waiting,) = children() - before
    loaded = runtime.load(stored_folder, SPEC)
    assert children() - before == {waiting}
    loaded.close()
    assert not children() - before
    runtime.prepare()
    runtime.close()
    assert not children() - before


def test_damaged_files_raise_an_error_and_leave_no_process(
    stored_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stored_folder, tmp_path / "copy"))
    (folder / "openvino_model.xml").write_text("<net")
    before = children()
    with pytest.raises(CorruptModelError, match="cannot be loaded"):
        SubprocessRuntime().load(folder, SPEC)
    assert not children() - before


def test_model_that_genai_cannot_run_is_loaded_with_optimum(
    stored_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(stored_folder, tmp_path / "copy"))
    for path in folder.glob("openvino_*tokenizer*"):
        path.unlink()
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["pre_tokenizer"] = {"type": "CharDelimiterSplit", "delimiter": "-"}
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    before = children()
    loaded = SubprocessRuntime().load(folder, SPEC)
    assert isinstance(loaded, OptimumModel) and not children() - before
    assert loaded.conditions.runtime == "optimum"
    assert loaded.conditions.note is not None and "cannot be converted" in loaded.conditions.note
    assert len(ids_of(loaded, TokenRequest((5, 6), GREEDY))) == GREEDY.max_new_tokens
    loaded.close()


# The end of a process


def test_answers_of_a_killed_process_fail_with_an_error(stored_folder: Path) -> None:
    before = children()
    doomed = SubprocessRuntime().load(stored_folder, SPEC)
    assert isinstance(doomed, ProcessModel)
    (pid,) = children() - before

    def kill_after_three(token_id: int) -> bool:
        taken.append(token_id)
        if len(taken) == 3:
            psutil.Process(pid).kill()
        return True

    taken: list[int] = []
    with pytest.raises(GenerationError, match=r"process of the model ended .* Try again"):
        doomed.generate(TokenRequest((5, 6), SamplingSettings(8000, greedy=True)), kill_after_three)
    assert len(taken) >= 3
    assert not doomed.alive
    with pytest.raises(GenerationError, match="ended"):
        ids_of(doomed, TokenRequest((5,), GREEDY))
    with pytest.raises(GenerationError, match="ended"):
        doomed.growth()
    doomed.close()
    assert not children() - before


def test_next_answer_reloads_the_model_after_its_process_ended(
    spec_of: Callable[..., ModelSpec], engine: Engine, tmp_path: Path
) -> None:
    mine = Engine(Settings(home=engine.settings.home, memory_reserve_mib=0))
    request = GenerationRequest("Why?", sampling=GREEDY, prompt_format="dolly")
    handle = mine.handle(spec_of("gpt_neox"))
    before = children()

    def ask() -> str | None:
        job = mine.answer(handle, request, origin=Origin.API)
        assert job.wait(PATIENCE_S) and job.answer is not None
        return job.answer.error_sentence

    try:
        assert ask() is None
        (first,) = children() - before
        psutil.Process(first).kill()
        eventually(lambda: not mine.pool.is_loaded(handle.spec))
        assert mine.pool.loaded() == ()
        assert ask() is None
        (second,) = children() - before
        assert second != first
    finally:
        mine.close()
    eventually(lambda: not children() - before)


def test_subprocess_ends_when_the_app_is_killed(stored_folder: Path) -> None:
    script = (
        "import time\n"
        "from core.runtimes.subprocess_runtime import SubprocessRuntime\n"
        "runtime = SubprocessRuntime()\n"
        "runtime.prepare()\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    app = subprocess.Popen(
        [sys.executable, "-c", script], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert app.stdout is not None and app.stdout.readline() == "ready\n"
    (child,) = psutil.Process(app.pid).children()
    app.kill()
    app.wait()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
