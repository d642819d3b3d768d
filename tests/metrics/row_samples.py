"""Sample measurements and answers with configurable figures."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from core.db.measurement_values import (
    Configuration,
    Figures,
    Host,
    Measurement,
    MeasurementState,
    Quality,
    Round,
    Sample,
    Spread,
)
from core.db.run_values import Origin, RunRow
from core.metrics.answer_days import days_of, points_of_days
from core.metrics.rows import Point

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
MB = 10**6


def a_host(**changes: Any) -> Host:
    """A host with a measured bandwidth."""
    values: dict[str, Any] = {
        "name": "bench",
        "cpu": "Some CPU",
        "os": "Some OS",
        "cores": 2,
        "memory_bytes": 16 * 2**30,
        "bandwidth_bytes_per_s": 30e9,
    }
    return Host(**(values | changes))


def a_quality(ratio: float = 1.02, **changes: Any) -> Quality:
    """Quality compared with FP32."""
    values: dict[str, Any] = {
        "reference": "fp32",
        "perplexity": 5.0 * ratio,
        "perplexity_ratio": ratio,
        "top1_agreement": 0.95,
        "first_divergent_token": 12.5,
        "divergent_share": 0.2,
        "tokens": 2000,
    }
    return Quality(**(values | changes))


def a_sample(tpot_ms: float, ttft_ms: float, tokens: int = 16) -> Sample:
    """One timed answer with slightly alternating gaps."""
    times = [ttft_ms]
    for number in range(1, tokens):
        times.append(times[-1] + tpot_ms * (1.1 if number % 2 else 0.9))
    return Sample(
        ttft_ms=ttft_ms,
        tpot_ms=(times[-1] - times[0]) / (tokens - 1),
        total_ms=times[-1],
        token_times_ms=tuple(times),
    )


def _spread(median: float) -> Spread:
    return Spread(
        median=median, p90=median * 1.05, p99=median * 1.1, low=median * 0.9, high=median * 1.1
    )


def a_measurement(
    precision: str = "int8",
    rate: float | None = 40.0,
    *,
    prompt_tokens: int = 32,
    ttft_ms: float = 80.0,
    private_mb: int = 400,
    file_mb: int = 100,
    state: MeasurementState = MeasurementState.DONE,
    error: str | None = None,
    contended: bool = False,
    mbu: float | None = 0.5,
    quality: Quality | None = None,
    host: Host | None = None,
    imported: bool = False,
    when: datetime = NOW,
    weights: str | None = None,
    **configuration: Any,
) -> Measurement:
    """A measurement with these figures; without a rate it has no figures."""
    what: dict[str, Any] = {
        "model": "dolly-v2-3b",
        "title": "Dolly 2.0 3B",
        "source": "databricks/dolly-v2-3b",
        "precision": precision,
        "device": "CPU",
        "runtime": "optimum",
        "prompt_tokens": prompt_tokens,
        "new_tokens": 16,
        "repeats": 2,
    }
    figures, rounds = None, ()
    if rate is not None:
        tpot = 1000 / rate
        rounds = (
            Round(
                load_s=2.5,
                compile_s=1.5,
                memory_private_bytes=private_mb * MB,
                memory_file_backed_bytes=file_mb * MB,
                memory_private_peak_bytes=private_mb * MB + 50 * MB,
                memory_file_backed_peak_bytes=file_mb * MB + 10 * MB,
                cpu_cores=1.9,
                other_cpu_cores=0.05,
                contended=contended,
                samples=tuple(a_sample(tpot * factor, ttft_ms) for factor in (0.95, 1.05)),
            ),
        )
        figures = Figures(
            load_s=2.5,
            compile_s=1.5,
            ttft_ms=_spread(ttft_ms),
            tpot_ms=_spread(tpot),
            decode_tokens_per_s=rate,
            decode_low=rate * 0.9,
            decode_high=rate * 1.1,
            prefill_tokens_per_s=1000 * prompt_tokens / ttft_ms,
            end_to_end_tokens_per_s=rate * 0.8,
            memory_private_bytes=private_mb * MB,
            memory_file_backed_bytes=file_mb * MB,
            memory_private_peak_bytes=private_mb * MB + 50 * MB,
            memory_file_backed_peak_bytes=file_mb * MB + 10 * MB,
            cpu_cores=1.9,
            other_cpu_cores=0.05,
            contended=contended,
            bytes_per_token=round(30e9 * mbu / rate) if mbu else None,
            mbu=mbu,
        )
    _outside_the_catalogue(what, configuration)
    return Measurement(
        id=uuid.uuid4().hex,
        sweep="0" * 32,
        state=state,
        configuration=Configuration(**(what | configuration)),
        host=host or a_host(),
        versions={"openvino": "2026.4.1", "torch": "2.13.0"},
        created_at=when,
        started_at=when,
        ended_at=when,
        error=error,
        execution_precision="f32",
        kv_precision="u8",
        devices_used=("CPU",) if rate is not None else (),
        threads=2,
        disk_bytes=500_000_000,
        weight_bytes=400_000_000,
        weights=weights,
        rounds=rounds,
        figures=figures,
        quality=quality,
        imported_at=when if imported else None,
    )


def a_row(rate: float | None = 40.0, **changes: Any) -> RunRow:
    """An answer given in the app."""
    values: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "started_at": NOW,
        "origin": Origin.INSTRUCT,
        "model": "dolly-v2-3b",
        "title": "Dolly 2.0 3B",
        "source": "databricks/dolly-v2-3b",
        "random_weights": False,
        "precision": "int8",
        "weights": None,
        "device": "AUTO",
        "devices_used": ("CPU",),
        "runtime": "optimum",
        "host_name": "bench",
        "host_cpu": "Some CPU",
        "contended": False,
        "prompt_tokens": 30,
        "new_tokens": 50,
        "ttft_ms": 90.0,
        "decode_tokens_per_s": rate,
        "prefill_tokens_per_s": 300.0,
        "memory_private_bytes": 300 * MB,
        "memory_file_backed_bytes": 80 * MB,
        "load_s": 3.0,
        "execution_precision": "f32",
        "kv_precision": "u8",
        "threads": 2,
        "stop_reason": "length",
        "draft_tokens": None,
    }
    _outside_the_catalogue(values, changes)
    return RunRow(**(values | changes))


def _outside_the_catalogue(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change model and source with the title, because a catalogue model has a fixed title."""
    if name := changes.get("model") or changes.get("title"):
        values["model"] = values["source"] = name


def points_of_runs(rows: Iterable[RunRow], *, by_day: bool = False) -> list[Point]:
    """Return the points of answers, grouped as on the page."""
    return points_of_days(days_of(rows), by_day=by_day)
