"""A node's benchmark, without Ray and with fake measurements."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from core.benchmark.lock import BenchmarkLock
from core.benchmark.plan import Plan
from core.benchmark.runner import LocalSweep
from core.catalogue import Precision
from core.cluster.bench_node import BenchNode, node_plan
from core.db.measurement_values import MeasurementState
from core.settings import load_settings
from tests.benchmark.fake_work import FakeWork
from tests.waiting import PATIENCE_S

PLAN = Plan(
    models=("paddock-neox",), precisions=(Precision.INT8,), prompt_tokens=(8, 16), rounds=1
).validated()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> FakeWork:
    """Replaces conversion and measurement."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # as the node does, but not for good
    return FakeWork().install(monkeypatch.setattr)


def test_a_node_reports_each_changed_row_under_its_name(work: FakeWork):
    planned = node_plan(PLAN, "5" * 32, "lab/first").rows
    reports = [*BenchNode().run(PLAN, planned, "lab/first")]
    assert reports[-1].done == reports[-1].total > 0
    rows = {row.id: row for report in reports for row in report.rows}
    assert [*rows] == [row.id for row in planned]
    assert {row.state for row in rows.values()} == {MeasurementState.DONE}
    assert {row.host.name for row in rows.values()} == {"lab/first"}


def test_a_cancelled_node_reports_rows_that_can_be_resumed(
    work: FakeWork, monkeypatch: pytest.MonkeyPatch
):
    taken, cancel = threading.Event(), LocalSweep.cancel
    monkeypatch.setattr(LocalSweep, "cancel", lambda sweep: cancel(sweep) or taken.set())
    plan = replace(PLAN, prompt_tokens=(8,), rounds=2)
    node = BenchNode()
    work.before = lambda job: node.cancel() or taken.wait(PATIENCE_S)
    (planned,) = node_plan(plan, "5" * 32, "lab/aaaaaaaa").rows
    *_, row = [row for each in node.run(plan, [planned], "lab/aaaaaaaa") for row in each.rows]
    assert row.state is MeasurementState.CANCELLED and len(row.rounds) == 1

    work.before = lambda job: None
    given = replace(row, state=MeasurementState.WAITING)  # as by the driver
    *_, done = [row for each in BenchNode().run(plan, [given], "lab/aaaaaaaa") for row in each.rows]
    assert done.host.name == "lab/aaaaaaaa" and done.state is MeasurementState.DONE
    assert len(done.rounds) == 2 and done.rounds[0] == row.rounds[0]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_node_waits_for_another_benchmark(work: FakeWork, cancelled: bool):
    lock = BenchmarkLock(load_settings())
    node = BenchNode()
    with lock.acquire():
        reports = node.run(PLAN, node_plan(PLAN, "5" * 32, "lab").rows, "lab")
        assert next(reports).message == "Waiting for another benchmark on this machine."
        if cancelled:
            node.cancel()
            assert [*reports] == []
    assert len({row.id for report in reports for row in report.rows}) == (0 if cancelled else 2)
