"""Estimates the decode rate of a model on this machine's CPU before it is downloaded.

Each token reads the weights of all matrix multiplications once. It takes the time that the memory
needs for them, at a share of the read bandwidth (MBU) that depends on the precision, and some time
for each layer, which dominates in small models. What was measured on this machine corrects the
result: benchmarks, and answers on the pages, whichever are nearest in size.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from core.benchmark.bandwidth import read_bandwidth_apart
from core.benchmark.estimate import BANDWIDTH
from core.catalogue import Int4Settings, Precision, Shape, benchmark_shapes, catalogue
from core.catalogue.shapes import active_share, parameter_count
from core.db import RunState
from core.db.measurement_values import Measurement, MeasurementState
from core.errors import NotEnoughMemoryError, RecordsError
from core.hardware.cgroups import usable_processors
from core.hardware.devices import host_facts
from core.inference.engine import Engine
from core.runtimes.spec import DEFAULT_RUNTIME
from core.store import StoredModel
from core.store.checkpoint import Origin
from core.store.estimate import stored_token_bytes, token_bytes
from core.store.weights_source import of_stored

log = logging.getLogger(__name__)

UTILISATION = {
    Precision.FP32: 0.95,
    Precision.FP16: 0.8,
    Precision.INT8: 0.85,
    Precision.INT4: 0.85,
    Precision.STORED: 0.85,
}
"""Share of the read bandwidth that large matrix multiplications reach.

Fitted, with :data:`LAYER_S`, to the decode rates of shapes of 135 M, 410 M, 1.1 B and 2.8 B
parameters on two cores and 27 GB/s, which they give within 13 %. That is a fit and no test; how
near the estimates are on another machine is not known until it has measurements of its own.
"""

CORE_BANDWIDTH = 16.5e9
"""Most bytes/s of weights that a core reads and multiplies.

On two cores of an AMD Zen 4 shapes of 360 M to 1.1 B parameters reached 24 to 28 GB/s, while
reading alone reached 33 GB/s or, from one minute to the next, 61 GB/s.
"""

LAYER_S = 0.26e-3
"""Seconds for each layer besides reading weights: attention, norms, the start of each operation."""

_LAYERS = 32
"""Assumed if the shape is not known."""

_NEAREST = 3
"""Measurements that correct an estimate."""

_BANDWIDTH_S = 0.3
"""Duration of measuring the bandwidth."""

_ANSWERS = 10
"""Latest answers of a model, whose median is one measurement."""

_ROWS = 200
"""Latest rows of the benchmark that are considered."""


@dataclass(frozen=True)
class Measured:
    """A measured decode rate."""

    precision: Precision
    bytes: int
    """Read for each token."""
    layers: int
    tokens_per_s: float


@dataclass(frozen=True)
class DecodeRates:
    """What is known of this machine's CPU."""

    bandwidth: float = BANDWIDTH
    """Read bandwidth of the cores in bytes/s; by default that of a typical machine."""
    measured: Sequence[Measured] = ()

    @classmethod
    def of_this_machine(cls, engine: Engine) -> DecodeRates:
        """Measure the bandwidth, which takes half a second, and read the measurements."""
        rows: list[Measurement] = []
        measured: list[Measured] = []
        try:
            rows = engine.measurements.all(
                limit=_ROWS,
                with_rounds=False,
                state=MeasurementState.DONE,
                runtime=DEFAULT_RUNTIME.value,
                host_name=host_facts().name,
            )
            stored = [(each, of_stored(each.folder, each.manifest)) for each in engine.store.list()]
            shapes = {each.key: (origin.shape, origin.parameters) for each, origin in stored}
            measured = [*_benchmarks(rows, shapes), *_answers(engine, stored)]
        except RecordsError as error:
            log.warning("Decode rates are estimated without measurements: %s", error)
        try:
            now = read_bandwidth_apart(_BANDWIDTH_S)
        except NotEnoughMemoryError:
            now = BANDWIDTH
        # The highest, because other work only makes a measurement slower.
        bandwidth = max([now, *(row.host.bandwidth_bytes_per_s or 0 for row in rows)])
        cores = min(usable_processors(), host_facts().physical_cores or usable_processors())
        return cls(min(bandwidth, cores * CORE_BANDWIDTH), measured)

    def expected(self, origin: Origin, precision: Precision, int4: Int4Settings) -> float:
        """Return the expected decode rate of a conversion in tokens/s."""
        return self._rate(token_bytes(origin, precision, int4), origin.shape, precision)

    def expected_of(self, stored: StoredModel) -> float:
        """Return the expected decode rate of a model on disk in tokens/s."""
        origin = of_stored(stored.folder, stored.manifest)
        return self._rate(stored_token_bytes(origin), origin.shape, stored.precision)

    def _rate(self, size: int, shape: Shape | None, precision: Precision) -> float:
        """Return the rate, corrected by the ratio of measured to uncorrected rates of the most
        similar measurements."""
        same = [item for item in self.measured if item.precision.base is precision.base]
        near = sorted(
            same or self.measured, key=lambda item: abs(math.log(item.bytes / max(size, 1)))
        )
        ratios = [
            item.tokens_per_s * self._seconds(item.bytes, item.layers, item.precision)
            for item in near[:_NEAREST]
        ]
        ratio = statistics.median(ratios) if ratios else 1.0
        return ratio / self._seconds(size, _layers(shape), precision)

    def _seconds(self, size: int, layers: int, precision: Precision) -> float:
        """Return the uncorrected time of a token."""
        return layers * LAYER_S + size / (UTILISATION[precision.base] * self.bandwidth)


def _benchmarks(
    rows: Iterable[Measurement], stored: Mapping[str, tuple[Shape | None, int]]
) -> Iterator[Measured]:
    """Yield the results on the CPU that nothing disturbed.

    Args:
        stored: shape and parameter count of the models on disk.
    """
    known: dict[str, tuple[Shape | None, int]] = {
        name: (shape, parameter_count(architecture, shape))
        for name, (architecture, shape) in benchmark_shapes().items()
    }
    known |= stored | {key: (row.shape, row.parameters) for key, row in catalogue().items()}
    for row in rows:
        figures = row.figures
        if figures is None or figures.contended or row.devices_used != ("CPU",):
            continue
        if figures.decode_tokens_per_s and row.weight_bytes:
            shape, parameters = known.get(row.configuration.model, (None, 0))
            yield Measured(
                Precision(row.configuration.precision),
                int(row.weight_bytes * active_share(shape, parameters)),
                _layers(shape),
                figures.decode_tokens_per_s,
            )


def _answers(engine: Engine, here: Iterable[tuple[StoredModel, Origin]]) -> Iterator[Measured]:
    """Yield the median rate of each model on disk that has answered on this machine's CPU alone."""
    for stored, origin in here:
        rows = engine.runs.chart_rows(
            limit=_ANSWERS,
            model=stored.key,
            precision=stored.precision.value,
            runtime=DEFAULT_RUNTIME.value,
            state=RunState.DONE,
        )
        rates = [
            row.decode_tokens_per_s
            for row in rows
            if row.decode_tokens_per_s
            and row.host_name == host_facts().name
            and row.devices_used == ("CPU",)
            and not row.contended
        ]
        if rates:
            size, layers = stored_token_bytes(origin), _layers(origin.shape)
            yield Measured(stored.precision, size, layers, statistics.median(rates))


def _layers(shape: Shape | None) -> int:
    return shape.layers if shape else _LAYERS
