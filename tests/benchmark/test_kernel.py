"""Multiplication with compressed weights: with the kernel that decoding uses, and enough memory."""

from __future__ import annotations

import numpy as np
import pytest

from core.benchmark.speed import kernel
from core.catalogue import Precision
from core.errors import NotEnoughMemoryError


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(kernel, "WIDTH", 256)
    monkeypatch.setattr(kernel, "CACHED_BYTES", 4 * 256 * 256)
    monkeypatch.setattr(kernel, "MEMORY_BYTES", 8 * 256 * 256)
    monkeypatch.setattr(kernel, "MEASURED_S", 0.01)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_weights_stay_compressed(precision: Precision):
    """If they were converted to floating point at compile time, something else would be
    measured."""
    import openvino

    model = kernel._chain(precision, 3)
    compiled = openvino.Core().compile_model(model, "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    request.infer([np.ones((1, 1, kernel.WIDTH), dtype=np.float32)])
    kinds = [node.node_type for node in request.get_profiling_info()]
    assert kinds.count("FullyConnectedCompressed") == 3, kinds


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_both_rates_are_measured(precision: Precision):
    rates = kernel.kernel_rates(precision)
    assert 1e6 < rates.cached < 1e13 and 1e6 < rates.from_memory < 1e13


def test_scales_and_zero_points_count_as_they_do_in_a_model(monkeypatch):
    monkeypatch.setattr(kernel, "median", lambda spent: 1.0)  # so that a rate is the bytes
    weights, rows = 256 * 256, 256
    shapes = 16  # bytes of the shape that a layer's weights are given
    int8, int4 = kernel.kernel_rates(Precision.INT8), kernel.kernel_rates(Precision.INT4)
    assert int8.cached == 4 * (weights + rows * (2 + 1) + shapes)
    assert int4.cached == 8 * (weights / 2 + 2 * rows * (2 + 0.5) + shapes)


def test_kernel_with_too_little_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(kernel, "available_memory_bytes", lambda: 1024)
    with pytest.raises(NotEnoughMemoryError, match="Close other programs"):
        kernel.kernel_rates(Precision.INT8)
