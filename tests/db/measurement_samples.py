"""Sample measurements in which every field has a different value."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from core.db.measurement_values import (
    Configuration,
    Figures,
    Host,
    Int4Weights,
    Measurement,
    MeasurementState,
    Quality,
    Round,
    Sample,
    Spread,
)


def a_configuration(**changes: Any) -> Configuration:
    """Return a configuration."""
    values: dict[str, Any] = {
        "model": "dolly-v2-3b",
        "title": "Dolly 2.0 3B · random weights",
        "source": "random weights",
        "random_weights": True,
        "precision": "int4",
        "device": "AUTO",
        "runtime": "optimum",
        "hints": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2, "FLAG": True},
        "prompt_tokens": 512,
        "new_tokens": 4,
        "repeats": 5,
    }
    return Configuration(**(values | changes))


def a_round(*, start: float = 71.3, **changes: Any) -> Round:
    """Return a round with two answers of four tokens; TPOT 20.1 and 21.3 ms."""
    first = tuple(start + gap for gap in (0.0, 20.0, 40.1, 60.3))
    second = tuple(start + 10 + gap for gap in (0.0, 20.2, 40.5, 63.9))
    values: dict[str, Any] = {
        "load_s": 3.25,
        "compile_s": 1.125,
        "memory_private_bytes": 6 * 2**30 + 1,
        "memory_file_backed_bytes": 5 * 2**30 + 2,
        "memory_private_peak_bytes": 7 * 2**30 + 3,
        "memory_file_backed_peak_bytes": 6 * 2**30 + 4,
        "cpu_cores": 1.9,
        "other_cpu_cores": 0.1 + 0.2,
        "contended": False,
        "samples": tuple(
            Sample(
                ttft_ms=times[0],
                tpot_ms=(times[-1] - times[0]) / 3,
                total_ms=times[-1] + 0.5,
                token_times_ms=times,
                core_distance_ns=110.5,
            )
            for times in (first, second)
        ),
    }
    return Round(**(values | changes))


def a_figures(**changes: Any) -> Figures:
    """Return figures, roughly those of the rounds."""
    values: dict[str, Any] = {
        "load_s": 3.25,
        "compile_s": 1.125,
        "ttft_ms": Spread(median=76.3, p90=80.3, p99=81.2, low=71.3, high=81.3),
        "tpot_ms": Spread(median=20.2, p90=21.5, p99=23.2, low=20.0, high=23.4),
        "decode_tokens_per_s": 48.3,
        "decode_low": 46.9,
        "decode_high": 49.7,
        "prefill_tokens_per_s": 6739.0,
        "end_to_end_tokens_per_s": 28.9,
        "memory_private_bytes": 6 * 2**30 + 1,
        "memory_file_backed_bytes": 5 * 2**30 + 2,
        "memory_private_peak_bytes": 7 * 2**30 + 3,
        "memory_file_backed_peak_bytes": 6 * 2**30 + 4,
        "cpu_cores": 1.9,
        "other_cpu_cores": 0.3,
        "contended": False,
        "bytes_per_token": 410_000_000,
        "mbu": 0.62,
        "answers": 4,
        "answers_apart": 3,
        "acceptance_rate": 0.25,
        "tokens_per_step": 1.4,
        "nearest_ns": 105.25,
    }
    return Figures(**(values | changes))


def a_quality(**changes: Any) -> Quality:
    """Return a quality."""
    values: dict[str, Any] = {
        "reference": "fp32",
        "perplexity": 12.5,
        "perplexity_ratio": 1.024,
        "top1_agreement": 0.963,
        "first_divergent_token": 31.4,
        "divergent_share": 0.41,
        "task_accuracy": 0.91,
        "tokens": 2304,
    }
    return Quality(**(values | changes))


def an_int4(**changes: Any) -> Int4Weights:
    """Return INT4 settings."""
    values = {"symmetric": True, "group_size": -1, "ratio": 0.9, "scale_estimation": True}
    values |= {"awq": True, "other_groups": "64, 32"}
    return Int4Weights(**(values | changes))


def a_host(**changes: Any) -> Host:
    """Return a host."""
    values: dict[str, Any] = {
        "name": "bench-1",
        "cpu": "Some CPU @ 2.0 GHz",
        "os": "Some OS 12",
        "cores": 4,
        "memory_bytes": 16 * 2**30,
        "bandwidth_bytes_per_s": 28.1e9,
    }
    return Host(**(values | changes))


def a_measurement(**changes: Any) -> Measurement:
    """Return a finished measurement with a new id; ``changes`` may name fields of the configuration
    as well."""
    asked = {
        name: changes.pop(name)
        for name in list(changes)
        if name in Configuration.__dataclass_fields__
    }
    values: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "sweep": "5" * 32,
        "state": MeasurementState.DONE,
        "configuration": a_configuration(**asked),
        "host": a_host(),
        "versions": {"openvino": "2026.4.1", "torch": "2.13.0+cpu"},
        "created_at": datetime(2026, 3, 1, 11, 30, 0, 123456, tzinfo=UTC),
        "started_at": datetime(2026, 3, 1, 11, 31, tzinfo=UTC),
        "ended_at": datetime(2026, 3, 1, 11, 42, 7, 1, tzinfo=UTC),
        "error": "Only said to see that it is kept ✓",
        "execution_precision": "f32",
        "kv_precision": "u8",
        "devices_used": ("GPU.0", "CPU"),
        "threads": 2,
        "disk_bytes": 3 * 2**30,
        "weight_bytes": 2 * 2**30,
        "weights": "INT4 from Q4_1",
        "int4": an_int4(),
        "rounds": (a_round(), a_round(start=72.9, load_s=3.5)),
        "figures": a_figures(),
        "quality": a_quality(),
        "imported_at": datetime(2026, 3, 2, 9, 0, 0, 5, tzinfo=UTC),
    }
    return Measurement(**(values | changes))


def a_waiting_one(**changes: Any) -> Measurement:
    """Return a measurement as it is when a sweep starts."""
    nothing = {
        "state": MeasurementState.WAITING,
        "started_at": None,
        "ended_at": None,
        "error": None,
        "execution_precision": None,
        "kv_precision": None,
        "devices_used": (),
        "threads": None,
        "disk_bytes": None,
        "weight_bytes": None,
        "weights": None,
        "int4": None,
        "rounds": (),
        "figures": None,
        "quality": None,
        "imported_at": None,
    }
    return a_measurement(**(nothing | changes))


def done(measurement: Measurement, **changes: Any) -> Measurement:
    """Return the same measurement, finished."""
    full = a_measurement(imported_at=None, error=None)
    kept = {"id": measurement.id, "sweep": measurement.sweep, "created_at": measurement.created_at}
    return replace(full, configuration=measurement.configuration, **(kept | changes))
