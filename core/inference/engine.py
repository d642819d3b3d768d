"""Composes store, runtimes, pool and records; one :class:`Engine` per process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

from core.auth import Accounts
from core.catalogue import Precision
from core.db import (
    GUEST,
    AccountStore,
    ConversationStore,
    EvaluationStore,
    Origin,
    RunStore,
)
from core.db.measurements import MeasurementStore
from core.errors import (
    AccessDeniedError,
    BadRequestError,
    CorruptModelError,
    ModelBusyError,
    PaddockError,
    RecordsError,
)
from core.inference.contention import MONITOR
from core.inference.conversations import Conversations
from core.inference.job import Job, JobObserver, Phase
from core.inference.prometheus import MetricsObserver, ServerMetrics, ServerState
from core.inference.recorder import RunRecorder
from core.inference.request import COMMAND_LINE, GenerationRequest, User
from core.inference.scheduler import Scheduler
from core.remotes import Directory, Remote, RemoteRegistry
from core.runtimes.base import Runtime
from core.runtimes.logits import LogitsModel, LogitsRuntime, logits_spec
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.pool import Lease, ModelHandle, ModelPool, OnProgress
from core.runtimes.remote import RemotePool
from core.runtimes.spec import DEFAULT_RUNTIME, ExecutionHints, ModelSpec, RuntimeName
from core.runtimes.subprocess_runtime import SubprocessRuntime
from core.runtimes.tuned_hints import Tuned, TunedHints, TuningKey
from core.settings import Settings
from core.store import ModelStore, Progress, StoredModel, TaskQueue, convert_in_process
from core.store.hub import HubAccess
from core.store.resolver import recorded_name

ABANDONED_S = 60.0
"""Seconds without an open page after which a guest's answer is cancelled."""
STOP_TIMEOUT_S = 5.0
"""Seconds to wait for cancelled answers to end; each ends within a token."""

_Store = TypeVar("_Store", RunStore, EvaluationStore, MeasurementStore)

logger = logging.getLogger(__name__)


class Engine:
    """Model store, pool and records of this process; starts all answers."""

    def __init__(
        self, settings: Settings, runtimes: Mapping[RuntimeName, Runtime] | None = None
    ) -> None:
        """
        Args:
            runtimes: runtimes by name; None: :func:`default_runtimes`.
        """
        self.settings = settings
        self.store = ModelStore(settings)
        self.tuned = TunedHints(settings.home)
        self._runtimes = runtimes or default_runtimes(settings)
        self.pool = ModelPool(
            settings,
            self._provide,
            {RuntimeName.LOGITS: LogitsRuntime(), **self._runtimes},
            self._tuned_hints,
            MONITOR.running,
            self._is_current,
        )
        self.remotes = RemotePool(Directory(RemoteRegistry(settings), settings), settings)
        self.scheduler = Scheduler(settings)
        self._jobs: dict[Job, User] = {}
        """Running answers, and those that ended since the latest one started."""
        self._pages_seen: dict[str, float] = {}
        """When a browser whose answers are running had an open page, in monotonic seconds."""
        self._jobs_lock = threading.Lock()
        self._hub_access: dict[str, HubAccess] = {}
        """By key of a model that a user agreed to download: the access of their session."""
        self.metrics = ServerMetrics(self.state)
        self.tasks = TaskQueue(settings, working=MONITOR.running)

    @cached_property
    def runs(self) -> RunStore:
        """The run table.

        Raises:
            RecordsError: the database cannot be opened.
        """
        return _interrupted_marked(RunStore.open(self.settings), "runs")

    @cached_property
    def accounts(self) -> Accounts:
        """User accounts; in the same database as the runs.

        Raises:
            RecordsError: the database cannot be opened.
        """
        return Accounts(AccountStore(self.runs.database), self.settings)

    @cached_property
    def conversations(self) -> Conversations:
        """Conversations of the Instruct page; in the same database as the runs."""
        return Conversations(lambda: ConversationStore(self.runs.database), self.job)

    @cached_property
    def evaluations(self) -> EvaluationStore:
        """Test sets and their runs; in the same database as the runs.

        Raises:
            RecordsError: the database cannot be opened.
        """
        return _interrupted_marked(EvaluationStore(self.runs.database), "test runs")

    @cached_property
    def measurements(self) -> MeasurementStore:
        """Measurements of benchmarks; in the same database as the runs.

        Raises:
            RecordsError: the database cannot be opened.
        """
        return _interrupted_marked(MeasurementStore(self.runs.database), "benchmarks")

    def handle(self, spec: ModelSpec) -> ModelHandle:
        """Return the handle of a local or remote model, without loading or contacting it."""
        if spec.remote:
            return ModelHandle(self.remotes, spec)
        return self.pool.handle(self.named(spec))

    def named(self, spec: ModelSpec) -> ModelSpec:
        """Return the spec with the model's key in place of any other name."""
        return spec if spec.remote else replace(spec, model=self.store.name(spec.model))

    def lease(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> AbstractContextManager[Lease | None]:
        """Lease a local or remote model; see :meth:`core.runtimes.pool.ModelPool.lease`."""
        return self.handle(spec).lease(on_progress, cancelled)

    @contextmanager
    def logits(
        self,
        spec: ModelSpec,
        on_progress: OnProgress = lambda message, fraction: None,
        cancelled: threading.Event | None = None,
    ) -> Iterator[LogitsModel | None]:
        """Lease the model that returns the logits of these weights, loading it first if necessary.

        Yields:
            The model, or None when ``cancelled`` was set before it was ready.

        Raises:
            ModelBusyError: a measurement is running, whose timings this would change.
            PaddockError: it cannot be loaded, or its server or device has no logits.
        """
        wanted = self.named(logits_spec(spec))
        if MONITOR.measuring:
            raise ModelBusyError(
                "A benchmark is being measured, which this would disturb. Try again when it has "
                "ended."
            )
        with self.pool.lease(wanted, on_progress, cancelled or threading.Event()) as lease:
            if lease is None:
                yield None
                return
            with MONITOR.running():
                yield cast(LogitsModel, lease.model)

    def add_remote(self, name: str, url: str, key: str = "") -> Remote:
        """Add a remote server; see :meth:`core.remotes.RemoteRegistry.add`."""
        remote = self.remotes.directory.book.add(name, url, key)
        self.remotes.directory.forget(remote.name)
        return remote

    def remove_remote(self, name: str) -> bool:
        """Remove a remote server; see :meth:`core.remotes.RemoteRegistry.remove`."""
        known = self.remotes.directory.book.remove(name)
        self.remotes.directory.forget(name)
        return known

    def answer(
        self,
        handle: ModelHandle,
        request: GenerationRequest,
        *,
        origin: Origin,
        user: User = COMMAND_LINE,
        recorded: bool = True,
    ) -> Job:
        """Start an answer.

        Args:
            handle: the model.
            request: the request.
            origin: page, API or command line.
            user: whose answer it is.
            recorded: whether to write it to the run table; an answer that is used for its timings
                only is not recorded.

        Raises:
            AccessDeniedError: the account was deleted or disabled; nothing was started.
            BadRequestError: the request is invalid; nothing was started.
            TooManyAnswersError: the user has reached the limit; nothing was started.
        """
        self.check_size(request)
        observers: list[JobObserver] = [MetricsObserver(self.metrics, origin)]
        if recorded:
            try:
                observers.append(
                    RunRecorder(self.runs, origin, session=user.session, owner=user.owner)
                )
            except RecordsError as error:
                logger.warning("This answer is not recorded: %s", error)
        self._check_owner(user.owner)
        job = Job(
            handle,
            request,
            self.scheduler,
            timeout_s=self.settings.generation_timeout_s,
            observers=observers,
            user=user.lane,
            logits=self.logits,
        )
        with self._jobs_lock:
            self._jobs = {each: whose for each, whose in self._jobs.items() if not each.done}
            self._jobs[job] = user
        return job.start()

    def state(self) -> ServerState:
        """Return the numbers of waiting and running answers, and the loaded models."""
        with self._jobs_lock:
            phases = [job.phase for job in self._jobs]
        return ServerState(
            waiting=sum(phase in (Phase.PREPARING, Phase.QUEUED) for phase in phases),
            running=sum(phase in (Phase.PREFILL, Phase.ANSWERING) for phase in phases),
            loaded=tuple(info.spec for info in self.pool.loaded()),
        )

    def job(self, job_id: str) -> Job | None:
        """Return a running answer by its id, or one that has just ended; None if there is none."""
        with self._jobs_lock:
            return next((job for job in self._jobs if job.id == job_id), None)

    def cancel_abandoned(self, open_browsers: Collection[str]) -> None:
        """Cancel the answers of guests whose browsers have had no open page for a minute.

        Args:
            open_browsers: browsers with an open page; call it every few seconds.
        """
        now = time.monotonic()
        with self._jobs_lock:
            jobs = [(job, user.browser) for job, user in self._jobs.items() if not job.done]
        waiting = {browser for _, browser in jobs if browser is not None}
        seen = {each: self._pages_seen.get(each, now) for each in waiting}
        self._pages_seen = seen | dict.fromkeys(waiting & set(open_browsers), now)
        for job, browser in jobs:
            if browser is not None and now - self._pages_seen[browser] >= ABANDONED_S:
                job.cancel()

    def stop_answers(self, owner: str, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Cancel all answers of an account and wait until they have ended and are recorded."""
        with self._jobs_lock:
            jobs = [job for job, user in self._jobs.items() if user.owner == owner]
        for job in jobs:
            job.cancel()
        deadline = time.monotonic() + timeout_s
        for job in jobs:
            job.wait(max(0.0, deadline - time.monotonic()))

    def _check_owner(self, owner: str) -> None:
        if owner == GUEST:
            return
        try:
            account = AccountStore(self.runs.database).get(owner)
        except RecordsError as error:  # a failing database must not prevent the answer
            logger.warning("The state of account %s could not be read: %s", owner, error)
            return
        if account is None or account.disabled:
            raise AccessDeniedError(
                "This account was deleted or disabled and cannot request answers. Ask an "
                "administrator."
            )

    def check_size(self, request: GenerationRequest) -> None:
        """Check the length of a request; a started answer is checked.

        Raises:
            BadRequestError: the request exceeds a limit of the settings.
        """
        length, most = request.characters, self.settings.max_characters
        if length > most:
            raise BadRequestError(
                f"Instruction and context have {length:,} characters together. The maximum here is "
                f"{most:,}."
            )
        requested, most = request.sampling.max_new_tokens, self.settings.max_new_tokens
        if most is not None and requested > most:
            raise BadRequestError(
                f"{requested:,} new tokens were requested. The maximum here is {most:,}."
            )

    def delete(self, stored: StoredModel) -> int:
        """Unload a converted model, delete it from disk, and return the bytes freed.

        Raises:
            ModelBusyError: it is in use or being converted.
        """
        self.settings.check_not_kiosk()
        self.unload_below(stored.folder)
        return self.store.delete(stored)

    def unload_below(self, folder: Path) -> None:
        """Unload the models whose files are in a folder, before these are deleted.

        Raises:
            ModelBusyError: one of these models is in use.
        """
        for loaded in self.pool.loaded():
            if loaded.stored.folder.is_relative_to(folder):
                self.pool.unload(loaded.spec)

    def keep_tuned(self, tuned: Tuned) -> None:
        """Use these hints for the model from now on; unload it if it is idle."""
        self.tuned.keep(tuned)
        self._reload(tuned.key)

    def forget_tuned(self, key: TuningKey) -> bool:
        """Use the default hints for the model again; return False if there were no others."""
        known = self.tuned.forget(key)
        self._reload(key)
        return known

    def _reload(self, key: TuningKey) -> None:
        for loaded in self.pool.loaded():
            spec = loaded.spec
            if (loaded.stored.key, spec.precision) == (key.model, key.precision):
                with suppress(ModelBusyError):  # the hints then apply from its next load on
                    self.pool.unload(spec)

    def _tuned_hints(self, spec: ModelSpec, stored: StoredModel) -> ExecutionHints | None:
        """See :data:`core.runtimes.pool.HintsFor`."""
        key = TuningKey.here(stored.key, spec.precision, spec.device, spec.runtime)
        tuned = self.tuned.find(key)
        return None if tuned is None else tuned.hints

    def download_with(self, spec: ModelSpec, access: HubAccess) -> None:
        """Use this access, with the token in it, when the model is downloaded for its next answer.

        It is kept in memory until then, and used once.
        """
        self._hub_access[self.store.resolve(spec.model).key] = access

    def last_used(self) -> ModelSpec | None:
        """Return the model of the latest answer; None if there is none or it is not on disk."""
        try:
            runs = self.runs.recent(1)
            if not runs:
                return None
            start = runs[0].start
            if start.runtime == RuntimeName.REMOTE:  # do not contact servers at start-up
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
        """Import the libraries of the default runtime before the first instruction."""
        self._runtimes[DEFAULT_RUNTIME].prepare()

    def warm(self, spec: ModelSpec) -> None:
        """Load a model before the first instruction; errors are raised when it is used."""
        spec = replace(self.named(spec), prefix_cache=True)
        with (
            suppress(PaddockError),
            self.pool.lease(spec, lambda message, fraction: None, threading.Event()),
        ):
            logger.info("%s is ready", spec.label)

    def close(self) -> None:
        """Stop downloads and conversions, unload idle models, close the database."""
        self.tasks.close()
        self.pool.close()
        for runtime in self._runtimes.values():
            if isinstance(runtime, SubprocessRuntime):
                runtime.close()
        self.remotes.directory.close()
        if "runs" in vars(self):
            self.runs.close()

    def _is_current(self, spec: ModelSpec, loaded: StoredModel) -> bool:
        """See :class:`core.runtimes.pool.ModelPool`."""
        try:
            found = find_stored(self.store, spec)
            if found is None or found.manifest.created != loaded.manifest.created:
                return False
            self.store.verify(found, full=False)
        except CorruptModelError:
            return False
        except PaddockError:
            pass  # the source is no model any more: the stored one is as it was
        return True

    def _provide(
        self, spec: ModelSpec, on_progress: OnProgress, cancelled: threading.Event
    ) -> StoredModel:
        """See :data:`core.runtimes.pool.Provider`."""

        def report(progress: Progress) -> None:
            on_progress(progress.message, progress.fraction)

        source, precision = self.store.resolve(spec.model), spec.precision.on(spec.device)
        stored = self.store.find(source, precision)
        if stored is not None:
            return self.store.verify(stored, full=False)
        with MONITOR.running():  # a conversion affects the timings of other answers
            return convert_in_process(
                source,
                precision,
                settings=self.settings,
                access=self._hub_access.pop(source.key, None),
                progress=report,
                cancel=cancelled,
            )


def _interrupted_marked(store: _Store, rows: str) -> _Store:
    """Mark what an ended process has left running as interrupted; return the store."""
    if marked := store.mark_interrupted():
        logger.info("Marked %d %s of an ended process as interrupted", marked, rows)
    return store


def default_runtimes(settings: Settings) -> dict[RuntimeName, Runtime]:
    """Return the runtimes of converted models."""
    return {
        RuntimeName.GENAI: SubprocessRuntime(settings.max_at_once),
        RuntimeName.OPTIMUM: OptimumRuntime(),
    }


def find_stored(store: ModelStore, spec: ModelSpec) -> StoredModel | None:
    """Return the stored model of a spec; None if it must be downloaded or converted first.

    Raises:
        PaddockError: there is no such model, or its stored files are damaged.
    """
    return store.find(store.resolve(spec.model), spec.precision.on(spec.device))
