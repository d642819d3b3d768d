"""Converting in a child process: it delivers, it can be killed, and two of them do not collide."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from core.catalogue import Int4Settings, Precision
from core.errors import ConversionError, NotAModelError, UnknownModelError
from core.settings import CHECKOUT, Settings
from core.store import (
    ConversionCancelled,
    ModelStore,
    Progress,
    Source,
    Stage,
    convert_in_process,
    resolve,
)
from tests.builders import tiny_checkpoint

INT8 = Precision.INT8


@pytest.fixture
def source(checkpoint_of: Callable[[str], Path]) -> Source:
    """A tiny Llama checkpoint."""
    return resolve(str(checkpoint_of("llama")))


def nothing_looks_finished(settings: Settings) -> bool:
    """Whether the store holds neither a model nor a work folder."""
    folders = [path for path in settings.models_dir.rglob("*") if path.is_dir()]
    return [path.name for path in folders] == [".work"]


def conversion_children() -> list[psutil.Process]:
    """Child processes of this one that convert."""

    def converts(child: psutil.Process) -> bool:
        try:
            return "core.store.worker" in " ".join(child.cmdline())
        except psutil.NoSuchProcess:  # ended, perhaps not waited for yet
            return False

    return [child for child in psutil.Process().children() if converts(child)]


def test_two_processes_at_once_convert_once(source: Source, settings: Settings) -> None:
    int4 = Int4Settings(symmetric=True, group_size=32, ratio=1.0)
    seen: list[list[Progress]] = [[], []]

    def convert(index: int) -> object:
        return convert_in_process(
            source, Precision.INT4, settings=settings, int4=int4, progress=seen[index].append
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


def test_child_killed_half_way_leaves_nothing_and_the_next_attempt_works(
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

    with pytest.raises(ConversionCancelled):
        convert_in_process(
            source, INT8, settings=settings, progress=cancel_at_export, cancel=cancel
        )
    assert conversion_children() == []
    assert nothing_looks_finished(settings)


def test_error_of_the_child_keeps_its_class_and_sentence(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(NotAModelError, match="tokenizer") as caught:
        convert_in_process(str(folder), INT8, settings=settings)
    assert "\n" not in str(caught.value)


def test_stored_model_needs_no_child(
    source: Source, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ModelStore(settings).ensure(source, INT8)
    monkeypatch.setattr(subprocess, "Popen", lambda *_a, **_k: pytest.fail("started a child"))
    assert convert_in_process(source, INT8, settings=settings) == made


def test_unknown_model_is_told_without_a_child(settings: Settings) -> None:
    with pytest.raises(UnknownModelError):
        convert_in_process("no-such-model", INT8, settings=settings)
    assert not settings.models_dir.exists()


def test_child_ends_with_its_parent(source: Source, settings: Settings) -> None:
    request = {
        "model": str(source.location),
        "precision": "int8",
        "home": str(settings.home),
        "int4": None,
    }
    lock = settings.models_dir / ".work" / f"{source.key}.int8.lock"
    lock.parent.mkdir(parents=True)
    with (
        FileLock(lock),
        subprocess.Popen(
            [sys.executable, "-m", "core.store.worker", json.dumps(request)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["stage"] == "waiting"
        child.stdin.close()
        assert child.wait(timeout=10) == 1
