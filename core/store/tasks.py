"""Downloads and conversions that people asked for: queued, watched, stopped, found again.

Each task runs in a child process (:mod:`core.store.subprocesses`), for which a thread of its own
waits. One conversion runs at a time, and one download beside it; what works on the same model
waits. The tasks belong to the process, not to the page or the session that asked for them.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from core.catalogue import Int4Settings, Int8Settings, Precision
from core.errors import BadRequestError, PaddockError, StoppedError
from core.settings import Settings
from core.store.progress import Progress
from core.store.resolver import Source
from core.store.store import ModelStore
from core.store.stored import StoredModel
from core.store.subprocesses import convert_in_process, fetch_in_process

if TYPE_CHECKING:
    from core.store.hub import HubAccess

logger = logging.getLogger(__name__)

LOG_LINES = 200
"""Lines of a task's log that are kept."""

FINISHED_KEPT = 50
"""Finished tasks that are remembered; the oldest are forgotten first."""

_CLOSE_S = 10.0
"""How long closing waits for child processes to be killed."""


class TaskKind(StrEnum):
    """What a task does."""

    GET = "get"
    """Fetch the model from the hub and convert nothing."""
    CONVERT = "convert"
    """Have the model in one precision, fetching it first where needed."""


class TaskState(StrEnum):
    """Where a task stands; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def final(self) -> bool:
        """Whether nothing more comes."""
        return self in (TaskState.DONE, TaskState.FAILED, TaskState.STOPPED)


@dataclass(frozen=True)
class TaskRequest:
    """What a person asks for."""

    model: str
    """Catalogue key, Hugging Face id, folder, or key of a stored model."""
    kind: TaskKind
    precision: Precision | None = None
    """Of the weights; None for :attr:`TaskKind.GET`."""
    int4: Int4Settings | None = None
    """Overrides the catalogue's."""
    int8: Int8Settings | None = None
    """Overrides the usual ones."""
    access: HubAccess | None = field(default=None, repr=False)
    """How the hub is asked; None asks as the environment says. No view of a task shows it."""


@dataclass(frozen=True)
class TaskView:
    """A task as it stands now."""

    id: int
    request: TaskRequest
    """Without its access: whoever sees a task need not be the one who asked for it."""
    key: str
    """Of the model in the store."""
    title: str
    """For a person: "Convert TinyLlama 1.1B Chat to INT4"."""
    state: TaskState
    place: int | None
    """While it waits: 1 is the next of its kind."""
    progress: Progress | None
    """The last step it told; None before the first."""
    created: datetime
    """UTC."""
    elapsed_s: float
    """Since it started to run, up to its end; 0 while it waits."""
    memory_bytes: int | None
    """Resident set size of the child process now; None where none runs."""
    peak_memory_bytes: int | None
    """The highest of these, looked at twice a second; None where no child process ran."""
    log: tuple[str, ...]
    """The last lines, the steps among them, each with the time since the start."""
    error: str | None
    """One sentence for a person, of a failed task."""
    stored: StoredModel | None
    """The result of a conversion that is done."""


class _Task:
    """A task under way; the queue's lock guards what changes in it."""

    def __init__(self, number: int, request: TaskRequest, source: Source) -> None:
        self.number = number
        self.request = request
        self.source = source
        self.title = _title(request, source)
        self.state = TaskState.WAITING
        self.created = datetime.now(UTC)
        self.cancel = threading.Event()
        self.thread: threading.Thread | None = None
        self.progress: Progress | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.memory_bytes: int | None = None
        self.peak_memory_bytes: int | None = None
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.error: str | None = None
        self.stored: StoredModel | None = None

    @property
    def key(self) -> str:
        return self.source.key

    @property
    def elapsed_s(self) -> float:
        if self.started is None:
            return 0.0
        return (self.ended if self.ended is not None else time.monotonic()) - self.started

    def is_for(self, request: TaskRequest, source: Source) -> bool:
        mine = (self.key, self.request.kind, self.request.precision)
        return mine == (source.key, request.kind, request.precision)

    def write(self, text: str) -> None:
        minutes, seconds = divmod(int(self.elapsed_s), 60)
        self.log.append(f"{minutes:3d}:{seconds:02d}  {text}")

    def finish(self, state: TaskState) -> None:
        self.state, self.ended = state, time.monotonic()
        self.memory_bytes = None
        self.request = replace(self.request, access=None)  # a token is not kept beyond its use

    def view(self, place: int | None) -> TaskView:
        return TaskView(
            id=self.number,
            request=replace(self.request, access=None),
            key=self.key,
            title=self.title,
            state=self.state,
            place=place,
            progress=self.progress,
            created=self.created,
            elapsed_s=self.elapsed_s,
            memory_bytes=self.memory_bytes,
            peak_memory_bytes=self.peak_memory_bytes,
            log=tuple(self.log),
            error=self.error,
            stored=self.stored,
        )


class TaskQueue:
    """The downloads and conversions of one process; safe to use from several threads."""

    def __init__(
        self,
        settings: Settings,
        working: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """
        Args:
            settings: tell the home folder.
            working: entered for as long as a task runs, so that others may know of it.
        """
        self._settings = settings
        self._working = working
        self._store = ModelStore(settings)
        self._tasks: dict[int, _Task] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, request: TaskRequest) -> int:
        """Queue a task and return its number.

        The number of a task that waits or runs already is returned where it is for the same model
        and precision.

        Raises:
            UnknownModelError, NotAModelError, CorruptModelError: there is no such model.
            BadRequestError: a conversion without a precision, or the app is closing.
            AccessDeniedError: this is a kiosk.
        """
        self._settings.check_not_kiosk()
        if (request.kind is TaskKind.CONVERT) != (request.precision is not None):
            raise BadRequestError("Choose the precision to convert to; a download takes none.")
        source = self._store.resolve(request.model)
        with self._lock:
            if self._closed:
                raise BadRequestError("Paddock is closing; start it again and ask once more.")
            for task in self._tasks.values():
                if not task.state.final and task.is_for(request, source):
                    return task.number
            task = _Task(next(self._numbers), request, source)
            self._tasks[task.number] = task
            self._start_what_can_start()
        return task.number

    def list(self) -> list[TaskView]:
        """All tasks, the newest first."""
        with self._lock:
            places = self._places()
            return [task.view(places.get(task.number)) for task in reversed(self._tasks.values())]

    def get(self, number: int) -> TaskView | None:
        """One task, or None where there is none of that number (any more)."""
        with self._lock:
            task = self._tasks.get(number)
            return task.view(self._places().get(number)) if task else None

    def stop(self, number: int) -> None:
        """End a task that waits or runs; returns at once, the end comes within a second.

        A download keeps what came for the next attempt, a conversion keeps nothing but that.
        """
        with self._lock:
            task = self._tasks.get(number)
            if task is not None:
                self._stop(task)
                self._start_what_can_start()

    def dismiss(self, number: int) -> None:
        """Forget a task that has ended; one that waits or runs stays."""
        with self._lock:
            task = self._tasks.get(number)
            if task is not None and task.state.final:
                del self._tasks[number]

    def active(self) -> bool:
        """Whether any task waits or runs."""
        with self._lock:
            return any(not task.state.final for task in self._tasks.values())

    def close(self) -> None:
        """Stop everything, take nothing more, and wait for the child processes to end."""
        with self._lock:
            self._closed = True
            for task in self._tasks.values():
                self._stop(task)
            threads = [task.thread for task in self._tasks.values() if task.thread]
        deadline = time.monotonic() + _CLOSE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # Called with the lock held

    def _stop(self, task: _Task) -> None:
        if task.state is TaskState.WAITING:
            task.finish(TaskState.STOPPED)
        task.cancel.set()

    def _places(self) -> dict[int, int]:
        places: dict[int, int] = {}
        for kind in TaskKind:
            waiting = [task for task in self._tasks.values() if _waits(task, kind)]
            places |= {task.number: place for place, task in enumerate(waiting, start=1)}
        return places

    def _start_what_can_start(self) -> None:
        for kind in TaskKind:
            running = [task for task in self._tasks.values() if task.state is TaskState.RUNNING]
            if any(task.request.kind is kind for task in running):
                continue
            busy = {task.key for task in running}
            for task in self._tasks.values():
                if _waits(task, kind) and task.key not in busy:
                    self._start(task)
                    break

    def _start(self, task: _Task) -> None:
        task.state, task.started = TaskState.RUNNING, time.monotonic()
        task.thread = threading.Thread(
            target=self._run, args=(task,), name=f"task-{task.number}", daemon=True
        )
        task.thread.start()

    def _forget_the_oldest(self) -> None:
        final = [number for number, task in self._tasks.items() if task.state.final]
        for number in final[:-FINISHED_KEPT]:
            del self._tasks[number]

    # In the task's own thread

    def _run(self, task: _Task) -> None:
        state, last, error, stored = TaskState.FAILED, "Done.", None, None
        try:
            with self._working():
                stored = self._carry_out(task)
            state = TaskState.DONE
        except StoppedError as stopped:
            state, last = TaskState.STOPPED, str(stopped)
        except PaddockError as failure:
            last = error = str(failure)
        except Exception as failure:  # a task never ends without a word
            logger.exception("%s failed unexpectedly", task.title)
            last = error = (
                f"{task.title} failed unexpectedly ({type(failure).__name__}: {failure}); the "
                "server's log tells more."
            )
        with self._lock:
            task.error, task.stored = error, stored
            task.write(last)
            task.finish(state)
            self._forget_the_oldest()
            if not self._closed:
                self._start_what_can_start()

    def _carry_out(self, task: _Task) -> StoredModel | None:
        request, watch = task.request, _Watch(task, self._lock)
        if request.precision is None:
            fetch_in_process(
                task.source,
                settings=self._settings,
                access=request.access,
                progress=watch.progress,
                cancel=task.cancel,
                watch=watch,
            )
            return None
        return convert_in_process(
            task.source,
            request.precision,
            settings=self._settings,
            int4=request.int4,
            int8=request.int8,
            access=request.access,
            progress=watch.progress,
            cancel=task.cancel,
            watch=watch,
        )


class _Watch:
    """Writes into a task what its child process says; see :class:`ChildWatch`."""

    def __init__(self, task: _Task, lock: threading.Lock) -> None:
        self._task = task
        self._lock = lock

    def progress(self, step: Progress) -> None:
        with self._lock:
            before, self._task.progress = self._task.progress, step
            if before is None or (before.stage, before.message) != (step.stage, step.message):
                self._task.write(step.message)

    def memory(self, resident_bytes: int) -> None:
        with self._lock:
            self._task.memory_bytes = resident_bytes
            self._task.peak_memory_bytes = max(self._task.peak_memory_bytes or 0, resident_bytes)

    def line(self, text: str) -> None:
        with self._lock:
            self._task.write(text)


def _waits(task: _Task, kind: TaskKind) -> bool:
    return task.state is TaskState.WAITING and task.request.kind is kind


def _title(request: TaskRequest, source: Source) -> str:
    if request.precision is None:
        return f"Get {source.title}"
    return f"Convert {source.title} {request.precision.aim}"
