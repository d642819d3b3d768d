"""Conversion in a child process: result, cancellation, and two processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from core.catalogue import Int4Settings, Precision
from core.errors import (
    ConversionError,
    GatedModelError,
    HubError,
    NotAModelError,
    StoppedError,
    UnknownModelError,
    UserError,
)
from core.settings import CHECKOUT, Settings
from core.store import (
    ModelStore,
    Progress,
    Source,
    Stage,
    convert_in_process,
    fetch_in_process,
    resolve,
    subprocesses,
)
from core.store.files import folder_bytes
from core.store.hub import COMPLETE_MARK, HubAccess, completed
from core.workers import process
from tests.builders import tiny_checkpoint
from tests.store.conftest import conversion_children
from tests.store.hub_server import Hub
from tests.waiting import PATIENCE_S

INT8 = Precision.INT8
SECRET = "hf_verySecretToken"


@pytest.fixture
def source(checkpoint_of: Callable[[str], Path]) -> Source:
    """A tiny Llama checkpoint."""
    return resolve(str(checkpoint_of("llama")))


def nothing_looks_finished(settings: Settings) -> bool:
    """Return whether the store has neither a model nor a work folder."""
    folders = [path for path in settings.models_dir.rglob("*") if path.is_dir()]
    return [path.name for path in folders] == [".work"]


@pytest.fixture
def hub(checkpoint_of: Callable[[str], Path]) -> Iterator[Hub]:
    """A hub with the public org/model, and org/private for the token :data:`SECRET`."""
    with Hub() as server:
        server.add("org/model", checkpoint_of("llama"))
        server.add("org/private", checkpoint_of("llama"), gated=True, token=SECRET)
        yield server


def test_two_processes_convert_only_once(source: Source, settings: Settings) -> None:
    int4 = Int4Settings(symmetric=True, group_size=32, ratio=1.0)
    seen: list[list[Progress]] = [[], []]

    def convert(index: int) -> object:
        return convert_in_process(
            source, Precision.INT4, settings=settings, compression=int4, progress=seen[index].append
        )

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(convert, range(2))
    assert first == second == ModelStore(settings).get(source, Precision.INT4)
    assert first.manifest.int4 is not None
    assert first.manifest.int4.symmetric is True
    exported, waited = sorted(seen, key=len, reverse=True)
    assert [step.stage for step in waited] == [Stage.WAITING, Stage.DONE]
    assert exported[0].stage is Stage.EXPORTING
    assert conversion_children() == []


def test_killed_child_leaves_nothing_and_the_next_attempt_works(
    source: Source, settings: Settings
) -> None:
    def kill(step: Progress) -> None:
        if step.stage is Stage.COMPRESSING:
            for child in conversion_children():
                child.kill()

    with pytest.raises(ConversionError, match=r"ended unexpectedly .* nothing was kept"):
        convert_in_process(source, INT8, settings=settings, progress=kill)
    assert nothing_looks_finished(settings)
    assert ModelStore(settings).ensure(source, INT8).manifest.precision is INT8


def test_cancel_kills_the_child_and_leaves_nothing(source: Source, settings: Settings) -> None:
    cancel = threading.Event()

    def cancel_at_export(step: Progress) -> None:
        if step.stage is Stage.EXPORTING:
            cancel.set()

    with pytest.raises(StoppedError, match=r"Nothing .* was kept"):
        convert_in_process(
            source, INT8, settings=settings, progress=cancel_at_export, cancel=cancel
        )
    assert conversion_children() == []
    assert nothing_looks_finished(settings)


def test_error_of_the_child_keeps_its_class_and_message(settings: Settings, tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(NotAModelError, match="tokenizer") as caught:
        convert_in_process(str(folder), INT8, settings=settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", ["nncf", "safetensors"])
def test_a_damaged_library_is_reported(
    source: Source, settings: Settings, tmp_path: Path, monkeypatch, library: str
) -> None:
    (tmp_path / f"{library}.py").write_text("raise RuntimeError('built for another machine')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ConversionError, match="built for another machine") as caught:
        convert_in_process(source, INT8, settings=settings)
    assert "\n" not in str(caught.value) and "signal" not in str(caught.value)
    assert nothing_looks_finished(settings)


@pytest.mark.long
def test_memory_and_log_arrive_and_sentence_transformers_are_not_imported(
    source: Source, settings: Settings, tmp_path: Path, monkeypatch
) -> None:
    package = tmp_path / "sentence_transformers"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from sklearn.metrics import roc_curve\n__version__ = '6'\n"
    )
    facts = tmp_path / "sentence_transformers-6.0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Name: sentence-transformers\nVersion: 6.0.1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sizes: list[int] = []
    lines: list[str] = []
    stored = convert_in_process(
        source, INT8, settings=settings, on_memory=sizes.append, on_line=lines.append
    )
    assert stored.precision is INT8
    assert max(sizes) > 100 * 2**20  # the conversion libraries alone take more
    assert any("bitwidth" in line for line in lines)
    code = (
        "import sys\n"
        "from core.store.library_env import quick_imports\n"
        "with quick_imports():\n"
        "    from optimum.intel import OVModelForCausalLM\n"
        "import sklearn.metrics\n"
        "assert 'sentence_transformers' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_stored_model_needs_no_child(
    source: Source, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ModelStore(settings).ensure(source, INT8)
    monkeypatch.setattr(subprocess, "Popen", lambda *_a, **_k: pytest.fail("started a child"))
    assert convert_in_process(source, INT8, settings=settings) == made


def test_unknown_model_is_refused_without_a_child(settings: Settings) -> None:
    with pytest.raises(UnknownModelError):
        convert_in_process("no-such-model", INT8, settings=settings)
    assert not settings.models_dir.exists()


def test_child_ends_with_its_parent(source: Source, settings: Settings) -> None:
    request = {
        "kind": "convert",
        "model": str(source.location),
        "precision": "int8",
        "settings": {"home": str(settings.home)},
        "compression": None,
        "access": {},
    }
    lock = settings.models_dir / ".work" / f"{source.key}.int8.lock"
    lock.parent.mkdir(parents=True)
    with (
        FileLock(lock),
        subprocess.Popen(
            [sys.executable, "-m", "core.store.worker"],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        print(json.dumps(request), file=child.stdin, flush=True)
        assert json.loads(child.stdout.readline())["stage"] == "waiting"
        child.stdin.close()
        assert child.wait(timeout=PATIENCE_S) == 1


def test_the_child_uses_the_settings_of_the_parent(
    source: Source, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All except the database URL, which has a password and is not needed there."""
    seen: list[dict] = []

    def refuse(_module: str, request: dict, **_options: object) -> None:
        seen.append(json.loads(json.dumps(request)))
        raise OSError("enough seen")

    monkeypatch.setattr(subprocesses, "WorkerProcess", refuse)
    ours = settings.model_copy(
        update={"memory_reserve_mib": 77, "database_url": "postgresql://me:password@db/paddock"}
    )
    with pytest.raises(OSError, match="enough seen"):
        convert_in_process(source, INT8, settings=ours)
    assert Settings(**seen[0]["settings"]) == ours.model_copy(update={"database_url": None})
    assert "password" not in str(seen)


def test_stored_model_with_other_settings_is_refused(source: Source, settings: Settings) -> None:
    made = Int4Settings(symmetric=True, group_size=32, ratio=1.0)
    stored = ModelStore(settings).ensure(source, Precision.INT4, compression=made)
    assert convert_in_process(source, Precision.INT4, settings=settings) == stored
    assert convert_in_process(source, Precision.INT4, settings=settings, compression=made) == stored
    other = Int4Settings(symmetric=False, group_size=64, ratio=0.5)
    with pytest.raises(UserError, match=r"symmetric, group size 32, ratio 1.*Delete it"):
        convert_in_process(source, Precision.INT4, settings=settings, compression=other)


# The hub


def test_a_model_is_downloaded_and_not_converted(hub: Hub, settings: Settings) -> None:
    steps: list[Progress] = []
    access = HubAccess(endpoint=hub.url)
    folder = fetch_in_process("org/model", settings=settings, access=access, progress=steps.append)
    assert folder == settings.downloads_dir / "org--model" and completed(folder)
    assert steps[0].stage is Stage.FETCHING and steps[-1].stage is Stage.DONE
    transfers = [step.transfer for step in steps if step.transfer]
    size = folder_bytes(folder) - (folder / COMPLETE_MARK).stat().st_size
    assert transfers[-1].done == transfers[-1].total == size
    assert not list(settings.models_dir.glob("[!.]*"))
    asked = len(hub.asked)
    assert fetch_in_process("org/model", settings=settings, access=access) == folder
    assert len(hub.asked) == asked


def test_only_hub_models_can_be_downloaded(source: Source, settings: Settings) -> None:
    with pytest.raises(UserError, match="nothing to download"):
        fetch_in_process(source, settings=settings)


def test_a_stopped_download_is_kept_and_resumed(hub: Hub, settings: Settings) -> None:
    folder = settings.downloads_dir / "org--model"
    access, cancel = HubAccess(endpoint=hub.url), threading.Event()

    def stop(step: Progress) -> None:
        if step.transfer and step.transfer.done > 20_000:
            cancel.set()

    hub.delay(0.02)
    with pytest.raises(StoppedError, match="kept, and the next attempt resumes"):
        fetch_in_process(
            "org/model", settings=settings, access=access, progress=stop, cancel=cancel
        )
    assert conversion_children() == []
    assert completed(folder) is None and folder_bytes(folder) > 20_000
    hub.heal()
    hub.asked.clear()
    assert fetch_in_process("org/model", settings=settings, access=access) == folder
    (again,) = hub.fetched("model.safetensors")
    assert again.range is not None and not again.range.startswith("bytes=0-")


def test_a_killed_download_is_kept_and_resumed(hub: Hub, settings: Settings) -> None:
    def kill(step: Progress) -> None:
        if step.transfer and step.transfer.done > 20_000:
            for child in conversion_children():
                child.kill()

    hub.delay(0.02)
    access = HubAccess(endpoint=hub.url)
    with pytest.raises(HubError, match=r"ended unexpectedly .* resumes where it stopped"):
        fetch_in_process("org/model", settings=settings, access=access, progress=kill)
    assert completed(settings.downloads_dir / "org--model") is None
    hub.heal()
    assert fetch_in_process("org/model", settings=settings, access=access)


def test_the_token_reaches_the_hub_and_no_argument(hub: Hub, settings: Settings) -> None:
    access = HubAccess(endpoint=hub.url, token=SECRET)
    arguments: list[str] = []
    hub.delay(0.01)

    def look(_step: Progress) -> None:
        arguments.extend(part for child in conversion_children() for part in child.cmdline())

    fetch_in_process("org/private", settings=settings, access=access, progress=look)
    assert "core.store.worker" in arguments and SECRET not in " ".join(arguments)
    assert {asked.token for asked in hub.asked if not asked.storage} == {SECRET}


def test_access_without_a_token_uses_none_from_the_environment(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(GatedModelError):
        fetch_in_process("org/private", settings=settings, access=HubAccess(endpoint=hub.url))
    assert {asked.token for asked in hub.asked} == {None}
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    assert fetch_in_process("org/private", settings=settings)


def test_a_token_that_a_library_prints_is_hidden(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import json, sys; token = json.loads(input())['access']['token'];"
        "print(token, file=sys.stderr);"
        "print(json.dumps({'event': 'error', 'type': 'HubError', 'message': f'No {token}.'}))"
    )
    popen = subprocess.Popen
    monkeypatch.setattr(
        process.subprocess,
        "Popen",
        lambda _arguments, **options: popen([sys.executable, "-c", code], **options),
    )
    lines: list[str] = []
    access = HubAccess(endpoint=hub.url, token=SECRET)
    with pytest.raises(HubError) as caught:
        fetch_in_process("org/model", settings=settings, access=access, on_line=lines.append)
    assert str(caught.value) == "No •••." and lines == ["•••"]
