"""Which models are in memory, in the whole process: load, lease, evict."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from core.errors import ModelBusyError, NotEnoughMemoryError, PaddockError, UnknownDeviceError
from core.hardware.devices import (
    ProcessMemory,
    available_memory_bytes,
    process_memory,
    require_device,
)
from core.runtimes.base import ApartModel, LoadedModel, Runtime
from core.runtimes.queue import TurnQueue
from core.runtimes.spec import (
    ExecutionHints,
    ModelSpec,
    RuntimeName,
    SamplingSettings,
    TokenRequest,
)
from core.settings import Settings
from core.store import StoredModel
from core.units import bytes_text

logger = logging.getLogger(__name__)

MEMORY_PER_WEIGHT_BYTE = 2.0
"""Weights are memory-mapped and repacked by the plugin: 410 M INT8 took 350 MB private memory
beside 390 MB of mapped file."""
MEMORY_BASE_BYTES = 200 * 2**20
"""Activations, KV cache and tokenizer of a small model."""
_POLL_S = 0.05

OnProgress = Callable[[str, float | None], None]
"""Told what is happening, as a sentence, and how much of it is done (0 to 1, None: unknown)."""


HintsFor = Callable[[ModelSpec, StoredModel], ExecutionHints | None]
"""Tells under which hints a stored model is loaded, where the spec leaves that open."""


class Provider(Protocol):
    """Hands out the converted model of a spec, converting it first where there is none."""

    def __call__(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> StoredModel: ...


@dataclass(frozen=True)
class LoadFacts:
    """What loading a model cost."""

    load_s: float
    """Seconds to ready, warm-up included; conversion, if any, not."""
    memory: ProcessMemory
    """Growth of this process over load and warm-up, in bytes, that of others in it too, and of
    the model's own where it has one."""


@dataclass
class _Entry:
    spec: ModelSpec
    stored: StoredModel
    model: LoadedModel
    facts: LoadFacts
    queue: TurnQueue
    leases: int = 0
    last_used: float = 0.0


@dataclass
class _Load:
    """A load under way; several may wait for it."""

    cancelled: threading.Event
    done: threading.Event
    waiting: int = 0
    message: str = "Getting ready."
    fraction: float | None = None
    entry: _Entry | None = None
    error: BaseException | None = None


@dataclass(frozen=True)
class LoadedInfo:
    """One loaded model, for people to look at."""

    spec: ModelSpec
    stored: StoredModel
    facts: LoadFacts
    in_use: int
    """Answers running or waiting on it."""
    idle_s: float


class Lease:
    """The right to use a loaded model; it stays in memory as long as this is held."""

    def __init__(self, entry: _Entry) -> None:
        self._entry = entry

    @property
    def model(self) -> LoadedModel:
        """The loaded model; generate on it only within :meth:`turn`, which keeps to what it takes
        at a time."""
        return self._entry.model

    @property
    def stored(self) -> StoredModel:
        """The files it was loaded from."""
        return self._entry.stored

    @property
    def facts(self) -> LoadFacts:
        """What loading it cost."""
        return self._entry.facts

    def turn(
        self, cancelled: threading.Event, on_place: Callable[[int], None], *, lane: str = ""
    ) -> AbstractContextManager[bool]:
        """Wait in the model's line; see :meth:`core.runtimes.queue.TurnQueue.turn`."""
        return self._entry.queue.turn(cancelled, on_place, lane=lane)


class ModelHandle:
    """One model of a pool, loaded or not: what caches hold and answers are asked of."""

    def __init__(self, pool: ModelPool, spec: ModelSpec) -> None:
        self.spec = spec
        self._pool = pool

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory now."""
        return self._pool.is_loaded(self.spec)

    def lease(
        self, on_progress: OnProgress, cancelled: threading.Event
    ) -> AbstractContextManager[Lease | None]:
        """Hold the model, loading it first where needed; see :meth:`ModelPool.lease`."""
        return self._pool.lease(self.spec, on_progress, cancelled)

    def release(self) -> None:
        """Free the model unless somebody uses it; it then leaves when memory is wanted."""
        with suppress(ModelBusyError):
            self._pool.unload(self.spec)


class ModelPool:
    """Loads models one at a time, leases them, and lets the least recently used go."""

    def __init__(
        self,
        settings: Settings,
        provider: Provider,
        runtimes: Mapping[RuntimeName, Runtime],
        hints_for: HintsFor = lambda spec, stored: None,
        working: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """
        Args:
            hints_for: tells the hints of a model whose spec names none; None: the usual ones.
            working: entered for as long as a model is loaded and warmed up, so that others may
                know of it.
        """
        self._settings = settings
        self._provider = provider
        self._runtimes = runtimes
        self._hints_for = hints_for
        self._working = working
        self._entries: dict[ModelSpec, _Entry] = {}
        self._loads: dict[ModelSpec, _Load] = {}
        self._lock = threading.Lock()
        self._load_lock = threading.Lock()

    def handle(self, spec: ModelSpec) -> ModelHandle:
        """A handle on the model of ``spec``; nothing is loaded yet."""
        return ModelHandle(self, spec)

    @contextmanager
    def lease(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> Iterator[Lease | None]:
        """Hold the model of ``spec``, loading and even converting it first where needed.

        Yields:
            The lease, or None when ``cancelled`` was set before the model was ready.

        Raises:
            PaddockError: unknown device, too little memory, damaged files, failed conversion …
        """
        entry = self._take(canonical(spec), on_progress, cancelled)
        if entry is None:
            yield None
            return
        try:
            yield Lease(entry)
        finally:
            with self._lock:
                self._give_back(entry)

    def loaded(self) -> tuple[LoadedInfo, ...]:
        """The models in memory, the most recently used first."""
        now = time.monotonic()
        with self._lock:
            self._forget_dead()
            entries = sorted(self._entries.values(), key=lambda entry: -entry.last_used)
            return tuple(
                LoadedInfo(e.spec, e.stored, e.facts, e.leases, now - e.last_used) for e in entries
            )

    def is_loaded(self, spec: ModelSpec) -> bool:
        """Whether the model is in memory now."""
        with self._lock:
            return self._find(spec) is not None

    @property
    def settings(self) -> Settings:
        """How many models are kept at most, and the memory that loading them leaves free."""
        return self._settings

    def room_beside(self, specs: Iterable[ModelSpec]) -> int:
        """Bytes that loading more models may take, all idle ones but ``specs`` being let go."""
        kept = {canonical(spec) for spec in specs}
        free = available_memory_bytes() - self._settings.memory_reserve_mib * 2**20
        return max(0, free + self._evictable(beside=kept))

    def unload(self, spec: ModelSpec) -> bool:
        """Free a model that nobody uses; False where it was not loaded.

        Raises:
            ModelBusyError: an answer is running or waiting on it.
        """
        with self._lock:
            entry = self._find(spec)
            if entry is None:
                return False
            if entry.leases:
                raise ModelBusyError(
                    f"{_called(entry.spec, entry.stored)} is answering; stop the answer or wait "
                    "for its end."
                )
            del self._entries[entry.spec]
        entry.model.close()
        del entry
        gc.collect()
        return True

    def close(self) -> None:
        """Free every idle model; used at shutdown and by tests."""
        for info in self.loaded():
            try:
                self.unload(info.spec)
            except ModelBusyError:
                logger.warning("%s is still in use and stays in memory", info.spec.label)

    def _find(self, spec: ModelSpec) -> _Entry | None:
        """The entry of ``spec``; asks for no device while nothing is loaded; the lock is held."""
        self._forget_dead()
        if not self._entries:
            return None
        with suppress(UnknownDeviceError):
            return self._entries.get(canonical(spec))
        return None

    def _forget_dead(self) -> None:
        """Let models go whose process has died, whoever still has a lease; the lock is held."""
        for spec, entry in list(self._entries.items()):
            if isinstance(entry.model, ApartModel) and not entry.model.alive:
                logger.warning("%s is gone with its process", spec.label)
                del self._entries[spec]
                entry.model.close()

    def _give_back(self, entry: _Entry) -> None:
        entry.leases -= 1
        entry.last_used = time.monotonic()

    def _take(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> _Entry | None:
        """The entry of ``spec`` with one lease more, or None when cancelled."""
        while True:
            with self._lock:
                self._forget_dead()
                entry = self._entries.get(spec)
                if entry is not None:
                    entry.leases += 1
                    entry.last_used = time.monotonic()
                    return entry
                load = self._loads.get(spec) or self._start_load(spec)
                load.waiting += 1
            finished = False
            try:
                finished = _await(load, on_progress, cancelled)
            finally:
                if not finished:
                    self._abandon(load)
            if not finished:
                return None
            if load.error is not None:
                raise load.error
            if load.entry is not None:
                return load.entry

    def _abandon(self, load: _Load) -> None:
        """Wait no longer for a load; what nobody waits for is not converted to its end."""
        with self._lock:
            load.waiting -= 1
            if load.done.is_set() and load.entry is not None:
                self._give_back(load.entry)  # it came at the last moment
            elif load.waiting == 0:
                load.cancelled.set()

    def _start_load(self, spec: ModelSpec) -> _Load:
        load = _Load(cancelled=threading.Event(), done=threading.Event())
        self._loads[spec] = load
        threading.Thread(
            target=self._run_load, args=(spec, load), name=f"load {spec.label}", daemon=True
        ).start()
        return load

    def _run_load(self, spec: ModelSpec, load: _Load) -> None:
        def report(message: str, fraction: float | None = None) -> None:
            load.message, load.fraction = message, fraction

        try:
            stored = self._provider(spec, report, load.cancelled)
            if not self._load_lock.acquire(blocking=False):
                report("Waiting for another model to finish loading.")
                self._load_lock.acquire()
            try:
                if not load.cancelled.is_set():
                    with self._working():  # over before the answer that wants the model begins
                        load.entry = self._load(spec, stored, report)
            finally:
                self._load_lock.release()
        except Exception as error:  # noqa: BLE001 - handed to everyone who waits for this load
            if not load.cancelled.is_set():
                load.error = error
        finally:
            with self._lock:
                if load.entry is not None:
                    # Leased to all who wait before anything else can evict it.
                    load.entry.leases = load.waiting
                    self._entries[spec] = load.entry
                del self._loads[spec]
                load.done.set()

    def _load(self, spec: ModelSpec, stored: StoredModel, report: OnProgress) -> _Entry:
        self._make_room(spec, stored)
        runtime = self._runtimes[spec.runtime]
        report("Starting the runtime.", None)
        runtime.prepare(stored.folder)
        before, started = process_memory(), time.perf_counter()
        report("Loading and compiling the model.", None)
        hints = spec.hints or self._hints_for(spec, stored)
        model = runtime.load(stored.folder, replace(spec, hints=hints))
        report("Warming up: the first answer repacks the weights.", None)
        try:
            _warm_up(model)
        except Exception:  # raised again, once the memory is given back
            model.close()
            raise
        load_s = time.perf_counter() - started
        try:
            grown = model.growth() if isinstance(model, ApartModel) else ProcessMemory(0, 0, 0)
        except PaddockError:
            model.close()
            raise
        facts = LoadFacts(load_s, process_memory().growth_since(before).plus(grown))
        queue = TurnQueue(self._settings.max_queue, model.at_once)
        return _Entry(spec, stored, model, facts, queue, last_used=time.monotonic())

    def _make_room(self, spec: ModelSpec, stored: StoredModel) -> None:
        """Let idle models go, the least recently used first, until this one fits.

        Raises:
            NotEnoughMemoryError: it does not fit even then.
        """
        needed = memory_needed(stored)
        reserve = self._settings.memory_reserve_mib * 2**20
        while True:
            with self._lock:
                self._forget_dead()
            free = available_memory_bytes() - reserve
            full = len(self._entries) >= self._settings.max_loaded_models
            if free >= needed and not full:
                return
            victim = self._least_recently_used()
            if victim is not None and (full or free + self._evictable() >= needed):
                logger.info("Unloading %s to make room for %s", victim.label, spec.label)
                try:
                    self.unload(victim)
                except ModelBusyError:
                    continue  # taken in the meantime; look again
            elif full:
                raise NotEnoughMemoryError(
                    f"{len(self._entries)} models are loaded and all of them are answering; "
                    "wait for one of them to finish."
                )
            else:
                raise NotEnoughMemoryError(
                    f"{_called(spec, stored)} needs about {bytes_text(needed)} of memory and "
                    f"{bytes_text(max(free, 0))} are free for it; choose a lower precision or "
                    "a smaller model, or close other programs."
                )

    def _evictable(self, beside: Collection[ModelSpec] = ()) -> int:
        """Bytes that letting all idle models but those ``beside`` go may free, at most."""
        with self._lock:
            return sum(
                memory_needed(entry.stored)
                for entry in self._entries.values()
                if not entry.leases and entry.spec not in beside
            )

    def _least_recently_used(self) -> ModelSpec | None:
        with self._lock:
            idle = [entry for entry in self._entries.values() if not entry.leases]
            return min(idle, key=lambda entry: entry.last_used).spec if idle else None


def canonical(spec: ModelSpec) -> ModelSpec:
    """``spec`` in the one form under which its model is loaded.

    Raises:
        UnknownDeviceError: the device is not one that OpenVINO reports.
    """
    device = require_device(spec.device)
    usual = spec.hints in (None, ExecutionHints.default_for(spec.precision, device))
    return replace(spec, device=device, hints=None if usual else spec.hints)


def memory_needed(stored: StoredModel) -> int:
    """Bytes of memory that loading this model will take, estimated from its weights."""
    return memory_for(stored.manifest.weight_bytes)


def memory_for(weight_bytes: int) -> int:
    """Bytes of memory that loading weights of this size will take."""
    return int(MEMORY_PER_WEIGHT_BYTE * weight_bytes) + MEMORY_BASE_BYTES


def _await(load: _Load, on_progress: OnProgress, cancelled: threading.Event) -> bool:
    """Wait for a load, passing its progress on; False when cancelled first."""
    told: tuple[str, float | None] | None = None
    while True:
        finished = load.done.wait(_POLL_S)
        current = (load.message, load.fraction)
        if current != told:
            on_progress(*current)
            told = current
        if finished:
            return True
        if cancelled.is_set():
            return False


def _warm_up(model: LoadedModel) -> None:
    """Generate two tokens: weights are repacked at the first, the second is a warm step."""
    ids = tuple(model.tokenizer("Hello", add_special_tokens=False)["input_ids"]) or (0,)
    request = TokenRequest(ids, SamplingSettings(max_new_tokens=2, greedy=True))
    model.generate(request, lambda token: True)


def _called(spec: ModelSpec, stored: StoredModel) -> str:
    """A model as people know it, in a sentence."""
    return f"{stored.title} · {stored.label} · {spec.device}"
