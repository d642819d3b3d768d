"""A real cluster of two nodes: benchmarks on both, models served by both, and either is killed.

All that needs the cluster is in this file: it is started once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil
import pytest

from core.benchmark.plan import Plan
from core.catalogue import Precision
from core.cluster.fleet import Fleet
from core.cluster.link import connected, nodes_of
from core.cluster.serving import ServedModels, Serving
from core.engine import Engine
from core.errors import BadRequestError, ClusterError, UnknownModelError
from core.generation.answer import StopReason
from core.records import RunStore
from core.records.measurement_values import Measurement, MeasurementState, SweepState
from core.runtimes.spec import ModelSpec
from core.settings import Settings
from core.store import ModelStore, resolve
from tests.cluster.conftest import Lab

LONG_S = 90.0
"""Enough for a loaded machine; a test that waits so long fails."""


@pytest.fixture(scope="module")
def ray(lab: Lab) -> Iterator[ModuleType]:
    """Ray, connected to the cluster."""
    with connected(lab.address) as joined:
        yield joined


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Engine]:
    """Whoever asks: its home is none of the nodes'."""
    made = Engine(Settings(home=tmp_path / "asking"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def model(lab: Lab, checkpoints: Callable[..., Path]) -> str:
    """A tiny model that both nodes have on disk."""
    folder = checkpoints("llama", with_chat_template=True)
    first, second = lab.homes["first"], lab.homes["second"]
    ModelStore(Settings(home=first)).ensure(resolve(str(folder)), Precision.FP32)
    shutil.copytree(first / "models", second / "models")
    return str(folder)


def until(happened: Callable[[], bool], seconds: float = LONG_S) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(0.05)


def test_a_node_that_is_killed_costs_its_rows_alone_and_they_can_be_measured_later(
    lab: Lab, ray: ModuleType, records: Engine, model: str
):
    plan = Plan(
        models=(model,),
        precisions=(Precision.FP32,),
        prompt_tokens=(8,),
        new_tokens=4,
        repeats=1,
        rounds=1,
    )
    fleet = Fleet(ray, records.measurements)
    sweep, needs = fleet.start(plan)
    assert needs.rows == 2 and needs.seconds > 0

    def of(name: str) -> Measurement:
        return next(r for r in sweep.progress().rows if r.host.name.endswith(f"/{name}"))

    until(lambda: of("second").state is MeasurementState.RUNNING)
    lab.kill("second")
    assert sweep.wait(LONG_S) and sweep.state is SweepState.DONE
    assert of("first").state is MeasurementState.DONE
    assert of("first").figures.decode_tokens_per_s > 0
    assert of("second").state is MeasurementState.FAILED and of("second").figures is None
    assert "left the cluster" in of("second").error and "second" in of("second").error
    assert {r.host.cpu for r in sweep.progress().rows} == {of("first").host.cpu}

    with pytest.raises(BadRequestError, match="--ray ADDRESS --resume"):
        records.benchmark.resume(sweep.id)
    measured = of("first")
    sweep = fleet.resume(sweep.id)  # the node is not back yet
    assert sweep.wait(LONG_S)
    assert "not in the cluster now" in of("second").error

    lab.start("second")
    sweep = fleet.resume(sweep.id)
    assert sweep.wait(LONG_S) and sweep.progress().error is None
    assert of("second").state is MeasurementState.DONE and of("second").error is None
    assert of("first") == measured  # not measured again
    assert records.measurements.of_sweep(sweep.id) == list(sweep.progress().rows)
    with pytest.raises(BadRequestError, match="Nothing is missing"):
        fleet.resume(sweep.id)


def test_stopping_ends_the_nodes_processes_and_keeps_what_is_done(
    lab: Lab, ray: ModuleType, records: Engine, model: str
):
    plan = Plan(models=(model,), precisions=(Precision.FP32,), prompt_tokens=(8,), repeats=100)
    fleet = Fleet(ray, records.measurements, "second")
    sweep, needs = fleet.start(plan)
    assert needs.rows == 1
    until(lambda: sweep.progress().rows[0].state is MeasurementState.RUNNING)
    sweep.cancel()
    assert sweep.wait(LONG_S) and sweep.state is SweepState.CANCELLED
    assert [r.state for r in sweep.progress().rows] == [MeasurementState.CANCELLED]
    until(lambda: _free_cpus(ray) == 4.0)


def _free_cpus(ray: ModuleType) -> float:
    return ray.available_resources().get("CPU", 0.0)


def test_what_no_node_has_is_told_before_anything_is_measured(
    lab: Lab, ray: ModuleType, records: Engine
):
    assert [each.name.rpartition("/")[2] for each in nodes_of(ray)] == ["first", "second"]
    assert [each.name.rpartition("/")[2] for each in nodes_of(ray, "second")] == ["second"]
    with pytest.raises(ClusterError, match=r"No node of the cluster has gaudi; they have CPU"):
        nodes_of(ray, "gaudi")
    fleet = Fleet(ray, records.measurements)
    with pytest.raises(ClusterError, match=r"No node has the model nowhere: There is no model"):
        fleet.start(Plan(models=("nowhere",)))
    with pytest.raises(ClusterError, match="No node of the cluster has the device NPU"):
        fleet.start(Plan(models=("paddock-neox",), devices=("NPU",)))
    with pytest.raises(ClusterError, match="in a cluster already"), connected(lab.address):
        pass
    assert records.measurements.sweeps() == []


# Models served


@pytest.fixture(scope="module")
def served(ray: ModuleType, model: str) -> Iterator[ServedModels]:
    """The model on two replicas, behind the door."""
    made = ServedModels(ray)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made.address = made.listen("127.0.0.1", port)
    spec = ModelSpec(model, Precision.FP32, "CPU")
    made.put_up(Serving(spec=spec, least=2, most=2, at_once=4, cpus=1.0))
    made.open_door(())
    yield made
    if made.status():
        made.stop(model)


def replicas() -> list[psutil.Process]:
    """The processes that hold the model."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any("ServeReplica:model-" in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


def asked(served: ServedModels, model: str, tokens: int, **more: Any) -> httpx.Response:
    body = {"model": model, "max_tokens": tokens, "temperature": 0} | more
    body |= {"messages": [{"role": "user", "content": "Where does the river go?"}]}
    return httpx.post(f"{served.address}/v1/chat/completions", json=body, timeout=LONG_S)


def streamed(served: ServedModels, model: str, begun: threading.Event) -> list[dict[str, Any]]:
    """All events of a long answer; the last is ``{}`` where it came to its proper end."""
    body = {"model": model, "max_tokens": 1000, "temperature": 0, "stream": True}
    body |= {"messages": [{"role": "user", "content": "Where does the river go?"}]}
    url, events = f"{served.address}/v1/chat/completions", []
    with httpx.stream("POST", url, json=body, timeout=LONG_S) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: "):
                begun.set()
                events.append({} if line == "data: [DONE]" else json.loads(line[6:]))
    return events


def test_a_killed_replica_is_replaced_and_no_request_is_lost_without_an_error(
    served: ServedModels, model: str
):
    assert [(each.model, each.state, each.replicas) for each in served.status()] == [
        (model, "running", 2)
    ]
    first = asked(served, model, 4)
    assert (first.status_code, first.json().get("error")) == (200, None)
    before = replicas()
    assert len(before) == 2
    with ThreadPoolExecutor(12) as threads:
        begun = [threading.Event() for _ in range(4)]
        streams = [threads.submit(streamed, served, model, each) for each in begun]
        whole = [threads.submit(asked, served, model, 400) for _ in range(4)]
        assert all(each.wait(LONG_S) for each in begun)
        os.kill(before[0].pid, signal.SIGKILL)
        ends = [each.result()[-1] for each in streams]
        answers = [each.result() for each in whole]
    # What nothing was sent of is asked of the other replica; what had begun ends with an error.
    assert [each.status_code for each in answers] == [200] * 4
    ended = {each.json()["choices"][0]["finish_reason"] for each in answers}
    assert ended <= {"stop", "length"}
    lost = [end for end in ends if end]
    assert all(each["error"]["code"] == "replica_lost" for each in lost)
    assert len(lost) < 4  # those of the other replica came to their end
    assert asked(served, model, 4).status_code == 200
    until(lambda: served.status()[0].replicas == 2 and len(replicas()) == 2)
    assert {each.pid for each in before} - {each.pid for each in replicas()} == {before[0].pid}


def test_an_answer_ends_when_its_client_goes_away(served: ServedModels, model: str, lab: Lab):
    body = {"model": model, "max_tokens": 1000, "temperature": 0, "stream": True}
    body |= {"messages": [{"role": "user", "content": "And then?"}]}
    url = f"{served.address}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=LONG_S) as response:
        next(response.iter_lines())

    def reasons() -> set[str | None]:
        stores = [RunStore.open(Settings(home=home)) for home in lab.homes.values()]
        runs = [run for store in stores for run in store.recent(20)]
        return {
            r.result.stop_reason for r in runs if r.result and r.start.instruction == "And then?"
        }

    until(lambda: StopReason.CANCELLED.value in reasons(), 10.0)


def test_the_door_knows_its_models_and_its_keys(served: ServedModels, model: str):
    listed = httpx.get(f"{served.address}/v1/models").json()
    assert [each["id"] for each in listed["data"]] == [model]
    unknown = asked(served, "nobody", 4)
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "model_not_found"
    assert httpx.get(f"{served.address}/healthz").json() == {"status": "ok"}
    with pytest.raises(ClusterError, match="did not come up: There is no model 'nowhere'"):
        served.put_up(Serving(spec=ModelSpec("nowhere", Precision.FP32, "CPU"), cpus=0))
    served.stop("nowhere")

    served.open_door(["a-key-of-this-lab"])
    headers = {"Authorization": "Bearer a-key-of-this-lab"}
    until(lambda: httpx.get(f"{served.address}/v1/models").status_code == 401)
    told = httpx.get(f"{served.address}/v1/models", headers=headers)
    assert told.status_code == 200

    with pytest.raises(UnknownModelError, match="does not serve nobody; it serves"):
        served.stop("nobody")
    served.stop(model)
    assert served.status() == [] and replicas() == []
