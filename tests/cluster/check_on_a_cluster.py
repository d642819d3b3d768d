"""A real cluster of two nodes: benchmarks on both, and either is killed.

What the cluster serves is in ``check_serving.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from core.benchmark.plan import Plan
from core.benchmark.service import Benchmark
from core.catalogue import Precision
from core.cluster.benchmark import ClusterBenchmark
from core.cluster.connection import connected, nodes_of
from core.db.measurement_values import Measurement, MeasurementState, SweepState
from core.errors import BadRequestError, ClusterError
from core.inference.engine import Engine
from core.settings import Settings
from tests.cluster.conftest import LONG_S, Lab, until


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Engine]:
    """Whoever asks: its home is none of the nodes'."""
    made = Engine(Settings(home=tmp_path / "asking"))
    yield made
    made.close()


def test_killed_node_loses_only_its_rows(lab: Lab, ray: ModuleType, records: Engine, model: str):
    plan = Plan(
        models=(model,),
        precisions=(Precision.FP32,),
        prompt_tokens=(8,),
        new_tokens=4,
        repeats=1,
        rounds=1,
    )
    fleet = ClusterBenchmark(ray, records.measurements)
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
        Benchmark(records.settings, lambda: records.measurements).resume(sweep.id)
    measured = of("first")
    sweep = fleet.resume(sweep.id)  # the node is not back yet
    assert sweep.wait(LONG_S)
    assert of("second").error.startswith("No node of the cluster is named ")

    lab.start("second")
    sweep = fleet.resume(sweep.id)
    assert sweep.wait(LONG_S) and sweep.progress().error is None
    assert of("second").state is MeasurementState.DONE and of("second").error is None
    assert of("first") == measured  # not measured again
    assert records.measurements.of_sweep(sweep.id) == list(sweep.progress().rows)
    with pytest.raises(BadRequestError, match="is complete"):
        fleet.resume(sweep.id)


def test_stop_ends_node_processes_and_keeps_rows(
    lab: Lab, ray: ModuleType, records: Engine, model: str
):
    plan = Plan(models=(model,), precisions=(Precision.FP32,), prompt_tokens=(8,), repeats=100)
    fleet = ClusterBenchmark(ray, records.measurements, "second")
    sweep, needs = fleet.start(plan)
    assert needs.rows == 1
    until(lambda: sweep.progress().rows[0].state is MeasurementState.RUNNING)
    sweep.cancel()
    assert sweep.wait(LONG_S) and sweep.state is SweepState.CANCELLED
    assert [r.state for r in sweep.progress().rows] == [MeasurementState.CANCELLED]
    until(lambda: _free_cpus(ray) == 4.0)


def test_killed_process_fails_its_rows(lab: Lab, ray: ModuleType, records: Engine, model: str):
    plan = Plan(models=(model,), precisions=(Precision.FP32,), prompt_tokens=(8,), repeats=100)
    sweep, _ = ClusterBenchmark(ray, records.measurements, "second").start(plan)
    until(lambda: sweep.progress().rows[0].state is MeasurementState.RUNNING)
    processes = psutil.process_iter(["cmdline"])
    (process,) = (each for each in processes if "BenchNode" in " ".join(each.info["cmdline"] or ()))
    children = process.children()
    process.kill()
    assert sweep.wait(LONG_S) and sweep.state is SweepState.DONE
    (row,) = sweep.progress().rows
    assert row.state is MeasurementState.FAILED
    assert row.error.startswith("The measuring process on ") and "Resume" in row.error
    assert children and not psutil.wait_procs(children, LONG_S)[1]


def _free_cpus(ray: ModuleType) -> float:
    return ray.available_resources().get("CPU", 0.0)


def test_missing_models_and_devices_are_errors(lab: Lab, ray: ModuleType, records: Engine):
    assert [each.name.rpartition("/")[2] for each in nodes_of(ray)] == ["first", "second"]
    assert [each.name.rpartition("/")[2] for each in nodes_of(ray, "second")] == ["second"]
    with pytest.raises(
        ClusterError, match=r"No node of the cluster has gaudi\. The nodes have CPU"
    ):
        nodes_of(ray, "gaudi")
    fleet = ClusterBenchmark(ray, records.measurements)
    with pytest.raises(ClusterError, match=r"No node has the model nowhere: There is no model"):
        fleet.start(Plan(models=("nowhere",)))
    with pytest.raises(ClusterError, match="No node of the cluster has the device NPU"):
        fleet.start(Plan(models=("paddock-neox",), devices=("NPU",)))
    with (
        pytest.raises(ClusterError, match="already connected to a cluster"),
        connected(lab.address),
    ):
        pass
    assert records.measurements.sweeps() == []
