"""What a sweep works with; a test puts others in their place for failures that are hard to provoke.

The modules are imported where they are first used: an app that never measures never loads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.benchmark.artifacts import Ready, make_ready
from core.runtimes.spec import ModelSpec

if TYPE_CHECKING:
    from core.benchmark.child import Job, Outcome
    from core.benchmark.quality import Reference
    from core.db.measurement_values import Quality


def _measure(job: Job, **how: Any) -> Outcome:
    from core.benchmark.child import measure_in_process

    return measure_in_process(job, **how)


def _read_bandwidth() -> float:
    from core.benchmark.bandwidth import read_bandwidth

    return read_bandwidth()


def _judge(
    folder: Path, spec: ModelSpec, reference: Reference | None, **how: Any
) -> tuple[Quality, Reference]:
    from core.benchmark.quality import quality_in_process

    return quality_in_process(folder, spec, reference, **how)


@dataclass(frozen=True)
class Tools:
    """Each raises a PaddockError whose sentence becomes a row's reason; StoppedError on cancel."""

    make_ready: Callable[..., Ready] = make_ready
    """See :func:`core.benchmark.artifacts.make_ready`."""
    measure: Callable[..., Outcome] = _measure
    """See :func:`core.benchmark.child.measure_in_process`."""
    read_bandwidth: Callable[[], float] = _read_bandwidth
    """See :func:`core.benchmark.bandwidth.read_bandwidth`."""
    judge: Callable[..., tuple[Quality, Reference]] = _judge
    """See :func:`core.benchmark.quality.quality_in_process`."""
