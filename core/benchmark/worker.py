"""Child process that measures one configuration: ``python -m core.benchmark.worker``.

It does nothing else, so that its memory and processor time are those of the configuration: it
loads, warms up, generates and timestamps every token. Its request (see :mod:`core.workers.child`)
has ``kind`` ("measure" or "quality"), ``folder``, ``spec`` and the arguments of :func:`measure` or
:func:`core.benchmark.scoring.score`; it contains no secrets. The events before the last are
``progress`` and those of the first function.

Prefill is bound by arithmetic and decode by memory bandwidth, so both are timed separately, from
the moment each token is available. Memory is read right after the first generation, in which
weights are repacked; the parent process samples the peaks. While an answer is timed, nothing is
decoded to text or displayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from core.benchmark.core_latency import CoreLatency
from core.benchmark.prompts import prompt_ids
from core.benchmark.stopping import StoppingRule, latency_during
from core.errors import GenerationError, NotEnoughMemoryError, PaddockError, PromptTooLongError
from core.hardware.devices import process_memory, require_device
from core.inference.timing import measure as timings_of
from core.runtimes.base import LoadedModel, Runtime, StampedId
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.pytorch import PyTorchRuntime
from core.runtimes.spec import (
    NO_SPECULATION,
    ModelSpec,
    RuntimeName,
    SamplingSettings,
    Speculation,
    SpeculationMode,
    TokenRequest,
)
from core.store.library_env import disable_telemetry, quieten_libraries
from core.workers.child import Channel, from_json, one_line, run_request, shows_out_of_memory

RUNTIMES: dict[RuntimeName, type[Runtime]] = {
    RuntimeName.GENAI: GenAIRuntime,
    RuntimeName.OPTIMUM: OptimumRuntime,
    RuntimeName.PYTORCH: PyTorchRuntime,
}

WARM_UP_TOKENS = 4
"""Length of the untimed answer before the first timed one of each prompt length: weights are
repacked and kernels selected in its prefill and first steps."""

PROGRESS_EVERY_S = 5.0
"""Interval of progress events during a long answer: the parent ends a silent process."""

CONTENDED_CORES = 0.25
"""Cores used by other programs from which a measurement counts as contended. A quarter of a core is
an eighth of a two-core machine and costs more than its share, because the threads of a matrix
multiplication wait for the slowest one."""

CONTENDED_SHARE = 0.02
"""The same as a share of the cores, for machines with so many that something is always running."""

ACCOUNTING_ERROR_S = 0.05
"""Processor time of other programs that is ignored: the system counts in steps of 10 ms per core,
which matters for answers of a tenth of a second."""


def measure(
    runtime: Runtime,
    folder: Path,
    spec: ModelSpec,
    *,
    prompts: Sequence[tuple[int, int]],
    new_tokens: int,
    channel: Channel,
    core_latency: Callable[[], float | None] = lambda: None,
    nearest_ns: float | None = None,
    speculation: Speculation = NO_SPECULATION,
) -> None:
    """Measure the model in ``folder`` and send the results as events.

    Events: ``loaded`` (seconds, memory, conditions), then for each prompt length ``begin``, one
    ``sample`` for each answer, and ``end`` (processor use).

    Args:
        prompts: (prompt tokens, number of timed answers) in order; short answers are repeated more
            often, see :mod:`core.benchmark.stopping`.
        new_tokens: forced length of each answer.
        core_latency: returns nanoseconds, see :mod:`core.benchmark.core_latency`; called between
            the answers of a model on the CPU.
        nearest_ns: lowest latency known of this machine.

    Raises:
        PaddockError: the device is missing, the files are damaged, a prompt is too long …
    """
    model, compile_s = load(runtime, folder, spec, channel)
    core_latency = core_latency if model.conditions.on_cpu_alone else lambda: None
    longest = max(length for length, _ in prompts)
    if model.positions is not None and longest + new_tokens > model.positions:
        raise PromptTooLongError(
            f"{spec.model} has a context length of {model.positions:,} tokens, less than a prompt "
            f"of {longest:,} and an answer of {new_tokens:,} need. Choose shorter ones."
        )
    requests = {
        length: TokenRequest(
            prompt_ids(model.tokenizer, length),
            SamplingSettings(max_new_tokens=new_tokens, greedy=True),
            speculation=speculation,
        )
        for length, _ in prompts
    }
    # Always the shortest prompt, so that load times are comparable whatever the order.
    first = min(requests)
    channel.say(event="progress", message="Warming up.")
    started = time.perf_counter()
    _warm_up(model, requests[first])
    warm_up_s = time.perf_counter() - started
    channel.say(
        event="loaded",
        load_s=compile_s + warm_up_s,
        compile_s=compile_s,
        memory=process_memory(),
        conditions=model.conditions,
    )
    for length, count in prompts:
        channel.say(event="begin", prompt_tokens=length)
        channel.say(event="progress", message=_answering(length))
        if length != first:
            _warm_up(model, requests[length])
        usage, rule = _ProcessorUse(), StoppingRule(count, nearest_ns)
        before = core_latency()
        while not rule.reached:
            sample, spent = _time_answer(model, requests[length], channel)
            after = core_latency()
            latency = latency_during(spent, before, after)
            channel.say(**sample, core_distance_ns=latency)
            rule.add(spent, latency)
            before = after
        nearest_ns = rule.nearest_ns
        channel.say(event="end", prompt_tokens=length, **usage.figures())


def load(runtime: Runtime, folder: Path, spec: ModelSpec, channel: Channel) -> tuple[Any, float]:
    """Load and compile a model without warming it up.

    Returns:
        The model, and the seconds this took, without imports.

    Raises:
        PaddockError: the device is missing, or see :meth:`core.runtimes.base.Runtime.load`.
    """
    channel.say(event="progress", message="Starting the runtime.")
    runtime.prepare(folder)
    if spec.runtime is not RuntimeName.PYTORCH:
        spec = replace(spec, device=require_device(spec.device))
    channel.say(event="progress", message="Loading and compiling the model.")
    started = time.perf_counter()
    model = runtime.load(folder, spec)
    return model, time.perf_counter() - started


def _warm_up(model: LoadedModel, request: TokenRequest) -> None:
    tokens = min(WARM_UP_TOKENS, request.sampling.max_new_tokens)
    short = replace(request, sampling=replace(request.sampling, max_new_tokens=tokens))
    if request.speculation.mode is SpeculationMode.AUTO:  # else its pipeline is not loaded yet
        on = replace(request.speculation, mode=SpeculationMode.ON)
        model.generate(replace(short, speculation=on), lambda token: True)
    model.generate(short, lambda token: True)


def _time_answer(
    model: LoadedModel, request: TokenRequest, channel: Channel
) -> tuple[dict[str, Any], float]:
    """Return one timed answer as an event, and its duration in seconds."""
    clock = time.perf_counter
    stamps: list[float] = []
    drafts: list[int] = []
    heard = started = clock()

    def stamp(token: int) -> bool:
        nonlocal heard
        now = token.stamp_s if isinstance(token, StampedId) else clock()
        stamps.append(now)
        if isinstance(token, StampedId) and token.step_drafts is not None:
            drafts.append(token.step_drafts)
        if now - heard >= PROGRESS_EVERY_S:
            heard = now
            channel.say(event="progress", message=_answering(len(request.prompt_ids)))
        return True

    model.generate(request, stamp)
    ended = clock()
    wanted = request.sampling.max_new_tokens
    if len(stamps) != wanted:
        raise GenerationError(
            f"The model ended its answer after {len(stamps)} of {wanted} tokens, although its end "
            "token was ignored. Measure another runtime."
        )
    found = timings_of(started, started, ended, len(request.prompt_ids), stamps)
    sample = {
        "event": "sample",
        "prompt_tokens": len(request.prompt_ids),
        "ttft_ms": found.ttft_ms,
        "tpot_ms": found.tpot_ms,
        "total_ms": found.total_ms,
        "token_times_ms": [1000 * (moment - started) for moment in stamps],
        "draft_tokens": sum(drafts) or None,
    }
    return sample, ended - started


def _answering(length: int) -> str:
    return f"Answering prompts of {length:,} tokens."


class _ProcessorUse:
    """Processor time of this process and of everything else since this object was created."""

    def __init__(self) -> None:
        self._before = (time.perf_counter(), time.process_time(), _machine_busy_s())

    def figures(self) -> dict[str, Any]:
        """Return the cores used by this process and by others, and whether the latter matter."""
        now = (time.perf_counter(), time.process_time(), _machine_busy_s())
        wall, own, busy = (after - before for after, before in zip(now, self._before, strict=True))
        others = max(0.0, busy - own)
        allowed = max(CONTENDED_CORES, CONTENDED_SHARE * len(_our_cores()))
        return {
            "cpu_cores": own / wall,
            "other_cpu_cores": others / wall,
            "contended": others - ACCOUNTING_ERROR_S > allowed * wall,
        }


def _machine_busy_s() -> float:
    """Return the processor time used by anything, in seconds since boot, on the cores this process
    may use.

    Time that a hypervisor gave to other machines counts, because it is missing just the same.
    """
    ours = _our_cores()
    return sum(
        sum(times)
        - times.idle
        - getattr(times, "iowait", 0.0)
        # On Linux "user" includes "guest", and "nice" includes "guest_nice".
        - getattr(times, "guest", 0.0)
        - getattr(times, "guest_nice", 0.0)
        for core, times in enumerate(psutil.cpu_times(percpu=True))
        if core in ours
    )


def _our_cores() -> frozenset[int]:
    try:
        return frozenset(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS has no CPU affinity
        return frozenset(range(psutil.cpu_count() or 1))


def _work(request: dict[str, Any], channel: Channel) -> dict[str, Any] | None:
    disable_telemetry()
    quieten_libraries()
    spec = from_json(ModelSpec, request["spec"])
    folder, runtime = Path(request["folder"]), RUNTIMES[spec.runtime]()
    if request["kind"] == "quality":
        from core.benchmark.scoring import score

        if spec.runtime is RuntimeName.GENAI:  # GenAI returns no logits; the effect of weights
            runtime = OptimumRuntime()  # and hints on quality is the same in Optimum
        return score(runtime, folder, spec, forced=request["forced"], channel=channel)
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
            speculation=from_json(Speculation, request["speculation"]),
        )
    return None


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
