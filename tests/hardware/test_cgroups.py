"""Limits of control groups, read from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.hardware import cgroups
from core.hardware.cgroups import cpu_quota, memory_headrooms, threads_for_quota
from core.runtimes.optimum import openvino_properties
from core.runtimes.spec import ExecutionHints


def test_memory_limit_of_cgroup_v2(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    inner, outer = tmp_path / "fs/outer/inner", tmp_path / "fs/outer"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("300\n")
    (outer / "memory.max").write_text("1000\n")
    (outer / "memory.current").write_text("700\n")
    (outer / "memory.stat").write_text("anon 5\ninactive_file 50\nactive_file 7\n")
    assert list(memory_headrooms(membership, tmp_path / "fs")) == [350]


def test_memory_limit_of_cgroup_v1(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/x\n4:memory:/not/visible/here\n\nrubbish\n")
    tree = tmp_path / "fs/memory"
    tree.mkdir(parents=True)
    (tree / "memory.limit_in_bytes").write_text("1000\n")
    (tree / "memory.usage_in_bytes").write_text("900\n")
    (tree / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 20\n")
    assert list(memory_headrooms(membership, tmp_path / "fs")) == [120]
    assert list(memory_headrooms(tmp_path / "absent", tmp_path)) == []


def test_lowest_cpu_quota_of_cgroup_v2_applies(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    inner = tmp_path / "fs/outer/inner"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(membership, tmp_path / "fs") is None
    (tmp_path / "fs/outer/cpu.max").write_text("150000 100000\n")
    (tmp_path / "fs/cpu.max").write_text("400000 100000\n")
    assert cpu_quota(membership, tmp_path / "fs") == 1.5


def test_cpu_quota_of_cgroup_v1(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("4:memory:/x\n3:cpu,cpuacct:/not/visible/here\n")
    tree = tmp_path / "fs/cpu"
    tree.mkdir(parents=True)
    (tree / "cpu.cfs_period_us").write_text("100000\n")
    (tree / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(membership, tmp_path / "fs") is None
    (tree / "cpu.cfs_quota_us").write_text("250000\n")
    assert cpu_quota(membership, tmp_path / "fs") == 2.5
    assert cpu_quota(tmp_path / "absent", tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "threads"), [(None, None), (0.3, 1), (1.5, 2), (3.0, 3), (7.2, None), (64.0, None)]
)
def test_threads_follow_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: int | None
) -> None:
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: quota)
    monkeypatch.setattr(cgroups, "usable_processors", lambda: 8)
    assert threads_for_quota() == threads
    assert openvino_properties("CPU", ExecutionHints()).get("INFERENCE_NUM_THREADS") == threads
    assert openvino_properties("CPU", ExecutionHints(threads=5))["INFERENCE_NUM_THREADS"] == 5
    assert "INFERENCE_NUM_THREADS" not in openvino_properties("GPU", ExecutionHints())
