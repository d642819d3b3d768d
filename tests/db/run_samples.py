"""Sample runs in which every field has a different value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from core.db import GUEST, Origin, RunResult, RunStart


def a_start(**changes: Any) -> RunStart:
    """Return the start of a run."""
    values: dict[str, Any] = {
        "origin": Origin.COMPARE,
        "instruction": "Name three “rivers” ✓\nand\tone 🏔",
        "context": "The Danube is long.",
        "prompt_format": "dolly",
        "temperature": 0.8,
        "top_p": 0.92,
        "top_k": 7,
        "repetition_penalty": 1.1,
        "max_new_tokens": 256,
        "greedy": True,
        "seed": 2**63 - 1,
        "options": {"min_p": 0.1, "guided_regex": {"regex": "a|b"}},
        "speculation": "on: 4 tokens, 2-grams",
        "model": "dolly-v2-3b",
        "title": "Dolly 2.0 3B",
        "source": "databricks/dolly-v2-3b",
        "random_weights": True,
        "precision": "int4",
        "weights": "INT4 from Q4_1",
        "device": "AUTO",
        "runtime": "optimum",
        "hints": {"INFERENCE_PRECISION_HINT": "f32", "threads": 2, "list": [1, None, True]},
        "versions": {"openvino": "2026.4.1"},
        "host_name": "bench",
        "host_cpu": "Some CPU",
        "host_os": "Some OS",
        "owner": GUEST,
        "session": "s-1",
        "started_at": datetime(2026, 3, 1, 13, 30, 0, 123456, timezone(timedelta(hours=2))),
    }
    return RunStart(**(values | changes))


def a_result(**changes: Any) -> RunResult:
    """Return the result of a run."""
    values: dict[str, Any] = {
        "text": "Danube, Rhine, Po",
        "stop_reason": "error",
        "error": "The runtime failed.",
        "execution_precision": "bf16",
        "kv_precision": "u8",
        "devices_used": ("GPU.0", "CPU"),
        "threads": 2,
        "contended": False,
        "prompt_tokens": 31,
        "new_tokens": 3,
        "queue_ms": 1.5,
        "ttft_ms": 71.25,
        "tpot_ms": 20.125,
        "decode_tokens_per_s": 49.7,
        "end_to_end_tokens_per_s": 30.1,
        "prefill_tokens_per_s": 435.0,
        "total_ms": 111.5,
        "load_s": 3.25,
        "memory_private_bytes": 6 * 2**30,
        "memory_file_backed_bytes": 5 * 2**30,
        "memory_scope": "growth over load and warm-up",
        "token_times_ms": (71.25, 91.375, 111.5),
        "ended_at": datetime(2026, 3, 1, 11, 30, 1, 1, UTC),
    }
    return RunResult(**(values | changes))
