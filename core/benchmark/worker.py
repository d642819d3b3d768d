"""Child process that measures one configuration: ``python -m core.benchmark.worker``.

It does nothing else, so that its memory and processor time are those of the configuration. The
request is the first line of standard input, because the reference's answers may be longer than a
command line (32 767 characters on Windows). It is a JSON object with ``kind`` ("measure" or
"quality"), ``folder``, ``spec`` (see :mod:`core.runtimes.serialization`), ``memory_limit_bytes`` or
null, and the arguments of :func:`core.benchmark.measure.measure` or
:func:`core.benchmark.scoring.score`. It contains no secrets. The output is JSON lines: ``progress``
and the events of those functions, then one ``done`` or ``error``; see :mod:`core.workers.child` for
the rest of the protocol.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from core.benchmark.core_latency import CoreLatency
from core.benchmark.measure import measure
from core.errors import GenerationError, NotEnoughMemoryError, PaddockError
from core.runtimes.base import Runtime
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.pytorch import PyTorchRuntime
from core.runtimes.serialization import OUT_OF_MEMORY_SIGNS, spec_from_json
from core.runtimes.spec import RuntimeName
from core.store.library_env import disable_telemetry, quieten_libraries
from core.workers.child import Channel, exit_now, exit_with_parent, open_channel

log = logging.getLogger(__name__)

RUNTIMES: dict[RuntimeName, type[Runtime]] = {
    RuntimeName.GENAI: GenAIRuntime,
    RuntimeName.OPTIMUM: OptimumRuntime,
    RuntimeName.PYTORCH: PyTorchRuntime,
}

RESERVED_BYTES = 512 * 2**20
"""Address space that libraries reserve and never use, mostly thread stacks. The operating system's
limit includes it and users do not expect it to, so it is added to the requested limit."""


def main() -> int:
    """Process the request on standard input and return the exit code."""
    channel = open_channel()
    request = json.loads(sys.stdin.buffer.readline())
    exit_with_parent()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    disable_telemetry()
    quieten_libraries()
    if request["memory_limit_bytes"]:
        _limit_memory(request["memory_limit_bytes"] + RESERVED_BYTES)
    try:
        _work(request, channel)
    except (PaddockError, MemoryError) as error:
        return _report(channel, _as_memory_error(error) or error)
    except Exception as error:  # libraries raise anything; the run must go on
        log.exception("The worker failed unexpectedly")
        return _report(channel, _as_memory_error(error) or _unexpected(error))
    channel.say(event="done")
    return 0


def _work(request: dict[str, Any], channel: Channel) -> None:
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
        )


def _limit_memory(size: int) -> None:
    """Limit this process's private memory; where the system cannot, the parent process watches
    it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hardest = resource.getrlimit(resource.RLIMIT_DATA)
    if hardest != resource.RLIM_INFINITY:
        size = min(size, hardest)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (size, hardest))
    except (OSError, ValueError) as error:
        log.warning("Could not set a memory limit: %s", error)


def _as_memory_error(error: BaseException) -> NotEnoughMemoryError | None:
    """Return a NotEnoughMemoryError if that is the root cause of the error, otherwise None."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).lower()
        if isinstance(cause, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY_SIGNS):
            return NotEnoughMemoryError(
                "Out of memory during the measurement. Close other programs, or choose a lower "
                "precision or a smaller model."
            )
        cause = cause.__cause__
    return None


def _unexpected(error: Exception) -> GenerationError:
    detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return GenerationError(f"The measurement failed unexpectedly ({detail}). Try again.")


def _report(channel: Channel, error: BaseException) -> int:
    channel.say(event="error", type=type(error).__name__, message=str(error))
    return error.exit_code if isinstance(error, PaddockError) else 1


if __name__ == "__main__":
    exit_now(main())
