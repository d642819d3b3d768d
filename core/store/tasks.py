"""The queue of downloads and conversions.

Each task runs in a child process (:mod:`core.store.subprocesses`), for which a separate thread
waits. At most one conversion and one download run at the same time, and never two tasks for the
same model. The tasks belong to the process, not to the page or session that submitted them.
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
from typing import TYPE_CHECKING, Any

from core.catalogue import Compression, Precision
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
"""Number of lines of a task's log that are kept."""

FINISHED_KEPT = 50
"""Number of finished tasks that are kept; the oldest are removed first."""

_CLOSE_S = 10.0
"""Time that closing waits for child processes to end."""


class TaskState(StrEnum):
    """State of a task; the last three are final."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def final(self) -> bool:
        """Whether the task has ended."""
        return self in (TaskState.DONE, TaskState.FAILED, TaskState.STOPPED)


@dataclass(frozen=True)
class TaskRequest:
    """A requested download or conversion."""

    model: str
    """Catalogue key, Hugging Face id, folder, or key of a stored model."""
    precision: Precision | None = None
    """To which it is converted, after downloading it if needed; None only downloads it."""
    compression: Compression | None = None
    """Overrides the settings of the recipe, or the default INT8 settings."""
    access: HubAccess | None = field(default=None, repr=False)
    """Access to the hub; None takes it from the environment. Never part of a :class:`TaskView`."""

    @property
    def converts(self) -> bool:
        """Whether it is a conversion; else it only downloads."""
        return self.precision is not None


@dataclass(frozen=True)
class TaskView:
    """Snapshot of a task."""

    id: int
    request: TaskRequest
    """Without its access: other users may see the task too."""
    key: str
    """Key of the model in the store."""
    title: str
    """For users: "Convert TinyLlama 1.1B Chat to INT4"."""
    created: datetime
    """UTC."""
    state: TaskState = TaskState.WAITING
    place: int | None = None
    """Place in the queue while waiting: 1 is the next of its kind."""
    progress: Progress | None = None
    """Latest step; None before the first."""
    elapsed_s: float = 0.0
    """Seconds from its start to now or its end; 0 while it waits."""
    memory_bytes: int | None = None
    """Current resident set size of the child process; None if none is running."""
    peak_memory_bytes: int | None = None
    """Peak of these, measured twice a second; None if no child process ran."""
    log: tuple[str, ...] = ()
    """Last lines of the log, including the steps, each with the time since the start."""
    error: str | None = None
    """Message for the user if the task failed."""
    stored: StoredModel | None = None
    """Result of a finished conversion."""


class _Task:
    """A task in the queue; the queue's lock guards its state."""

    def __init__(self, now: TaskView, source: Source, access: HubAccess | None) -> None:
        self.now = now
        self.source = source
        self.access = access
        self.cancel = threading.Event()
        self.thread: threading.Thread | None = None
        self.started: float | None = None
        self.log: deque[str] = deque(maxlen=LOG_LINES)

    def change(self, **changes: Any) -> None:
        self.now = replace(self.now, **changes)

    def elapsed_s(self) -> float:
        if self.started is None or self.now.state.final:
            return self.now.elapsed_s
        return time.monotonic() - self.started

    def write(self, text: str) -> None:
        minutes, seconds = divmod(int(self.elapsed_s()), 60)
        self.log.append(f"{minutes:3d}:{seconds:02d}  {text}")

    def finish(self, state: TaskState) -> None:
        self.change(elapsed_s=self.elapsed_s(), state=state, memory_bytes=None)
        self.access = None  # do not keep the token after use

    def view(self, place: int | None) -> TaskView:
        return replace(self.now, place=place, elapsed_s=self.elapsed_s(), log=tuple(self.log))


class TaskQueue:
    """The downloads and conversions of one process; safe to use from several threads."""

    def __init__(
        self,
        settings: Settings,
        working: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """
        Args:
            working: context that is entered while a task runs, for example to record contention.
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

        If a task for the same model and precision is waiting or running already, its number is
        returned.

        Raises:
            UnknownModelError, NotAModelError, CorruptModelError: the model cannot be resolved.
            BadRequestError: the app is closing.
            AccessDeniedError: this is a kiosk.
        """
        self._settings.check_not_kiosk()
        source = self._store.resolve(request.model)
        with self._lock:
            if self._closed:
                raise BadRequestError("Paddock is closing. Start it again and retry.")
            for number, task in self._tasks.items():
                own = (task.now.key, task.now.request.precision)
                if own == (source.key, request.precision) and not task.now.state.final:
                    return number
            number, aim = next(self._numbers), request.precision
            now = TaskView(
                id=number,
                request=replace(request, access=None),
                key=source.key,
                title=f"Convert {source.title} {aim.aim}" if aim else f"Download {source.title}",
                created=datetime.now(UTC),
            )
            self._tasks[number] = _Task(now, source, request.access)
            self._start_waiting()
        return number

    def list(self) -> list[TaskView]:
        """Return all tasks, the newest first."""
        with self._lock:
            places = self._places()
            return [task.view(places.get(number)) for number, task in reversed(self._tasks.items())]

    def get(self, number: int) -> TaskView | None:
        """Return a task, or None if there is no task with this number (any more)."""
        with self._lock:
            task = self._tasks.get(number)
            return task.view(self._places().get(number)) if task else None

    def stop(self, number: int) -> None:
        """Stop a waiting or running task; returns at once, the task ends within a second.

        Downloaded files, also partial ones, are kept for the next attempt, a conversion is not.
        """
        with self._lock:
            task = self._tasks.get(number)
            if task is not None:
                self._stop(task)
                self._start_waiting()

    def dismiss(self, number: int) -> None:
        """Remove a task that has ended; a waiting or running task stays."""
        with self._lock:
            task = self._tasks.get(number)
            if task is not None and task.now.state.final:
                del self._tasks[number]

    def active(self) -> bool:
        """Return whether any task is waiting or running."""
        with self._lock:
            return any(not task.now.state.final for task in self._tasks.values())

    def close(self) -> None:
        """Stop all tasks, accept no new ones, and wait for the child processes to end."""
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
        if task.now.state is TaskState.WAITING:
            task.finish(TaskState.STOPPED)
        task.cancel.set()

    def _in_state(self, state: TaskState, *, converting: bool) -> list[_Task]:
        return [
            task
            for task in self._tasks.values()
            if task.now.state is state and task.now.request.converts is converting
        ]

    def _places(self) -> dict[int, int]:
        return {
            task.now.id: place
            for kind in (False, True)
            for place, task in enumerate(
                self._in_state(TaskState.WAITING, converting=kind), start=1
            )
        }

    def _start_waiting(self) -> None:
        """Start the next download and the next conversion, if none of its kind is running."""
        for converting in (False, True):
            if self._in_state(TaskState.RUNNING, converting=converting):
                continue
            tasks = self._tasks.values()
            busy = {task.now.key for task in tasks if task.now.state is TaskState.RUNNING}
            waiting = self._in_state(TaskState.WAITING, converting=converting)
            task = next((each for each in waiting if each.now.key not in busy), None)
            if task is None:
                continue
            task.started = time.monotonic()
            task.change(state=TaskState.RUNNING)
            task.thread = threading.Thread(
                target=self._run, args=(task,), name=f"task-{task.now.id}", daemon=True
            )
            task.thread.start()

    # Called in the task's thread

    def _run(self, task: _Task) -> None:
        state, last, error, stored = TaskState.FAILED, "Done.", None, None
        try:
            with self._working():
                stored = self._execute(task)
            state = TaskState.DONE
        except StoppedError as stopped:
            state, last = TaskState.STOPPED, str(stopped)
        except PaddockError as failure:
            last = error = str(failure)
        except Exception as failure:  # a task always ends with a message
            logger.exception("%s failed unexpectedly", task.now.title)
            last = error = (
                f"“{task.now.title}” failed unexpectedly ({type(failure).__name__}: {failure}). "
                "See the server's log for details."
            )
        with self._lock:
            task.write(last)
            task.change(error=error, stored=stored)
            task.finish(state)
            ended = [each.now.id for each in self._tasks.values() if each.now.state.final]
            for number in ended[:-FINISHED_KEPT]:
                del self._tasks[number]
            if not self._closed:
                self._start_waiting()

    def _execute(self, task: _Task) -> StoredModel | None:
        def show(step: Progress) -> None:
            with self._lock:
                before = task.now.progress
                task.change(progress=step)
                if before is None or (before.stage, before.message) != (step.stage, step.message):
                    task.write(step.message)

        def measure(resident_bytes: int) -> None:
            with self._lock:
                peak = max(task.now.peak_memory_bytes or 0, resident_bytes)
                task.change(memory_bytes=resident_bytes, peak_memory_bytes=peak)

        def write(text: str) -> None:
            with self._lock:
                task.write(text)

        request = task.now.request
        options: dict[str, Any] = {
            "settings": self._settings,
            "access": task.access,
            "progress": show,
            "cancel": task.cancel,
            "on_memory": measure,
            "on_line": write,
        }
        if not request.converts:
            fetch_in_process(task.source, **options)
            return None
        return convert_in_process(
            task.source, request.precision, compression=request.compression, **options
        )
