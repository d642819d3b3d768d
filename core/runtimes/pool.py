"""Pool of the models in memory of this process: loads, leases and unloads them."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.errors import ModelBusyError, NotEnoughMemoryError, PaddockError, UnknownDeviceError
from core.hardware.devices import (
    ProcessMemory,
    available_memory_bytes,
    process_memory,
    require_device,
)
from core.runtimes.base import LoadedModel, Runtime
from core.runtimes.logits import LogitsModel
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

if TYPE_CHECKING:
    from core.runtimes.remote import RemoteModel, RemotePool

logger = logging.getLogger(__name__)

MEMORY_PER_WEIGHT_BYTE = 2.0
"""Weights are memory-mapped and repacked by the plugin: 410 M INT8 took 350 MB private memory
in addition to 390 MB of mapped file."""
MEMORY_BASE_BYTES = 200 * 2**20
"""Activations, KV cache and tokenizer of a small model."""
_POLL_S = 0.05

OnProgress = Callable[[str, float | None], None]
"""Called with a progress message and the fraction done (0 to 1, None: unknown)."""

HintsFor = Callable[[ModelSpec, StoredModel], ExecutionHints | None]
"""Returns the execution hints of a stored model whose spec has none; None: the default hints."""


Provider = Callable[[ModelSpec, OnProgress, threading.Event], StoredModel]
"""Returns the stored model of a spec, converting it first if necessary."""


@dataclass(frozen=True)
class LoadFacts:
    """Time and memory of loading a model."""

    load_s: float
    """Seconds until the model is ready, including warm-up, excluding conversion."""
    memory: ProcessMemory
    """Growth over load and warm-up of this process, including other activity in it, plus that of
    the model's own process, if it has one."""


@dataclass
class _Entry:
    spec: ModelSpec
    stored: StoredModel
    model: LoadedModel
    facts: LoadFacts
    leases: int = 0
    last_used: float = 0.0
    outdated: bool = False
    """Replaced by a newer version; closed when its last lease ends."""


@dataclass
class _Load:
    """A load in progress; several answers may wait for it."""

    cancelled: threading.Event
    done: threading.Event
    waiting: int = 0
    message: str = "Getting ready."
    fraction: float | None = None
    entry: _Entry | None = None
    error: BaseException | None = None


@dataclass(frozen=True)
class LoadedInfo:
    """A loaded model, for display."""

    spec: ModelSpec
    stored: StoredModel
    facts: LoadFacts
    in_use: int
    """Number of answers that run on it or wait for it."""
    idle_s: float


@dataclass(frozen=True)
class Lease:
    """Lease of a local or remote model; a local one stays in memory while it is leased."""

    model: LoadedModel | RemoteModel
    """A caller that shares it waits for its turn before each generation."""
    queue: Hashable
    """Models with the same value share :attr:`model.at_once`, such as those of one server."""
    stored: StoredModel | None = None
    """The stored model that it was loaded from; None for a remote model."""
    facts: LoadFacts | None = None
    """Time and memory of loading it; None for a remote model."""


@dataclass(frozen=True)
class ModelHandle:
    """Handle of a model of a pool, ready or not."""

    pool: ModelPool | RemotePool
    spec: ModelSpec

    def lease(
        self, on_progress: OnProgress, cancelled: threading.Event
    ) -> AbstractContextManager[Lease | None]:
        """Lease the model; see :meth:`ModelPool.lease`."""
        return self.pool.lease(self.spec, on_progress, cancelled)

    def release(self) -> None:
        """Unload the model unless it is in use; it is then unloaded when memory is needed."""
        with suppress(ModelBusyError):
            self.pool.unload(self.spec)


class ModelPool:
    """Loads models one at a time, leases them, and unloads the least recently used."""

    def __init__(
        self,
        settings: Settings,
        provider: Provider,
        runtimes: Mapping[RuntimeName, Runtime],
        hints_for: HintsFor = lambda spec, stored: None,
        working: Callable[[], AbstractContextManager[object]] = nullcontext,
        is_current: Callable[[ModelSpec, StoredModel], bool] = lambda spec, stored: True,
    ) -> None:
        """
        Args:
            hints_for: returns the hints of a model whose spec has none.
            working: context manager entered while a model is loaded and warmed up, so that
                contention with other work is recorded.
            is_current: whether a loaded model's stored files, and their source, are unchanged; a
                model for which they are not is loaded anew.
        """
        self.settings = settings
        """With the maximum number of loaded models and the memory reserve."""
        self._provider = provider
        self._runtimes = runtimes
        self._hints_for = hints_for
        self._working = working
        self._is_current = is_current
        self._entries: dict[ModelSpec, _Entry] = {}
        self._loads: dict[ModelSpec, _Load] = {}
        self._lock = threading.Lock()
        self._load_lock = threading.Lock()

    def handle(self, spec: ModelSpec) -> ModelHandle:
        """Return the handle of a model, without loading it."""
        return ModelHandle(self, spec)

    @contextmanager
    def lease(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> Iterator[Lease | None]:
        """Lease the model of ``spec``, converting and loading it first if necessary.

        Yields:
            The lease, or None when ``cancelled`` was set before the model was ready.

        Raises:
            PaddockError: unknown device, too little memory, damaged files, failed conversion …
        """
        entry = self._acquire(canonical(spec), on_progress, cancelled)
        if entry is None:
            yield None
            return
        try:
            yield Lease(entry.model, entry.spec, entry.stored, entry.facts)
        finally:
            with self._lock:
                self._release(entry)
                unused = entry.outdated and not entry.leases
            if unused:
                entry.model.close()

    def loaded(self) -> tuple[LoadedInfo, ...]:
        """Return the models in memory, the most recently used first."""
        now = time.monotonic()
        with self._lock:
            self._remove_dead()
            entries = sorted(self._entries.values(), key=lambda entry: -entry.last_used)
            return tuple(
                LoadedInfo(e.spec, e.stored, e.facts, e.leases, now - e.last_used) for e in entries
            )

    def is_loaded(self, spec: ModelSpec) -> bool:
        """Whether the model is in memory now."""
        with self._lock:
            return self._find(spec) is not None

    def loadable_bytes(self, keep: Iterable[ModelSpec]) -> int:
        """Return the bytes available after unloading all idle models but those to keep."""
        kept = {canonical(spec) for spec in keep}
        free = available_memory_bytes() - self.settings.memory_reserve_mib * 2**20
        return max(0, free + self._evictable(keep=kept))

    def unload(self, spec: ModelSpec) -> bool:
        """Unload an idle model; return False if it was not loaded.

        Raises:
            ModelBusyError: an answer runs on it or waits for it.
        """
        with self._lock:
            entry = self._find(spec)
            if entry is None:
                return False
            if entry.leases:
                raise ModelBusyError(
                    f"{_display_name(entry.spec, entry.stored)} is generating an answer. Stop the "
                    "answer or wait until it ends."
                )
            del self._entries[entry.spec]
        entry.model.close()
        del entry
        gc.collect()
        return True

    def close(self) -> None:
        """Unload all idle models; used at shutdown and by tests."""
        for info in self.loaded():
            try:
                self.unload(info.spec)
            except ModelBusyError:
                logger.warning("%s is still in use and stays in memory", info.spec.label)

    def _find(self, spec: ModelSpec) -> _Entry | None:
        """Return the entry of ``spec``; the caller holds the lock.

        While nothing is loaded, devices are not listed.
        """
        self._remove_dead()
        if not self._entries:
            return None
        with suppress(UnknownDeviceError):
            return self._entries.get(canonical(spec))
        return None

    def _remove_dead(self) -> None:
        """Remove models whose process has ended, even leased ones; the caller holds the lock."""
        for spec, entry in list(self._entries.items()):
            if not entry.model.alive:
                logger.warning("The process of %s has ended; the model is unloaded", spec.label)
                del self._entries[spec]
                entry.model.close()

    def _remove_outdated(self, spec: ModelSpec) -> None:
        """Let a model go whose files have changed; answers that run on it end before it closes."""
        with self._lock:
            entry = self._entries.get(spec)
        if entry is None or self._is_current(entry.spec, entry.stored):
            return
        with self._lock:
            if self._entries.get(spec) is not entry:
                return
            logger.info("The files of %s have changed; it is loaded again", spec.label)
            del self._entries[spec]
            entry.outdated = True
            unused = not entry.leases
        if unused:
            entry.model.close()

    def _release(self, entry: _Entry) -> None:
        entry.leases -= 1
        entry.last_used = time.monotonic()

    def _acquire(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> _Entry | None:
        """Return the entry of ``spec`` with an additional lease, or None when cancelled."""
        self._remove_outdated(spec)
        while True:
            with self._lock:
                self._remove_dead()
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
        """Stop waiting for a load; cancel it if no other answer waits for it."""
        with self._lock:
            load.waiting -= 1
            if load.done.is_set() and load.entry is not None:
                self._release(load.entry)  # the load finished in the meantime
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
                    with self._working():  # ends before the answer that waits for it begins
                        load.entry = self._load(spec, stored, report)
            finally:
                self._load_lock.release()
        except Exception as error:  # noqa: BLE001 - raised in every answer that waits for it
            if not load.cancelled.is_set():
                load.error = error
        finally:
            with self._lock:
                if load.entry is not None:
                    # Leased to all waiting answers before another load can evict it.
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
        except Exception:  # raised again after the memory is freed
            model.close()
            raise
        load_s = time.perf_counter() - started
        try:
            grown = model.growth()
        except PaddockError:
            model.close()
            raise
        facts = LoadFacts(load_s, process_memory().growth_since(before).plus(grown))
        return _Entry(spec, stored, model, facts, last_used=time.monotonic())

    def _make_room(self, spec: ModelSpec, stored: StoredModel) -> None:
        """Unload idle models, the least recently used first, until this one fits.

        Raises:
            NotEnoughMemoryError: it does not fit even then.
        """
        needed = memory_needed(stored)
        reserve = self.settings.memory_reserve_mib * 2**20
        while True:
            with self._lock:
                self._remove_dead()
            free = available_memory_bytes() - reserve
            full = len(self._entries) >= self.settings.max_loaded_models
            if free >= needed and not full:
                return
            victim = self._least_recently_used()
            if victim is not None and (full or free + self._evictable() >= needed):
                logger.info("Unloading %s to make room for %s", victim.label, spec.label)
                try:
                    self.unload(victim)
                except ModelBusyError:
                    continue  # leased in the meantime; check again
            elif full:
                raise NotEnoughMemoryError(
                    f"{len(self._entries)} models are loaded and all of them are in use. "
                    "Wait until one of them is idle."
                )
            else:
                raise NotEnoughMemoryError(
                    f"{_display_name(spec, stored)} needs about {bytes_text(needed)} of memory, "
                    f"but only {bytes_text(max(free, 0))} are free. Choose a lower precision or a "
                    "smaller model, or close other programs."
                )

    def _evictable(self, keep: Collection[ModelSpec] = ()) -> int:
        """Return the bytes that unloading all idle models but those to keep frees, at most."""
        with self._lock:
            return sum(
                memory_needed(entry.stored)
                for entry in self._entries.values()
                if not entry.leases and entry.spec not in keep
            )

    def _least_recently_used(self) -> ModelSpec | None:
        with self._lock:
            idle = [entry for entry in self._entries.values() if not entry.leases]
            return min(idle, key=lambda entry: entry.last_used).spec if idle else None


def canonical(spec: ModelSpec) -> ModelSpec:
    """Return ``spec`` in the canonical form used as the key of loaded models.

    Raises:
        UnknownDeviceError: OpenVINO does not report the device.
    """
    device = require_device(spec.device)
    default = spec.hints in (None, ExecutionHints.default_for(spec.precision, device))
    prefix_cache = spec.prefix_cache and spec.runtime is RuntimeName.GENAI
    hints = None if default else spec.hints
    return replace(spec, device=device, hints=hints, prefix_cache=prefix_cache)


def memory_needed(stored: StoredModel) -> int:
    """Return the memory in bytes that loading this model needs, estimated from its weights."""
    return memory_for(stored.manifest.weight_bytes)


def memory_for(weight_bytes: int) -> int:
    """Return the memory in bytes that loading weights of this size needs."""
    return int(MEMORY_PER_WEIGHT_BYTE * weight_bytes) + MEMORY_BASE_BYTES


def _await(load: _Load, on_progress: OnProgress, cancelled: threading.Event) -> bool:
    """Wait for a load, reporting its progress; return False when cancelled first."""
    reported: tuple[str, float | None] | None = None
    while True:
        finished = load.done.wait(_POLL_S)
        current = (load.message, load.fraction)
        if current != reported:
            on_progress(*current)
            reported = current
        if finished:
            return True
        if cancelled.is_set():
            return False


def _warm_up(model: LoadedModel) -> None:
    """Generate two tokens: the first repacks the weights, the second is a warm step."""
    ids = tuple(model.tokenizer("Hello", add_special_tokens=False)["input_ids"]) or (0,)
    if isinstance(model, LogitsModel):
        model.next_logits(ids)
        return
    request = TokenRequest(ids, SamplingSettings(max_new_tokens=2, greedy=True))
    model.generate(request, lambda token: True)


def _display_name(spec: ModelSpec, stored: StoredModel) -> str:
    return f"{stored.title} · {stored.label} · {spec.device}"
