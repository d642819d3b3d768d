"""The child process that measures one configuration: ``python -m core.benchmark.worker``.

It does nothing else, so that its memory and its processor time are the configuration's own. The
request is the first line of standard input, a JSON object, for the reference's answers may be
longer than a command line (32 767 characters on Windows): ``kind`` ("measure" or "quality"),
``folder``, ``spec`` (see :mod:`core.runtimes.serialization`), ``memory_limit_bytes`` or null, and
what :func:`core.benchmark.measure.measure` or :func:`core.benchmark.scoring.score` takes. It holds
no secret. What comes back are JSON lines, ``progress`` and the events of those functions, then one
``done`` or ``error``; see :mod:`core.workers.child` for the rest of the protocol.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from core.benchmark.core_latency import CoreDistance
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
"""Address space that libraries reserve and never touch, thread stacks above all. The system's
limit counts it, people do not, so it comes on top of the limit that was asked for."""


def main() -> int:
    """Carry out the request on standard input and return the exit code."""
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
        return _tell(channel, _for_want_of_memory(error) or error)
    except Exception as error:  # whatever a library raises, the sweep goes on
        log.exception("The worker failed unexpectedly")
        return _tell(channel, _for_want_of_memory(error) or _unexpected(error))
    channel.say(event="done")
    return 0


def _work(request: dict[str, Any], channel: Channel) -> None:
    spec = spec_from_json(request["spec"])
    folder, runtime = Path(request["folder"]), RUNTIMES[spec.runtime]()
    if request["kind"] == "quality":
        from core.benchmark.scoring import score

        if spec.runtime is RuntimeName.GENAI:  # it hands out no logits; what weights and hints
            runtime = OptimumRuntime()  # cost is the same
        score(runtime, folder, spec, forced=request["forced"], channel=channel)
        return
    with CoreDistance() as distance:
        measure(
            runtime,
            folder,
            spec,
            prompts=[(length, count) for length, count in request["prompts"]],
            new_tokens=request["new_tokens"],
            channel=channel,
            core_distance=distance.nanoseconds,
            nearest_ns=request["nearest_ns"],
        )


def _limit_memory(size: int) -> None:
    """Refuse this process more private memory; the parent watches where the system cannot."""
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
        log.warning("the system sets no memory limit (%s)", error)


def _for_want_of_memory(error: BaseException) -> NotEnoughMemoryError | None:
    """The error as one about memory, where that is what lies at its bottom."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).lower()
        if isinstance(cause, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY_SIGNS):
            return NotEnoughMemoryError(
                "The memory ran out while it was measured; close other programs, or choose a "
                "lower precision or a smaller model."
            )
        cause = cause.__cause__
    return None


def _unexpected(error: Exception) -> GenerationError:
    detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return GenerationError(f"Something failed while it was measured ({detail}); try again.")


def _tell(channel: Channel, error: BaseException) -> int:
    channel.say(event="error", type=type(error).__name__, message=str(error))
    return error.exit_code if isinstance(error, PaddockError) else 1


if __name__ == "__main__":
    exit_now(main())
