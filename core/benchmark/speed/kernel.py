"""Measures OpenVINO's multiplication of a vector with compressed weights: ``python -m`` this
module.

Decoding one token is little else. The same multiplication is timed with weights that stay in the
processor's cache and with weights that are read from memory. The first is limited by arithmetic,
and reading alone (:mod:`core.benchmark.bandwidth`) by memory; the second is the upper limit of
decoding with this runtime. If it is below both, the two do not overlap: if each byte were first
read and then multiplied, the rate would be ``1 / (1 / cached + 1 / reading)``.

The weights are random: INT8 by rows, INT4 by groups of 128, with zero points, as NNCF stores them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from core.benchmark.bandwidth import read_bandwidth
from core.catalogue import Precision
from core.errors import NotEnoughMemoryError
from core.hardware.devices import available_memory_bytes
from core.runtimes.optimum import openvino_properties
from core.runtimes.spec import ExecutionHints
from core.units import bytes_text

WIDTH = 2048
"""Rows and columns of a matrix: the hidden size of a model with one to three billion parameters."""

CACHED_BYTES = 8 * 2**20
"""Size of weights that stay in the last-level cache of common processors."""

MEMORY_BYTES = 256 * 2**20
"""Size of weights that fit in no cache."""

MEASURED_S = 1.5
"""Duration of each measurement."""

GROUP = 128


@dataclass(frozen=True)
class KernelRates:
    """Bytes of weights, including scales and zero points, multiplied per second."""

    cached: float
    from_memory: float


def kernel_rates(precision: Precision) -> KernelRates:
    """Measure both rates on the CPU for INT8 or INT4, with the default hints.

    Raises:
        NotEnoughMemoryError: the weights, which OpenVINO repacks, do not fit twice.
    """
    free = available_memory_bytes()
    if free < 4 * MEMORY_BYTES:
        raise NotEnoughMemoryError(
            f"Measuring OpenVINO's multiplications needs {bytes_text(4 * MEMORY_BYTES)} of memory, "
            f"but {bytes_text(free)} are free. Close other programs."
        )
    properties = openvino_properties("CPU", ExecutionHints.default_for(precision))
    return KernelRates(
        cached=_rate(precision, CACHED_BYTES, properties),
        from_memory=_rate(precision, MEMORY_BYTES, properties),
    )


def _rate(precision: Precision, total: int, properties: dict[str, Any]) -> float:
    import openvino

    layers = total // (WIDTH * WIDTH // (2 if precision is Precision.INT4 else 1))
    model = _chain(precision, layers)
    constants = (each for each in model.get_ops() if each.get_type_name() == "Constant")
    read = sum(each.data.nbytes for each in constants)
    compiled = openvino.Core().compile_model(model, "CPU", properties)
    request = compiled.create_infer_request()
    vector = np.ones((1, 1, WIDTH), dtype=np.float32)
    request.infer([vector])  # repacks the weights
    spent: list[float] = []
    deadline = time.perf_counter() + MEASURED_S
    while len(spent) < 3 or time.perf_counter() < deadline:
        began = time.perf_counter()
        request.infer([vector])
        spent.append(time.perf_counter() - began)
    return read / median(spent)


def _chain(precision: Precision, layers: int) -> Any:
    """Return a model of consecutive multiplications, like the layers of a language model."""
    import openvino
    from openvino import opset13 as opset

    random = np.random.default_rng(0)
    first = opset.parameter([1, 1, WIDTH], np.float32)
    vector = first
    for _ in range(layers):
        weights = _weights(precision, random)
        vector = opset.matmul(vector, weights, transpose_a=False, transpose_b=True)
    return openvino.Model([vector], [first])


def _weights(precision: Precision, random: np.random.Generator) -> Any:
    """Return compressed weights with zero points and scales, and their decompression."""
    import openvino
    from openvino import opset13 as opset

    if precision is Precision.INT4:
        kind, shape, packed = openvino.Type.u4, (WIDTH, WIDTH // GROUP, GROUP), 2
    else:
        kind, shape, packed = openvino.Type.u8, (WIDTH, WIDTH), 1
    per_group = (*shape[:-1], 1)

    def stored(wanted: tuple[int, ...]) -> Any:
        count = int(np.prod(wanted)) // packed
        values = random.integers(0, 256, count, dtype=np.uint8)
        tensor = openvino.Tensor(values, list(wanted), kind)
        return opset.convert(opset.constant(tensor, shared_memory=False), np.float16)

    scales = opset.constant(np.full(per_group, 1e-3, dtype=np.float16))
    numbers = opset.multiply(opset.subtract(stored(shape), stored(per_group)), scales)
    flat = opset.constant(np.array([WIDTH, WIDTH], dtype=np.int64))
    return opset.convert(opset.reshape(numbers, flat, special_zero=False), np.float32)


def main() -> None:
    """Print the rates of this machine."""
    reading = read_bandwidth()
    print(f"Reading alone: {bytes_text(reading)}/s.")
    for precision in (Precision.INT8, Precision.INT4):
        found = kernel_rates(precision)
        print(
            f"{precision.label}: {bytes_text(found.cached)}/s from the cache, "
            f"{bytes_text(found.from_memory)}/s from memory."
        )


if __name__ == "__main__":
    main()
