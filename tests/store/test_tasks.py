"""The task queue: order, places, stopping, and real child processes at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core.catalogue import Precision
from core.errors import BadRequestError, HubError, StoppedError, UnknownModelError
from core.settings import Settings
from core.store import (
    ModelStore,
    Progress,
    Source,
    Stage,
    TaskQueue,
    TaskRequest,
    TaskState,
    TaskView,
    resolve,
)
from core.store import tasks as tasks_module
from core.store.hub import HubAccess, completed
from tests.store.conftest import conversion_children
from tests.store.hub_server import Hub
from tests.waiting import PATIENCE_S, eventually

INT4, INT8, FP16 = Precision.INT4, Precision.INT8, Precision.FP16
SECRET = "hf_verySecretToken"


def convert(model: str, precision: Precision = INT8, **more: Any) -> TaskRequest:
    return TaskRequest(model, precision, **more)


def get(model: str, **more: Any) -> TaskRequest:
    return TaskRequest(model, **more)


def until(queue: TaskQueue, number: int, reached: Callable[[TaskView], bool]) -> TaskView:
    """Wait for a condition, and return the task."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        view = queue.get(number)
        assert view is not None
        if reached(view):
            return view
        assert time.monotonic() < deadline, view
        assert not view.state.final, view
        time.sleep(0.01)


def ended(view: TaskView) -> bool:
    return view.state.final


def running(view: TaskView) -> bool:
    return view.state is TaskState.RUNNING


@pytest.fixture
def queue(settings: Settings) -> Iterator[TaskQueue]:
    made = TaskQueue(settings)
    yield made
    made.close()
    assert not made.active()


# Order, with simulated work that ends on request


@dataclass
class Work:
    """Replaces the child processes."""

    begun: list[str] = field(default_factory=list)
    ends: dict[str, threading.Event] = field(default_factory=dict)
    outcomes: dict[str, Exception] = field(default_factory=dict)

    def carry_out(
        self,
        source: Source,
        precision: Precision | None = None,
        *,
        progress: Callable[[Progress], None],
        cancel: threading.Event,
        on_memory: Callable[[int], None],
        **_options: Any,
    ) -> None:
        name = f"{source.key} {precision}" if precision else source.key
        end = self.ends.setdefault(name, threading.Event())
        self.begun.append(name)
        on_memory(1000)
        on_memory(3000)
        on_memory(2000)
        progress(Progress(Stage.EXPORTING, "Working.", 0.5))
        deadline = time.monotonic() + PATIENCE_S
        while not end.wait(0.005):
            assert time.monotonic() < deadline
            if cancel.is_set():
                raise StoppedError("Stopped; nothing was kept.")
        if name in self.outcomes:
            raise self.outcomes[name]

    def end(self, name: str) -> None:
        self.ends.setdefault(name, threading.Event()).set()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    made = Work()
    monkeypatch.setattr(tasks_module, "convert_in_process", made.carry_out)
    monkeypatch.setattr(tasks_module, "fetch_in_process", made.carry_out)
    return made


def test_conversions_run_one_at_a_time_and_in_order(work: Work, queue: TaskQueue) -> None:
    first, second, third = (
        queue.submit(convert(model))
        for model in ("paddock-neox", "paddock-llama", "databricks/dolly-v2-3b")
    )
    until(queue, first, running)
    assert [view.place for view in queue.list()] == [2, 1, None]  # the newest first
    assert [view.id for view in queue.list()] == [third, second, first]
    work.end("paddock-neox int8")
    until(queue, second, running)
    assert queue.get(third).place == 1
    work.end("paddock-llama int8")
    until(queue, third, running)
    assert work.begun == ["paddock-neox int8", "paddock-llama int8", "dolly-v2-3b int8"]
    assert [queue.get(number).state for number in (first, second)] == [TaskState.DONE] * 2


def test_a_download_runs_during_a_conversion_of_another_model(work: Work, queue: TaskQueue) -> None:
    conversion = queue.submit(convert("paddock-neox"))
    download, next_download = queue.submit(get("phi-2")), queue.submit(get("org/name"))
    until(queue, conversion, running)
    until(queue, download, running)
    assert (queue.get(next_download).state, queue.get(next_download).place) == (
        TaskState.WAITING,
        1,
    )


def test_a_conversion_waits_for_the_download_of_its_model_and_lets_others_go_first(
    work: Work, queue: TaskQueue
) -> None:
    download = queue.submit(get("phi-2"))
    until(queue, download, running)
    same, other = queue.submit(convert("phi-2")), queue.submit(convert("paddock-neox"))
    until(queue, other, running)
    assert queue.get(same).state is TaskState.WAITING
    work.end("phi-2")
    until(queue, download, ended)
    assert queue.get(same).state is TaskState.WAITING  # one conversion at a time
    work.end("paddock-neox int8")
    until(queue, same, running)


def test_the_same_request_returns_the_existing_task(work: Work, queue: TaskQueue) -> None:
    first = queue.submit(convert("databricks/dolly-v2-3b"))
    waiting = queue.submit(convert("dolly-v2-3b", INT4))
    assert queue.submit(convert("dolly-v2-3b")) == first
    assert queue.submit(convert("DATABRICKS/dolly-v2-3b", INT4)) == waiting
    assert queue.submit(get("dolly-v2-3b")) not in (first, waiting)
    work.end("dolly-v2-3b int8")
    until(queue, first, ended)
    assert queue.submit(convert("dolly-v2-3b")) != first


def test_a_waiting_task_is_stopped_before_it_starts(work: Work, queue: TaskQueue) -> None:
    first, second = queue.submit(convert("paddock-neox")), queue.submit(convert("paddock-llama"))
    queue.stop(second)
    view = queue.get(second)
    assert (view.state, view.place, view.elapsed_s) == (TaskState.STOPPED, None, 0.0)
    work.end("paddock-neox int8")
    assert until(queue, first, ended).state is TaskState.DONE
    assert work.begun == ["paddock-neox int8"]


def test_stopping_a_running_task_lets_the_next_one_start(work: Work, queue: TaskQueue) -> None:
    first, second = queue.submit(convert("paddock-neox")), queue.submit(convert("paddock-llama"))
    until(queue, first, running)
    queue.stop(first)
    view = until(queue, first, ended)
    assert (view.state, view.error) == (TaskState.STOPPED, None)
    assert "nothing was kept" in view.log[-1]
    until(queue, second, running)


def test_a_view_has_the_progress(work: Work, queue: TaskQueue) -> None:
    number = queue.submit(convert("paddock-neox", INT4))
    view = until(queue, number, lambda view: view.progress is not None)
    assert view.title == "Convert Paddock NeoX 3M (tiny demo) to INT4"
    assert (view.key, view.progress.fraction) == ("paddock-neox", 0.5)
    assert (view.memory_bytes, view.peak_memory_bytes) == (2000, 3000)
    assert [line.split(maxsplit=1)[1] for line in view.log] == ["Working."]
    eventually(lambda: queue.get(number).elapsed_s > view.elapsed_s > 0)
    work.end("paddock-neox int4")
    done = until(queue, number, ended)
    assert (done.memory_bytes, done.peak_memory_bytes) == (None, 3000)
    assert queue.get(number).elapsed_s == done.elapsed_s


def test_the_log_keeps_its_last_lines(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(*_arguments: Any, on_line: Callable[[str], None], **_options: Any) -> None:
        for count in range(1000):
            on_line(f"line {count}")

    monkeypatch.setattr(tasks_module, "convert_in_process", talk)
    view = until(queue, queue.submit(convert("paddock-neox")), ended)
    assert len(view.log) == tasks_module.LOG_LINES
    assert view.log[-2].endswith("line 999") and view.log[-1].endswith("Done.")


def test_failures_have_messages_and_the_queue_continues(work: Work, queue: TaskQueue) -> None:
    work.outcomes = {
        "paddock-neox int8": HubError("The hub is closed."),
        "paddock-neox int4": ZeroDivisionError("by zero"),
    }
    for precision in (INT8, INT4, FP16):
        work.end(f"paddock-neox {precision}")
    known, unknown, fine = (
        until(queue, queue.submit(convert("paddock-neox", precision)), ended)
        for precision in (INT8, INT4, FP16)
    )
    assert (known.state, known.error) == (TaskState.FAILED, "The hub is closed.")
    assert unknown.state is TaskState.FAILED
    assert "ZeroDivisionError: by zero" in unknown.error and "\n" not in unknown.error
    assert (fine.state, fine.error) == (TaskState.DONE, None)


def test_only_finished_tasks_can_be_dismissed(work: Work, queue: TaskQueue) -> None:
    first, second = queue.submit(convert("paddock-neox")), queue.submit(convert("paddock-llama"))
    until(queue, first, running)
    for number in (first, second, 99):
        queue.dismiss(number)
    assert len(queue.list()) == 2
    work.end("paddock-neox int8")
    until(queue, first, ended)
    queue.dismiss(first)
    assert [view.id for view in queue.list()] == [second]
    assert queue.get(first) is None


def test_old_tasks_are_removed(
    work: Work, queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "FINISHED_KEPT", 2)
    work.end("paddock-neox int8")
    numbers = []
    for _ in range(4):
        numbers.append(queue.submit(convert("paddock-neox")))
        until(queue, numbers[-1], ended)
    assert [view.id for view in queue.list()] == [numbers[3], numbers[2]]


def test_invalid_requests_are_refused_at_once(work: Work, queue: TaskQueue) -> None:
    with pytest.raises(UnknownModelError):
        queue.submit(convert("no-such-model"))
    queue.stop(99)
    assert queue.get(99) is None and queue.list() == [] and not queue.active()


def test_no_view_contains_a_token(work: Work, queue: TaskQueue) -> None:
    number = queue.submit(get("phi-2", access=HubAccess(token=SECRET)))
    for state in (running, ended):
        view = until(queue, number, state)
        assert view.request.access is None
        assert SECRET not in repr(view)
        work.end("phi-2")
    assert queue._tasks[number].access is None  # not kept after use


def test_closing_stops_all_tasks_and_accepts_none(work: Work, queue: TaskQueue) -> None:
    numbers = [queue.submit(convert(key)) for key in ("paddock-neox", "paddock-llama", "phi-2")]
    numbers.append(queue.submit(get("org/name")))
    assert queue.active()
    queue.close()
    assert {queue.get(number).state for number in numbers} == {TaskState.STOPPED}
    assert not queue.active() and set(work.begun) <= {"paddock-neox int8", "org--name"}
    with pytest.raises(BadRequestError, match="closing"):
        queue.submit(convert("paddock-neox"))


def test_the_working_context_is_entered_while_a_task_runs(work: Work, settings: Settings) -> None:
    announced: list[str] = []

    @contextmanager
    def working() -> Iterator[None]:
        announced.append("begin")
        try:
            yield
        finally:
            announced.append("end")

    queue = TaskQueue(settings, working)
    first = queue.submit(convert("paddock-neox"))
    queue.submit(convert("paddock-llama"))
    until(queue, first, running)
    until(queue, first, lambda view: view.progress is not None)
    assert announced == ["begin"]
    work.end("paddock-neox int8")
    until(queue, first, ended)
    assert announced[:2] == ["begin", "end"]
    queue.close()
    assert announced == ["begin", "end"] * 2


# Real work


@pytest.fixture
def hub(checkpoint_of: Callable[[str], Path]) -> Iterator[Hub]:
    with Hub() as server:
        server.add("org/model", checkpoint_of("llama"))
        yield server


@pytest.mark.long
def test_a_download_and_a_conversion_at_the_same_time(
    hub: Hub, queue: TaskQueue, settings: Settings, checkpoint_of: Callable[[str], Path]
) -> None:
    hub.delay(0.05)
    download = queue.submit(get("org/model", access=HubAccess(endpoint=hub.url)))
    conversion = queue.submit(convert(str(checkpoint_of("gpt_neox"))))
    came = until(queue, download, lambda view: bool(view.progress and view.progress.transfer))
    assert came.progress.transfer.total > came.progress.transfer.done
    assert queue.get(conversion).state is TaskState.RUNNING
    made = until(queue, conversion, ended)
    hub.heal()
    fetched = until(queue, download, ended)
    assert (fetched.state, made.state) == (TaskState.DONE, TaskState.DONE)
    assert fetched.stored is None and completed(settings.downloads_dir / "org--model")
    assert made.stored in ModelStore(settings).list()
    assert made.peak_memory_bytes > 100 * 2**20
    assert any("Exporting" in line for line in made.log)


def test_stop_ends_the_child_and_leaves_nothing(
    queue: TaskQueue, settings: Settings, checkpoint_of: Callable[[str], Path]
) -> None:
    folder = checkpoint_of("llama")
    number = queue.submit(convert(str(folder)))
    until(
        queue,
        number,
        lambda view: bool(view.progress and view.progress.stage is Stage.EXPORTING),
    )
    queue.stop(number)
    view = until(queue, number, ended)
    assert view.state is TaskState.STOPPED and "Nothing" in view.log[-1]
    assert conversion_children() == []
    assert list(settings.models_dir.glob(".work/*/")) == []
    assert ModelStore(settings).get(resolve(str(folder)), INT8) is None


def test_a_refusal_of_the_hub_is_a_failed_task_with_its_message(hub: Hub, queue: TaskQueue) -> None:
    access = HubAccess(endpoint=hub.url)
    view = until(queue, queue.submit(get("org/nothing", access=access)), ended)
    assert view.state is TaskState.FAILED
    assert "org/nothing" in view.error and "\n" not in view.error
    offline = HubAccess(endpoint=hub.url, offline=True)
    view = until(queue, queue.submit(convert("org/model", access=offline)), ended)
    assert view.state is TaskState.FAILED and "org/model" in view.error
