"""Memory read bandwidth is plausible, and measured with enough free memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

from core.benchmark import bandwidth
from core.errors import NotEnoughMemoryError

MIB = 2**20


@pytest.fixture(autouse=True)
def _small_block(monkeypatch):
    monkeypatch.setattr(bandwidth, "BLOCK_BYTES", 128 * MIB)


def test_bandwidth_is_plausible():
    assert 2e8 < bandwidth.read_bandwidth(seconds=0.05) < 5e12
    assert 2e8 < bandwidth.read_bandwidth_apart(seconds=0.05) < 5e12


def test_best_of_at_least_two_passes_counts(monkeypatch):
    rates = iter([5.0, 9.0, 7.0])
    monkeypatch.setattr(bandwidth, "_one_pass", lambda parts: next(rates))
    assert bandwidth.read_bandwidth(seconds=0.0) == 9.0


def test_every_core_reads_its_own_part(monkeypatch):
    seen: list[list[np.ndarray]] = []
    monkeypatch.setattr(bandwidth, "usable_processors", lambda: 4)
    monkeypatch.setattr(bandwidth, "_one_pass", lambda parts: seen.append(parts) or 1.0)
    bandwidth.read_bandwidth(seconds=0.0)
    assert len(seen[0]) == 4
    assert sum(part.nbytes for part in seen[0]) == 128 * MIB
    assert all(part.all() for part in seen[0])  # written to, so that no page of zeros is shared


def test_a_pass_counts_every_byte_once():
    parts = [np.ones(MIB, dtype=np.int64) for _ in range(2)]
    assert bandwidth._one_pass(parts) > 0


def test_time_is_from_first_start_to_last_end(monkeypatch):
    """ """
    stamps = iter([10.0, 10.5])
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: next(stamps))
    parts = [np.ones(MIB, dtype=np.int64)]
    assert bandwidth._one_pass(parts) == parts[0].nbytes / 0.5


def test_too_little_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(bandwidth, "available_memory_bytes", lambda: 300 * MIB)
    with pytest.raises(NotEnoughMemoryError, match=r"needs 134 MB, .* but 315 MB are free"):
        bandwidth.read_bandwidth()


def test_little_free_memory_gives_a_smaller_block(monkeypatch):
    monkeypatch.setattr(bandwidth, "BLOCK_BYTES", 512 * MIB)
    monkeypatch.setattr(bandwidth, "available_memory_bytes", lambda: 1024 * MIB)
    assert bandwidth._block_bytes() == 256 * MIB


def test_command_prints_text_and_one_line_of_json(monkeypatch, capsys):
    monkeypatch.setattr(bandwidth, "read_bandwidth", lambda seconds: 27.4e9)
    bandwidth.main()
    people, machine = capsys.readouterr().out.splitlines()
    assert "27 GB/s" in people
    assert json.loads(machine)["read_bandwidth_bytes_per_s"] == 27_400_000_000
