"""A runtime for what is hard to provoke with a real one: failures, known gaps, waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.catalogue import Precision
from core.compare.timed_answers import Cores, MeasureLatency
from core.hardware.devices import ProcessMemory
from core.inference.scheduler import Scheduler
from core.runtimes.base import Conditions, InterruptedGeneration, LoadedModel, OnToken
from core.runtimes.pool import Lease, LoadFacts, ModelPool
from core.runtimes.spec import ModelSpec, RuntimeName, TokenRequest
from core.settings import Settings
from core.store import Manifest, StoredModel
from core.store.manifest import SourceRecord
from tests.waiting import PATIENCE_S

NEAR_NS, APART_NS = 110.0, 290.0
"""Core-to-core latencies as measured on a machine."""


class FakeCores(Cores):
    """Cores with latencies set by a test; by default near."""

    def __init__(self) -> None:
        super().__init__()
        self.to_come: list[float | None] = []

    @contextmanager
    def watched(self) -> Iterator[MeasureLatency]:
        yield lambda: self.note(self.to_come.pop(0) if self.to_come else NEAR_NS)


CONDITIONS = Conditions("f32", "u8", ("CPU",), 2, {"PERFORMANCE_HINT": "LATENCY"})

Script = Callable[[TokenRequest], Iterable[int]]
"""Yields the ids of an answer; what it does between two of them happens between two tokens."""


class FakeModel(LoadedModel):
    """See :class:`core.runtimes.base.LoadedModel`; answers by a script."""

    takes_options = True

    def __init__(
        self,
        tokenizer: Any,
        script: Script,
        *,
        end_ids: Iterable[int] = (0,),
        positions: int | None = 2048,
    ) -> None:
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self.positions = positions
        self.conditions = CONDITIONS
        self.requests: list[TokenRequest] = []
        self.interrupted = threading.Event()
        self.closed = False
        self.busy = threading.Lock()
        self._script = script

    def generate(self, request: TokenRequest, on_token: OnToken) -> None:
        assert self.busy.acquire(blocking=False), "two generations at once on one model"
        try:
            assert not self.closed, "generation on a model that was freed"
            self.requests.append(request)
            self.interrupted.clear()
            for count, token_id in enumerate(self._script(request), 1):
                if not on_token(token_id) or count == request.sampling.max_new_tokens:
                    return
        finally:
            self.busy.release()

    def interrupt(self, request: TokenRequest) -> None:
        self.interrupted.set()

    def close(self) -> None:
        assert not self.busy.locked(), "a model in use was freed"
        self.closed = True

    def prefill_until_interrupted(self) -> None:
        """For scripts: a prefill that only an interruption ends."""
        assert self.interrupted.wait(PATIENCE_S), "nobody interrupted the prefill"
        raise InterruptedGeneration


class FakeRuntime:
    """Hands out the models that ``make`` makes, and counts."""

    def __init__(self, make: Callable[[ModelSpec], FakeModel]) -> None:
        self.loads: list[ModelSpec] = []
        self.models: dict[ModelSpec, FakeModel] = {}
        self._make = make

    def prepare(self, folder: Path | None = None) -> None:
        pass

    def load(self, folder: Path, spec: ModelSpec) -> FakeModel:
        self.loads.append(spec)
        self.models[spec] = self._make(spec)
        return self.models[spec]


class FakeHandle:
    """See :class:`core.runtimes.pool.ModelHandle`; its one model is loaded already."""

    def __init__(self, model: FakeModel, *, key: str = "dolly-v2-3b", limit: int = 32) -> None:
        self.spec = ModelSpec(key, Precision.INT8, "CPU")
        self.model = model
        self.scheduler = Scheduler(Settings(max_queue=limit))

    @contextmanager
    def lease(self, on_progress: Any, cancelled: threading.Event) -> Iterator[Lease]:
        facts = LoadFacts(0.5, ProcessMemory(3, 2, 5))
        yield Lease(self.model, "its queue", stored_model(self.spec), facts)


def stored_model(spec: ModelSpec, *, weight_bytes: int = 1000) -> StoredModel:
    """A stored model that lies nowhere."""
    manifest = Manifest(
        key=spec.model,
        title=spec.model,
        source=SourceRecord(kind="hub", location="org/name", revision="abc", fingerprint=None),
        precision=spec.precision,
        int4=None,
        versions={},
        architecture="gpt_neox",
        parameters=1000,
        weight_types={},
        weight_bytes=weight_bytes,
        folder_bytes=weight_bytes,
        positions=2048,
        has_chat_template=False,
        created=datetime.now(UTC),
        duration_s=1.0,
        peak_memory_bytes=1,
        files={},
    )
    return StoredModel(spec.model, spec.precision, Path("nowhere"), manifest)


def two_folders_of_one_title() -> list[StoredModel]:
    """Stored models made from folders that are called alike."""
    found = []
    for place in ("/a/mini", "/b/mini"):
        model = stored_model(ModelSpec(f"mini-{place[1]}", Precision.INT8, "CPU"))
        source = SourceRecord(kind="checkpoint", location=place, revision=None, fingerprint=None)
        manifest = model.manifest.model_copy(update={"title": "mini", "source": source})
        found.append(replace(model, manifest=manifest))
    return found


def fake_pool(
    settings: Settings,
    runtime: FakeRuntime,
    *,
    provide: Any = None,
    weight_bytes: int = 1000,
    **more: Any,
) -> ModelPool:
    """A pool on a fake runtime, without files unless ``provide`` says otherwise."""

    def nothing_to_convert(spec: ModelSpec, on_progress: Any, cancelled: Any) -> StoredModel:
        return stored_model(spec, weight_bytes=weight_bytes)

    runtimes = dict.fromkeys(RuntimeName, runtime)
    return ModelPool(settings, provide or nothing_to_convert, runtimes, **more)
