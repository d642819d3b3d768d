"""Child process that measures one configuration: ``python -m core.benchmark.worker``.

It does nothing else, so that its memory and processor time are those of the configuration. Its
request (see :mod:`core.workers.child`) has ``kind`` ("measure" or "quality"), ``folder``, ``spec``
(see :mod:`core.runtimes.serialization`), and the arguments of
:func:`core.benchmark.measure.measure` or :func:`core.benchmark.scoring.score`. It contains no
secrets. The events before the last are ``progress`` and those of the two functions.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from core.benchmark.core_latency import CoreLatency
from core.benchmark.measure import measure
from core.errors import GenerationError, NotEnoughMemoryError, PaddockError
from core.runtimes.base import Runtime
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.pytorch import PyTorchRuntime
from core.runtimes.serialization import spec_from_json, speculation_from_json
from core.runtimes.spec import RuntimeName
from core.store.library_env import disable_telemetry, quieten_libraries
from core.workers.child import Channel, one_line, run_request, shows_out_of_memory

log = logging.getLogger(__name__)

RUNTIMES: dict[RuntimeName, type[Runtime]] = {
    RuntimeName.GENAI: GenAIRuntime,
    RuntimeName.OPTIMUM: OptimumRuntime,
    RuntimeName.PYTORCH: PyTorchRuntime,
}


def _work(request: dict[str, Any], channel: Channel) -> None:
    disable_telemetry()
    quieten_libraries()
    spec = spec_from_json(request["spec"])
    folder, runtime = Path(request["folder"]), RUNTIMES[spec.runtime]()
    if request["kind"] == "quality":
        from core.benchmark.scoring import score

        if spec.runtime is RuntimeName.GENAI:  # GenAI returns no logits; the effect of weights
            runtime = OptimumRuntime()  # and hints on quality is the same in Optimum
        score(runtime, folder, spec, forced=request["forced"], channel=channel)
        return
    with CoreLatency() as latency:
        measure(
            runtime,
            folder,
            spec,
            prompts=[(length, count) for length, count in request["prompts"]],
            new_tokens=request["new_tokens"],
            channel=channel,
            core_latency=latency.nanoseconds,
            nearest_ns=request["nearest_ns"],
            speculation=speculation_from_json(request["speculation"]),
        )


def _describe(error: Exception, _request: dict[str, Any]) -> PaddockError:
    """Return a NotEnoughMemoryError if that is the root cause of the error, otherwise the error
    itself, or what any other exception of a library means."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or shows_out_of_memory(str(cause)):
            return NotEnoughMemoryError(
                "Out of memory during the measurement. Close other programs, or choose a lower "
                "precision or a smaller model."
            )
        cause = cause.__cause__
    if isinstance(error, PaddockError):
        return error
    return GenerationError(f"The measurement failed unexpectedly ({one_line(error)}). Try again.")


if __name__ == "__main__":
    run_request(_work, _describe)
