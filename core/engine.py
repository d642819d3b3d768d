"""Puts the parts together: one engine a process, shared by pages, commands and routes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from core.auth import Accounts
from core.benchmark.artifacts import delete_npu_weights
from core.benchmark.service import Benchmark
from core.benchmark.tuning_service import TuningService
from core.catalogue import Int4Settings, Precision, device_int4
from core.db import GUEST, AccountStore, Origin, RunStore
from core.db.measurements import MeasurementStore
from core.errors import (
    AccessDeniedError,
    BadRequestError,
    ModelBusyError,
    PaddockError,
    RecordsError,
)
from core.inference.contention import MONITOR
from core.inference.job import Job, JobObserver, Phase
from core.inference.prometheus import Metered, Meters, Standing
from core.inference.recorder import RunRecorder
from core.inference.request import GenerationRequest
from core.inference.user_limits import Shares
from core.remotes import Directory, Remote, RemoteBook
from core.runtimes.base import Runtime
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.pool import Lease, ModelHandle, ModelPool, OnProgress
from core.runtimes.remote import RemoteHandle, RemoteLease, RemotePool
from core.runtimes.spec import DEFAULT_RUNTIME, ExecutionHints, ModelSpec, RuntimeName
from core.runtimes.subprocess_runtime import ApartRuntime
from core.runtimes.tuned_hints import Tuned, TunedHints, TuningKey
from core.settings import Settings
from core.store import (
    ModelStore,
    Progress,
    StoredModel,
    TaskQueue,
    convert_in_process,
    with_genai_check,
)
from core.store.for_device import find_for_device, have_for_device
from core.store.resolver import recorded_name

STOP_PATIENCE_S = 5.0
"""Seconds to wait for answers that were stopped; one ends within a token."""

logger = logging.getLogger(__name__)


class Engine:
    """Store, pool and records of one process, and the way to an answer."""

    def __init__(
        self, settings: Settings, runtimes: Mapping[RuntimeName, Runtime] | None = None
    ) -> None:
        """
        Args:
            runtimes: how models are run; by default :func:`default_runtimes`.
        """
        self.settings = settings
        self.store = ModelStore(settings)
        self.tuned = TunedHints(settings.home)
        self._runtimes = runtimes or default_runtimes(settings)
        self.pool = ModelPool(
            settings, self._provide, self._runtimes, self._tuned_hints, MONITOR.running
        )
        self.remotes = RemotePool(Directory(RemoteBook(settings), settings), settings)
        self._shares = Shares(settings.answers_at_once, settings.answers_waiting)
        self._jobs: dict[Job, str] = {}
        """Answers under way, and whose they are."""
        self._jobs_turn = threading.Lock()
        self.meters = Meters(self.standing)
        self.tuning = TuningService(settings, self.keep_tuned, MONITOR.running)
        self.tasks = TaskQueue(settings, working=MONITOR.running)
        self.benchmark = Benchmark(settings, lambda: self.measurements, MONITOR)

    @cached_property
    def runs(self) -> RunStore:
        """The run table.

        Raises:
            RecordsError: the database cannot be opened.
        """
        runs = RunStore.open(self.settings)
        if marked := runs.mark_interrupted():
            logger.info("%d runs of an ended process are marked interrupted", marked)
        return runs

    @cached_property
    def accounts(self) -> Accounts:
        """Who may use it; in the same database as the runs.

        Raises:
            RecordsError: the database cannot be opened.
        """
        return Accounts(AccountStore(self.runs.database), self.settings)

    @cached_property
    def measurements(self) -> MeasurementStore:
        """What benchmarks measured; in the same database as the runs.

        Raises:
            RecordsError: the database cannot be opened.
        """
        measurements = MeasurementStore(self.runs.database)
        if marked := measurements.mark_interrupted():
            logger.info("%d benchmarks of an ended process are marked interrupted", marked)
        return measurements

    def handle(self, spec: ModelSpec) -> ModelHandle | RemoteHandle:
        """The handle of a model, here or elsewhere; nothing is loaded and nobody asked for it."""
        if spec.remote:
            return self.remotes.handle(spec)
        return self.pool.handle(self.named(spec))

    def named(self, spec: ModelSpec) -> ModelSpec:
        """The same with the model's key for programs, whatever it was called."""
        return spec if spec.remote else replace(spec, model=self.store.name(spec.model))

    def lease(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> AbstractContextManager[Lease | RemoteLease | None]:
        """Hold a model, here or elsewhere; see :meth:`core.runtimes.pool.ModelPool.lease`."""
        return self.handle(spec).lease(on_progress, cancelled)

    def add_remote(self, name: str, url: str, key: str = "") -> Remote:
        """Keep a remote; see :meth:`core.remotes.RemoteBook.add`."""
        remote = self.remotes.directory.book.add(name, url, key)
        self.remotes.directory.forget(remote.name)
        return remote

    def remove_remote(self, name: str) -> bool:
        """Forget a remote; see :meth:`core.remotes.RemoteBook.remove`."""
        known = self.remotes.directory.book.remove(name)
        self.remotes.directory.forget(name)
        return known

    def answer(
        self,
        handle: ModelHandle | RemoteHandle,
        request: GenerationRequest,
        *,
        origin: Origin,
        session: str | None = None,
        owner: str = GUEST,
        lane: str | None = None,
    ) -> Job:
        """Start an answer; what becomes of it is recorded.

        Args:
            handle: the model.
            request: what it is asked.
            origin: from where.
            session: of the pages in which it was asked.
            owner: whose it is.
            lane: by whom answers take turns and are limited; None for nobody's, on the command
                line.

        Raises:
            AccessDeniedError: the account was deleted or disabled meanwhile; nothing was started.
            BadRequestError: the request cannot be used; nothing was started.
            TooManyAnswersError: the person has as many as they may; nothing was started.
        """
        self._check_size(request)
        try:
            recorder: JobObserver = RunRecorder(self.runs, origin, session=session, owner=owner)
        except RecordsError as error:
            logger.warning("This answer is not recorded: %s", error)
            recorder = JobObserver()
        return self._begin(handle, request, Metered(self.meters, origin, recorder), owner, lane)

    def answer_unrecorded(
        self,
        handle: ModelHandle | RemoteHandle,
        request: GenerationRequest,
        *,
        origin: Origin,
        owner: str = GUEST,
        lane: str | None = None,
    ) -> Job:
        """Start an answer that is given for its timings alone; see :meth:`answer`."""
        self._check_size(request)
        observer = Metered(self.meters, origin, JobObserver())
        return self._begin(handle, request, observer, owner, lane)

    def _begin(
        self,
        handle: ModelHandle | RemoteHandle,
        request: GenerationRequest,
        observer: JobObserver,
        owner: str,
        lane: str | None,
    ) -> Job:
        self._check_owner(owner)
        share = None if lane is None else self._shares.claim(lane)
        try:
            job = Job(
                handle,
                request,
                timeout_s=self.settings.generation_timeout_s,
                observer=observer,
                share=share,
            )
        except PaddockError:
            if share is not None:
                share.give_back()
            raise
        with self._jobs_turn:
            self._jobs = {each: whose for each, whose in self._jobs.items() if not each.done}
            self._jobs[job] = owner
        return job.start()

    def standing(self) -> Standing:
        """How many answers wait and are under way, and what is in memory."""
        with self._jobs_turn:
            phases = [job.phase for job in self._jobs]
        return Standing(
            waiting=sum(phase in (Phase.PREPARING, Phase.QUEUED) for phase in phases),
            under_way=sum(phase in (Phase.PREFILL, Phase.ANSWERING) for phase in phases),
            loaded=tuple(info.spec for info in self.pool.loaded()),
        )

    def stop_answers(self, owner: str, patience_s: float = STOP_PATIENCE_S) -> None:
        """Stop all answers of a person, and wait for their ends: their rows are written then."""
        with self._jobs_turn:
            theirs = [job for job, whose in self._jobs.items() if whose == owner]
        for job in theirs:
            job.cancel()
        deadline = time.monotonic() + patience_s
        for job in theirs:
            job.wait(max(0.0, deadline - time.monotonic()))

    def _check_owner(self, owner: str) -> None:
        """
        Raises:
            AccessDeniedError: nobody may ask in this person's name any more, as a list would that
                was begun before.
        """
        if owner == GUEST:
            return
        try:
            account = AccountStore(self.runs.database).get(owner)
        except RecordsError as error:  # costs the row, never the answer
            logger.warning("Whether account %s may ask could not be looked up: %s", owner, error)
            return
        if account is None or account.disabled:
            raise AccessDeniedError(
                "This account was deleted or disabled; it gets no more answers."
            )

    def _check_size(self, request: GenerationRequest) -> None:
        """
        Raises:
            BadRequestError: it asks for more than the settings allow anybody.
        """
        length, most = request.characters, self.settings.max_characters
        if length > most:
            raise BadRequestError(
                f"Instruction and context have {length:,} characters together; the most that is "
                f"taken here is {most:,}."
            )
        wanted, most = request.sampling.max_new_tokens, self.settings.max_new_tokens
        if wanted > most:
            raise BadRequestError(
                f"{wanted:,} new tokens were asked for; the most that is given here is {most:,}."
            )

    def delete(self, stored: StoredModel) -> int:
        """Remove a converted model from disk, out of memory first, and return the bytes freed.

        Raises:
            ModelBusyError: it is answering or being converted.
        """
        self.settings.check_not_kiosk()
        self._unload_below(stored.folder)
        return self.store.delete(stored)

    def delete_npu_weights(self) -> int:
        """Remove what was made for an NPU, out of memory first, and return the bytes freed.

        Raises:
            ModelBusyError: one is answering or being made, or a benchmark runs.
        """
        folder = self.settings.npu_models_dir
        return delete_npu_weights(self.settings, lambda: self._unload_below(folder))

    def _unload_below(self, folder: Path) -> None:
        """
        Raises:
            ModelBusyError: one of these models is answering.
        """
        for loaded in self.pool.loaded():
            if loaded.stored.folder.is_relative_to(folder):
                self.pool.unload(loaded.spec)

    def keep_tuned(self, tuned: Tuned) -> None:
        """Load the model under these hints from now on; an idle one is loaded anew."""
        self.tuned.keep(tuned)
        self._reload(tuned.key)

    def forget_tuned(self, key: TuningKey) -> bool:
        """Load the model under the usual hints again; False where it was all along."""
        known = self.tuned.forget(key)
        self._reload(key)
        return known

    def _reload(self, key: TuningKey) -> None:
        for loaded in self.pool.loaded():
            spec = loaded.spec
            if (loaded.stored.key, spec.precision) == (key.model, key.precision):
                with suppress(ModelBusyError):  # then from its next loading on
                    self.pool.unload(spec)

    def _tuned_hints(self, spec: ModelSpec, stored: StoredModel) -> ExecutionHints | None:
        """See :data:`core.runtimes.pool.HintsFor`."""
        key = TuningKey.here(stored.key, spec.precision, spec.device, spec.runtime)
        tuned = self.tuned.find(key)
        return tuned.hints if tuned is not None else None

    def last_used(self) -> ModelSpec | None:
        """The model of the latest answer; None where there is none, or it is not on disk."""
        try:
            runs = self.runs.recent(1)
            if not runs:
                return None
            start = runs[0].start
            if start.runtime == RuntimeName.REMOTE:  # nobody is called for a guess
                return None
            spec = self.named(
                ModelSpec(
                    recorded_name(start.model, start.source),
                    Precision(start.precision),
                    start.device,
                    RuntimeName(start.runtime),
                )
            )
            stored = find_stored(self.store, spec)
        except (PaddockError, ValueError):
            return None
        return spec if stored is not None else None

    def prepare(self) -> None:
        """Import what the usual runtime needs, ahead of the first question."""
        self._runtimes[DEFAULT_RUNTIME].prepare()

    def warm(self, spec: ModelSpec) -> None:
        """Load a model ahead of the first question; what fails then fails when it is asked."""
        with (
            suppress(PaddockError),
            self.pool.lease(self.named(spec), lambda message, fraction: None, threading.Event()),
        ):
            logger.info("%s is ready", spec.label)

    def close(self) -> None:
        """Stop what is measured, fetched or converted, free idle models, let the records go."""
        self.tuning.close()
        self.benchmark.close()
        self.tasks.close()
        self.pool.close()
        for runtime in self._runtimes.values():
            if isinstance(runtime, ApartRuntime):
                runtime.close()
        self.remotes.directory.close()
        if "runs" in vars(self):
            self.runs.close()

    def _provide(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> StoredModel:
        """See :class:`core.runtimes.pool.Provider`."""

        def report(progress: Progress) -> None:
            on_progress(progress.message, progress.fraction)

        source, wanted = self.store.resolve(spec.model), int4_for(spec)
        stored = find_for_device(self.store, source, spec.precision, wanted)
        if stored is not None:
            stored = self.store.verify(stored, full=False)
            return with_genai_check(stored, self.settings, report, cancelled)
        with MONITOR.running():  # other answers' timings are not what they would be alone
            if wanted is not None:
                return have_for_device(
                    source, wanted, settings=self.settings, progress=report, cancel=cancelled
                )
            return convert_in_process(
                source,
                spec.precision,
                settings=self.settings,
                progress=report,
                cancel=cancelled,
            )


def default_runtimes(settings: Settings) -> dict[RuntimeName, Runtime]:
    """Every runtime of converted models."""
    return {
        RuntimeName.GENAI: ApartRuntime(settings.max_at_once),
        RuntimeName.OPTIMUM: OptimumRuntime(),
    }


def int4_for(spec: ModelSpec) -> Int4Settings | None:
    """INT4 settings that the device wants; None leaves the catalogue's."""
    return device_int4(spec.precision, spec.device)


def find_stored(store: ModelStore, spec: ModelSpec) -> StoredModel | None:
    """What answers as it is; None where it would have to be fetched or converted first.

    Raises:
        PaddockError: there is no such model, or what is stored of it is damaged.
    """
    return find_for_device(store, store.resolve(spec.model), spec.precision, int4_for(spec))
