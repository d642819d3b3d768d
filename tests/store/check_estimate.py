"""Estimates of conversions, compared with conversions of 58 million parameters; run by name."""

from __future__ import annotations

import pytest

from core.catalogue import Precision, Shape
from core.settings import Settings
from core.store import convert_in_process, resolve
from core.store.estimate import estimate
from tests.big_checkpoint import big_checkpoint
from tests.store.test_estimate import close

SMALL = Shape(
    hidden=512,
    layers=8,
    heads=8,
    kv_heads=8,
    intermediate=2048,
    vocabulary=32000,
    positions=1024,
    rotary_fraction=0.25,
    parallel_residual=True,
)
"""58 million parameters: large enough that the weights matter compared with the libraries."""


@pytest.mark.parametrize("precision", [Precision.INT4, Precision.INT8, Precision.FP32])
def test_estimate_for_a_small_model_matches_its_conversion(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory, precision: Precision
) -> None:
    folder = tmp_path_factory.getbasetemp() / "small-checkpoint"
    if not folder.exists():
        big_checkpoint(folder, "gpt_neox", SMALL, shard_bytes=64 * 2**20)
    source = resolve(str(folder))
    told = estimate(source, precision, settings)
    assert told.problem is None
    stored = convert_in_process(source, precision, settings=settings)
    on_disk = sum(path.stat().st_size for path in stored.folder.iterdir())
    assert close(told.disk_bytes, on_disk)
    assert close(told.memory_bytes, stored.manifest.peak_memory_bytes)
