"""A benchmark on all nodes of a real cluster; and who goes on with whose rows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.benchmark.plan import Plan
from core.catalogue import Precision
from core.cluster.fleet import Fleet, assigned
from core.cluster.link import Node, connected, nodes_of
from core.engine import Engine
from core.errors import BadRequestError, ClusterError
from core.records.measurement_values import Measurement, MeasurementState, SweepState
from core.settings import Settings
from core.store import ModelStore, resolve
from tests.cluster.conftest import Lab
from tests.records.measurement_samples import a_measurement

LONG_S = 90.0
"""Enough for a loaded machine; a test that waits so long fails."""


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Engine]:
    """Whoever asks: its home is none of the nodes'."""
    made = Engine(Settings(home=tmp_path / "asking"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def model(lab: Lab, checkpoints: Callable[..., Path]) -> str:
    """A tiny model that both nodes have on disk."""
    folder = checkpoints("llama")
    first, second = lab.homes["first"], lab.homes["second"]
    ModelStore(Settings(home=first)).ensure(resolve(str(folder)), Precision.FP32)
    shutil.copytree(first / "models", second / "models")
    return str(folder)


def until(happened: Callable[[], bool], seconds: float = LONG_S) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(0.05)


def node(own: str, host: str | None = None) -> Node:
    """A machine of that name; with a host, one of several nodes on it, of that id."""
    name = own if host is None else f"{host}/{own}"
    return Node(id=own * 7, name=name, host=host or own, cpus=2.0, resources={}, labels={})


def row(host: str) -> Measurement:
    measured = a_measurement()
    return replace(measured, host=replace(measured.host, name=host))


def test_a_node_that_is_killed_costs_its_rows_alone_and_they_can_be_measured_later(
    lab: Lab, records: Engine, model: str
):
    plan = Plan(
        models=(model,),
        precisions=(Precision.FP32,),
        prompt_tokens=(8,),
        new_tokens=4,
        repeats=1,
        rounds=1,
    )
    with connected(lab.address) as ray:
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
    lab: Lab, records: Engine, model: str
):
    plan = Plan(models=(model,), precisions=(Precision.FP32,), prompt_tokens=(8,), repeats=100)
    with connected(lab.address) as ray:
        fleet = Fleet(ray, records.measurements, "second")
        sweep, needs = fleet.start(plan)
        assert needs.rows == 1
        until(lambda: sweep.progress().rows[0].state is MeasurementState.RUNNING)
        sweep.cancel()
        assert sweep.wait(LONG_S) and sweep.state is SweepState.CANCELLED
        assert [r.state for r in sweep.progress().rows] == [MeasurementState.CANCELLED]
        until(lambda: _free_cpus(ray) == 4.0)


def _free_cpus(ray) -> float:
    return ray.available_resources().get("CPU", 0.0)


def test_what_no_node_has_is_told_before_anything_is_measured(lab: Lab, records: Engine):
    with connected(lab.address) as ray:
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


# Who goes on with whose rows


def test_a_node_goes_on_with_the_rows_of_its_own_name():
    ours, theirs = row("lab-1"), row("lab-2")
    shares, orphans = assigned([ours, theirs], [node("lab-1"), node("lab-3")])
    assert {each.name: rows for each, rows in shares.items()} == {"lab-1": (ours,)}
    assert orphans == (theirs,)


def test_a_nameless_node_that_was_started_again_goes_on_with_what_it_left():
    kept, left = row("lab/aaaaaaaa"), row("lab/bbbbbbbb")
    nodes = [node("cccccccc", "lab"), node("aaaaaaaa", "lab"), node("dddddddd", "other")]
    shares, orphans = assigned([left, kept], nodes)
    assert {each.name: rows for each, rows in shares.items()} == {
        "lab/aaaaaaaa": (kept,),
        "lab/cccccccc": (left,),
    }
    assert orphans == ()


def test_rows_of_a_node_with_a_name_wait_for_that_name():
    left = row("lab/gpu-box")
    shares, orphans = assigned([left], [node("cccccccc", "lab")])
    assert (shares, orphans) == ({}, (left,))
    shares, _ = assigned([left], [replace(node("cccccccc", "lab"), name="lab/gpu-box")])
    assert [*shares.values()] == [(left,)]
