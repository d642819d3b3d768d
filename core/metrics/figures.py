"""Figures of a measurement, computed from its rounds.

TTFT, TPOT and the rates are defined in :mod:`core.inference.timing` and computed for each timed
answer (sample). A rate over several answers is the median of their rates. A figure of a process
(load, memory, processor time) is the median of the rounds, a peak their maximum. For an even number
of values the median is the mean of the middle two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean, median

from core.db.measurement_values import Configuration, Figures, Round, Sample, Spread
from core.inference.timing import accepted

APART = 1.5
"""The cores count as apart if their latency is more than this multiple of the lowest one. Measured,
including Python's own time: 1 to 1.3 times for near cores, 2.1 to 2.9 times for others."""


def figures_of(
    rounds: Sequence[Round],
    configuration: Configuration,
    *,
    bytes_per_token: int | None,
    bandwidth: float | None,
    nearest_ns: float | None = None,
) -> Figures:
    """Return the figures over the timed answers of all rounds.

    Answers measured while the cores were apart (see :func:`are_apart`) are left out. If there are
    no others, they are used, and the measurement counts as contended.

    Args:
        rounds: Complete rounds; at least one, with at least one sample.
        configuration: Provides the number of prompt tokens.
        bytes_per_token: Bytes read from memory for one new token; None if unknown.
        bandwidth: Measured read bandwidth of the machine in bytes/s; None if unknown.
        nearest_ns: Lowest core-to-core latency known for this machine; None if only the latencies
            of these answers are known.

    Raises:
        ValueError: There is no sample.
    """
    timed = [sample for one in rounds for sample in one.samples]
    if not timed:
        raise ValueError("a measurement without a timed answer has no figures")
    nearest = nearest_of(timed, nearest_ns)
    near = near_answers(timed, nearest)
    samples = near or timed
    decode = [1000 / sample.tpot_ms for sample in samples if sample.tpot_ms]
    decode_rate = median(decode) if decode else None
    gaps = [
        later - earlier for sample in samples for earlier, later in pairwise(sample.token_times_ms)
    ]
    prompt = configuration.prompt_tokens
    guessed = [
        (len(sample.token_times_ms), sum(accepted(sample.token_times_ms)), sample.draft_tokens)
        for sample in samples
        if sample.draft_tokens
    ]
    mbu = None  # of guessed tokens, a step reads for several
    if bytes_per_token is not None and decode_rate is not None and bandwidth and not guessed:
        mbu = bytes_per_token * decode_rate / bandwidth
    return Figures(
        load_s=median(one.load_s for one in rounds),
        compile_s=median(one.compile_s for one in rounds),
        ttft_ms=spread([sample.ttft_ms for sample in samples]),
        tpot_ms=spread(gaps) if gaps else None,
        decode_tokens_per_s=decode_rate,
        decode_low=min(decode, default=None),
        decode_high=max(decode, default=None),
        prefill_tokens_per_s=_median_rate((prompt, sample.ttft_ms) for sample in samples),
        end_to_end_tokens_per_s=_median_rate(
            (len(sample.token_times_ms), sample.total_ms) for sample in samples
        ),
        memory_private_bytes=round(median(one.memory_private_bytes for one in rounds)),
        memory_file_backed_bytes=round(median(one.memory_file_backed_bytes for one in rounds)),
        memory_private_peak_bytes=max(one.memory_private_peak_bytes for one in rounds),
        memory_file_backed_peak_bytes=max(one.memory_file_backed_peak_bytes for one in rounds),
        cpu_cores=median(one.cpu_cores for one in rounds),
        other_cpu_cores=median(one.other_cpu_cores for one in rounds),
        contended=any(one.contended for one in rounds) or not near,
        bytes_per_token=bytes_per_token,
        mbu=mbu,
        answers=len(samples),
        answers_apart=len(timed) - len(samples),
        acceptance_rate=fmean(taken / drafts for _, taken, drafts in guessed) if guessed else None,
        tokens_per_step=fmean(n / (n - taken) for n, taken, _ in guessed) if guessed else None,
        nearest_ns=nearest,
    )


def are_apart(distance_ns: float | None, nearest_ns: float | None) -> bool:
    """Return whether core-to-core latency was much higher than this machine's lowest one.

    This happens if a host moves virtual cores: small models then run at two thirds of their rate.

    Args:
        distance_ns: Latency from :mod:`core.benchmark.core_latency`; None if not measured.
        nearest_ns: Lowest latency known.
    """
    return distance_ns is not None and nearest_ns is not None and distance_ns > APART * nearest_ns


def near_answers(samples: Iterable[Sample], nearest_ns: float | None) -> list[Sample]:
    """Return the answers that were not measured while the cores were apart."""
    return [one for one in samples if not are_apart(one.core_distance_ns, nearest_ns)]


def nearest_of(samples: Iterable[Sample], nearest_ns: float | None = None) -> float | None:
    """Return the lowest core-to-core latency in nanoseconds, of the answers and ``nearest_ns``."""
    measured = [sample.core_distance_ns for sample in samples]
    return min((ns for ns in (*measured, nearest_ns) if ns is not None), default=None)


def spread(values: Sequence[float]) -> Spread:
    """Return median, percentiles and extremes of at least one value."""
    ordered = sorted(values)
    return Spread(
        median=percentile(ordered, 50),
        p90=percentile(ordered, 90),
        p99=percentile(ordered, 99),
        low=ordered[0],
        high=ordered[-1],
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the percentile of ascending values, interpolated linearly between the two nearest.

    Definition 7 of Hyndman and Fan (1996), which is NumPy's default; NumPy itself takes twenty
    times as long for few values. With few values, a high percentile is close to the maximum.
    """
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _median_rate(counted: Iterable[tuple[int, float]]) -> float:
    """Return the median per second of counts over their durations in ms; 0 if none has a duration
    (a coarse clock)."""
    rates = [1000 * count / ms for count, ms in counted if ms]
    return median(rates) if rates else 0.0
