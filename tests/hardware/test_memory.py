"""Tests of peak memory and of releasing mapped weights."""

from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from core.hardware import memory
from core.hardware.memory import mapped_files_released, peak_resident_bytes
from tests.waiting import eventually

SIZE = 64 * 2**20

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs madvise")


def file_backed() -> int:
    """Return this process's resident bytes that are backed by files."""
    return psutil.Process().memory_info().shared


def test_peak_is_kept_after_memory_is_freed() -> None:
    before = psutil.Process().memory_info().rss
    block = np.ones(SIZE // 8)
    del block
    assert peak_resident_bytes() > before + SIZE // 2


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of 64 MiB in its own folder."""
    path = tmp_path / "export" / "openvino_model.bin"
    path.parent.mkdir()
    path.write_bytes(np.arange(SIZE // 8, dtype=np.int64).tobytes())
    return path


@linux
def test_mapped_weights_are_released_and_can_be_read_again(weights: Path) -> None:
    with weights.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = np.frombuffer(mapped, dtype=np.int64)
        total = int(view.sum())
        full = file_backed()
        with mapped_files_released(weights.parent):
            eventually(lambda: file_backed() <= full - SIZE // 2, "they are released")
            assert int(view.sum()) == total
        del view
        mapped.close()


@linux
def test_private_changes_to_a_mapping_are_kept(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_RELEASE_INTERVAL_S", 0.01)
    with weights.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        mapped[:4] = b"kept"
        with mapped_files_released(weights.parent):
            time.sleep(0.2)
            assert mapped[:4] == b"kept"
        mapped.close()


@linux
def test_mappings_of_other_folders_are_not_released(weights: Path) -> None:
    elsewhere = weights.parent.parent / "exported elsewhere"
    elsewhere.mkdir()
    with weights.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = np.frombuffer(mapped, dtype=np.int64)
        int(view.sum())
        maps = Path("/proc/self/maps")
        (start, end), *_ = memory._read_only_mappings(maps, f"{weights.parent}/")
        assert end - start >= SIZE
        assert list(memory._read_only_mappings(maps, f"{elsewhere}/")) == []
        del view
        mapped.close()
