"""Models served by a real cluster of two nodes: distributed, killed, replaced, scaled."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import httpx
import psutil
import pytest

from core.catalogue import Precision
from core.cluster.serving import ServedModels, Serving
from core.db import RunStore
from core.errors import ClusterError, UnknownModelError
from core.inference.answer import StopReason
from core.runtimes.spec import ModelSpec
from core.settings import Settings
from tests.cluster.asking import Asker, crowd, replicas
from tests.cluster.conftest import LONG_S, Lab, until

AT_ONCE = 4
LONG = 1000
"""Tokens of an answer that takes seconds."""
SHORT = 30


@pytest.fixture(scope="module")
def served(ray: ModuleType) -> Iterator[ServedModels]:
    """What the cluster serves; nothing yet."""
    made = ServedModels(ray)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made.address = made.listen("127.0.0.1", port)
    made.deploy_gateway((), made.address)
    yield made
    for each in made.status():
        made.stop(each.model)


@pytest.fixture
def two(served: ServedModels, model: str) -> Asker:
    """The model on two replicas, behind the gateway."""
    served.deploy(serving(model, min_replicas=2, max_replicas=2))
    until(lambda: len(replicas()) == 2)
    return Asker(served.address, model)


def serving(model: str, *, device: str = "CPU", at_once: int = AT_ONCE, **how: float) -> Serving:
    spec = ModelSpec(model, Precision.FP32, device)
    return Serving(**{"spec": spec, "at_once": at_once, "cpus": 1.0} | how)


def pids() -> set[int]:
    return {each.pid for each in replicas()}


def statuses(answers: list[httpx.Response]) -> set[int]:
    return {each.status_code for each in answers}


def test_two_replicas_answer_at_the_same_time(served: ServedModels, model: str, two: Asker):
    def rate(people: int = 4 * AT_ONCE, tokens: int = 200) -> float:
        began = time.monotonic()
        with ThreadPoolExecutor(people) as threads:
            answers = list(threads.map(lambda _: two.whole(tokens), range(people)))
        assert [each.json()["usage"]["completion_tokens"] for each in answers] == [tokens] * people
        return people * tokens / (time.monotonic() - began)

    with ThreadPoolExecutor(2 * AT_ONCE) as threads:
        begun = [threading.Event() for _ in range(2 * AT_ONCE)]
        asked = [threads.submit(two.streamed, LONG, each) for each in begun]
        assert all(each.wait(LONG_S) for each in begun)
        assert not any(each.done() for each in asked)  # more than one replica gives at once
        assert [each.result()[-1] for each in asked] == [{}] * 2 * AT_ONCE
    of_two = [rate() for _ in range(2)]
    served.deploy(serving(model))
    until(lambda: len(replicas()) == 1)
    of_one = [rate() for _ in range(2)]
    print(f"\ntokens/s, {os.cpu_count()} cores: two replicas {of_two}, one {of_one}")


def test_killed_replica_is_replaced(served: ServedModels, model: str, two: Asker):
    assert [(each.model, each.state, each.replicas) for each in served.status()] == [
        (model, "running", 2)
    ]
    before = pids()
    streams, rest = AT_ONCE + 1, AT_ONCE - 1  # so that each replica has a stream, and both are full
    with ThreadPoolExecutor(streams + rest) as threads:
        begun = [threading.Event() for _ in range(streams)]
        streamed = [threads.submit(two.streamed, LONG, each) for each in begun]
        assert all(each.wait(LONG_S) for each in begun)
        whole = [threads.submit(two.whole, LONG) for _ in range(rest)]
        killed = min(before)
        assert not any(each.done() for each in streamed)
        os.kill(killed, signal.SIGKILL)
        ends = [each.result()[-1] for each in streamed]
        answers = [each.result() for each in whole]
    # What nothing was sent of is asked of the other replica; what had begun ends with an error.
    assert statuses(answers) == {200}
    assert {each.json()["usage"]["completion_tokens"] for each in answers} == {LONG}
    lost = [end for end in ends if end]
    assert {each["error"]["code"] for each in lost} == {"replica_lost"}
    assert 1 <= len(lost) <= AT_ONCE  # those of the other replica came to their end
    assert two.whole(SHORT).status_code == 200
    until(lambda: served.status()[0].replicas == 2 and len(replicas()) == 2)
    assert before - pids() == {killed}


def test_dead_model_process_is_replaced(two: Asker):
    begun = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(two.streamed, LONG, begun)
        assert begun.wait(LONG_S)
        children = [child for each in replicas() for child in psutil.Process(each.pid).children()]
        for child in children:
            child.kill()
        assert len(children) == 2
        assert "The process of the model ended" in asked.result()[-1]["error"]["message"]
    answers = [two.whole(SHORT) for _ in range(4)]
    assert statuses(answers) == {200}


def test_replicas_follow_the_load(served: ServedModels, model: str, two: Asker):
    served.deploy(serving(model, min_replicas=1, max_replicas=2, grow_after_s=1, shrink_after_s=2))
    until(lambda: len(replicas()) == 1)
    with crowd(two, 3 * AT_ONCE, SHORT) as people:
        until(lambda: served.status()[0].replicas == 2)
    assert statuses(people.answers) == {200}
    until(lambda: len(replicas()) == 1)
    assert served.status()[0].state == "running"


def test_replicas_are_updated_under_load(served: ServedModels, model: str, two: Asker):
    before, begun = pids(), threading.Event()
    with ThreadPoolExecutor(1) as thread, crowd(two, AT_ONCE, SHORT) as people:
        long = thread.submit(two.streamed, LONG, begun)
        assert begun.wait(LONG_S)
        served.deploy(serving(model, at_once=AT_ONCE + 1, min_replicas=2, max_replicas=2))
        until(lambda: len(replicas()) == 2 and not pids() & before)
        already = len(people.answers)
        until(lambda: len(people.answers) >= already + 2 * AT_ONCE)
        assert long.result()[-1] == {}
    assert statuses(people.answers) == {200}


def test_only_replica_is_updated_under_load(served: ServedModels, model: str, two: Asker):
    served.deploy(serving(model))
    until(lambda: len(replicas()) == 1)
    before = pids()
    with crowd(two, AT_ONCE, SHORT) as people:
        until(lambda: bool(people.answers))
        served.deploy(serving(model, at_once=AT_ONCE + 1))
        until(lambda: len(replicas()) == 1 and not pids() & before)
        already = len(people.answers)
        until(lambda: len(people.answers) >= already + AT_ONCE)
    assert statuses(people.answers) == {200}


def test_failed_update_keeps_the_replicas(served: ServedModels, model: str, two: Asker):
    before = pids()
    with crowd(two, 2, SHORT) as people:
        with pytest.raises(ClusterError, match="endless failed to start: There is no device 'NPU'"):
            served.deploy(serving(model, device="NPU", min_replicas=2, max_replicas=2))
        already = len(people.answers)
        until(lambda: len(people.answers) >= already + 4)
    assert statuses(people.answers) == {200}
    assert before <= pids()
    with pytest.raises(ClusterError, match="9 replicas with 1 processors each do not fit"):
        served.deploy(serving(model, min_replicas=9, max_replicas=9))


def test_disconnect_cancels_the_answer(two: Asker, model: str, lab: Lab):
    messages = [{"role": "user", "content": "And then?"}]
    body = {"model": model, "messages": messages, "max_tokens": LONG, "stream": True}
    url = f"{two.address}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=LONG_S) as response:
        next(response.iter_lines())

    def reasons() -> set[str | None]:
        stores = [RunStore.open(Settings(home=home)) for home in lab.homes.values()]
        runs = [run for store in stores for run in store.recent(20)]
        return {
            r.result.stop_reason for r in runs if r.result and r.start.instruction == "And then?"
        }

    until(lambda: StopReason.CANCELLED.value in reasons(), 10.0)


def test_gateway_lists_models_and_checks_keys(served: ServedModels, model: str, two: Asker):
    listed = httpx.get(f"{served.address}/v1/models").json()
    assert [each["id"] for each in listed["data"]] == [model]
    unknown = two.whole(SHORT, model="nobody")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found"
    assert httpx.get(f"{served.address}/healthz").json() == {"status": "ok"}
    with pytest.raises(ClusterError, match="failed to start: There is no model 'nowhere'"):
        served.deploy(serving("nowhere", cpus=0))
    served.stop("nowhere")

    served.deploy_gateway(["a-key-of-this-lab"], served.address)
    headers = {"Authorization": "Bearer a-key-of-this-lab"}
    until(lambda: httpx.get(f"{served.address}/v1/models").status_code == 401)
    told = httpx.get(f"{served.address}/v1/models", headers=headers)
    assert told.status_code == 200

    with pytest.raises(UnknownModelError, match=r"does not serve nobody\. It serves"):
        served.stop("nobody")
    served.stop(model)
    assert served.status() == [] and replicas() == []
