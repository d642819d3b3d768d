"""What the worker does to measure one configuration: load, warm up, answer, stamp every token.

Prefill is bound by arithmetic and decode by memory bandwidth, so both are timed apart, from the
moment each token exists. Memory is read right after the first generate, since weights are repacked
there; the parent samples the peaks from outside. Texts are not decoded and nothing is shown while
an answer is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from core.benchmark.prompts import prompt_ids
from core.benchmark.stopping import Enough, distance_during
from core.errors import GenerationError, PromptTooLongError
from core.hardware.devices import process_memory, require_device
from core.inference.timing import measure as timings_of
from core.runtimes.base import LoadedModel, Runtime
from core.runtimes.spec import ModelSpec, RuntimeName, SamplingSettings, TokenRequest
from core.workers.child import Channel

WARM_UP_TOKENS = 4
"""Of the untimed answer before the first timed one of each prompt length: weights are repacked and
kernels chosen in its prefill and first steps."""

PULSE_S = 5.0
"""A longer answer says this often that it goes on."""

CONTENDED_CORES = 0.25
"""Cores kept busy by others from which a measurement counts as contended. A quarter of a core is an
eighth of a two-core machine, and more than its share of harm: the threads of a matrix
multiplication wait for the slowest of them."""

CONTENDED_SHARE = 0.02
"""The same as a share of the cores, for machines with so many that something always runs."""

ACCOUNTING_ERROR_S = 0.05
"""Processor time that is not held against anybody: the system counts it in steps of 10 ms per core,
which matters for answers of a tenth of a second."""


def _unknown() -> None:
    """The cores' distance where it does not matter."""


def measure(
    runtime: Runtime,
    folder: Path,
    spec: ModelSpec,
    *,
    prompts: Sequence[tuple[int, int]],
    new_tokens: int,
    channel: Channel,
    core_distance: Callable[[], float | None] = _unknown,
    nearest_ns: float | None = None,
) -> None:
    """Measure the model in ``folder`` and tell what is found as it is found.

    Events: ``loaded`` (seconds, memory, conditions), then for each prompt length ``begin``, one
    ``sample`` for each answer and ``end`` (processor use).

    Args:
        prompts: (prompt tokens, number of timed answers), in order; of short answers there are
            more, see :mod:`core.benchmark.stopping`.
        new_tokens: of each answer, forced.
        core_distance: nanoseconds from a core to another, see
            :mod:`core.benchmark.core_latency`; asked between the answers of a model that runs on
            the cores.
        nearest_ns: the shortest that is known of this machine.

    Raises:
        PaddockError: the device is not there, the files are damaged, a prompt is too long …
    """
    model, compile_s = load(runtime, folder, spec, channel)
    if not model.conditions.on_cpu_alone:
        core_distance = _unknown
    _check_room(model, spec, prompts, new_tokens)
    requests = {
        length: TokenRequest(
            prompt_ids(model.tokenizer, length),
            SamplingSettings(max_new_tokens=new_tokens, greedy=True),
        )
        for length, _ in prompts
    }
    # Always of the shortest prompt, so that load times compare whatever the order.
    first = min(requests)
    channel.say(event="progress", message="Warming up.", fraction=None)
    started = time.perf_counter()
    _warm_up(model, requests[first])
    warm_up_s = time.perf_counter() - started
    channel.say(
        event="loaded",
        load_s=compile_s + warm_up_s,
        compile_s=compile_s,
        memory=asdict(process_memory()),
        conditions=asdict(model.conditions),
    )
    total = sum(count for _, count in prompts)
    done = 0
    for length, count in prompts:
        channel.say(event="begin", prompt_tokens=length)
        if length != first:
            _warm_up(model, requests[length])
        work, enough = _Work(), Enough(count, nearest_ns)
        before = core_distance()
        while not enough.reached:
            progress = _Progress(channel, length, done, total, new_tokens)
            sample, spent = _time_answer(model, requests[length], progress)
            after = core_distance()
            distance = distance_during(spent, before, after)
            channel.say(**sample, core_distance_ns=distance)
            done += enough.answers < count
            enough.add(spent, distance)
            before = after
        nearest_ns = enough.nearest_ns
        channel.say(event="end", prompt_tokens=length, **work.figures())


def load(runtime: Runtime, folder: Path, spec: ModelSpec, channel: Channel) -> tuple[Any, float]:
    """Load and compile a model without warming it up.

    Returns:
        The model, and the seconds that took; imports are not in them.

    Raises:
        PaddockError: the device is not there, or see :meth:`core.runtimes.base.Runtime.load`.
    """
    channel.say(event="progress", message="Starting the runtime.", fraction=None)
    runtime.prepare(folder)
    if spec.runtime is not RuntimeName.PYTORCH:
        spec = replace(spec, device=require_device(spec.device))
    channel.say(event="progress", message="Loading and compiling the model.", fraction=None)
    started = time.perf_counter()
    model = runtime.load(folder, spec)
    return model, time.perf_counter() - started


def _check_room(
    model: LoadedModel, spec: ModelSpec, prompts: Sequence[tuple[int, int]], new_tokens: int
) -> None:
    longest = max(length for length, _ in prompts)
    if model.positions is not None and longest + new_tokens > model.positions:
        raise PromptTooLongError(
            f"{spec.model} has positions for {model.positions:,} tokens, fewer than a prompt of "
            f"{longest:,} and an answer of {new_tokens:,} take; choose shorter ones."
        )


def _warm_up(model: LoadedModel, request: TokenRequest) -> None:
    tokens = min(WARM_UP_TOKENS, request.sampling.max_new_tokens)
    short = replace(request, sampling=replace(request.sampling, max_new_tokens=tokens))
    model.generate(short, lambda token: True)


def _time_answer(
    model: LoadedModel, request: TokenRequest, progress: _Progress
) -> tuple[dict[str, Any], float]:
    """One timed answer as an event, and the seconds that it took."""
    clock = time.perf_counter
    stamps: list[float] = []

    def stamp(token: int) -> bool:
        now = clock()
        stamps.append(now)
        progress.look(now, len(stamps))
        return True

    progress.tell(0)
    started = clock()
    progress.spoke_at = started
    model.generate(request, stamp)
    ended = clock()
    wanted = request.sampling.max_new_tokens
    if len(stamps) != wanted:
        raise GenerationError(
            f"The model ended its answer after {len(stamps)} of {wanted} tokens, though its end "
            "token was ignored; measure another runtime."
        )
    found = timings_of(started, started, ended, len(request.prompt_ids), stamps)
    sample = {
        "event": "sample",
        "prompt_tokens": len(request.prompt_ids),
        "ttft_ms": found.ttft_ms,
        "tpot_ms": found.tpot_ms,
        "total_ms": found.total_ms,
        "token_times_ms": [1000 * (moment - started) for moment in stamps],
    }
    return sample, ended - started


class _Progress:
    """Says how far the answers are; while one is timed, no more often than every few seconds."""

    def __init__(
        self, channel: Channel, length: int, done: int, total: int, new_tokens: int
    ) -> None:
        self._channel = channel
        self._message = f"Answering prompts of {length:,} tokens."
        self._done, self._total, self._new_tokens = done, total, new_tokens
        self.spoke_at = 0.0

    def look(self, now: float, tokens: int) -> None:
        """After each token; costs nothing but every few seconds."""
        if now - self.spoke_at >= PULSE_S:
            self.spoke_at = now
            self.tell(tokens)

    def tell(self, tokens: int) -> None:
        """Say it now."""
        done = min(self._total, self._done + tokens / self._new_tokens)
        self._channel.say(event="progress", message=self._message, fraction=done / self._total)


class _Work:
    """Processor time of this process, and of everything else, since this was made."""

    def __init__(self, busy: Callable[[], float] | None = None) -> None:
        self._busy = busy or _machine_busy_s
        self._before = (time.perf_counter(), time.process_time(), self._busy())

    def figures(self) -> dict[str, Any]:
        """Cores kept busy by this process and by others, and whether those matter."""
        now = (time.perf_counter(), time.process_time(), self._busy())
        wall, own, busy = (after - before for after, before in zip(now, self._before, strict=True))
        others = max(0.0, busy - own)
        allowed = max(CONTENDED_CORES, CONTENDED_SHARE * len(_our_cores()))
        return {
            "cpu_cores": own / wall,
            "other_cpu_cores": others / wall,
            "contended": others - ACCOUNTING_ERROR_S > allowed * wall,
        }


def _machine_busy_s() -> float:
    """Processor time spent on anything, in seconds since start, on the cores that we may use.

    Time that a hypervisor gave to other machines counts, for it is missing just the same.
    """
    ours = _our_cores()
    return sum(
        sum(times)
        - times.idle
        - getattr(times, "iowait", 0.0)
        # Linux counts guests' time within user's as well.
        - getattr(times, "guest", 0.0)
        - getattr(times, "guest_nice", 0.0)
        for core, times in enumerate(psutil.cpu_times(percpu=True))
        if core in ours
    )


def _our_cores() -> frozenset[int]:
    try:
        return frozenset(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS binds no process to cores
        return frozenset(range(psutil.cpu_count() or 1))
