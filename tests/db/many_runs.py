"""Generates many runs, as from three months of use."""

from __future__ import annotations

import random
import uuid
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from core.db import Origin, RunResult, RunStart, RunState
from core.db.database import Database
from core.db.processes import current_instance
from core.db.rows import to_row
from core.db.run_values import utc_now
from core.db.tables import runs

DAYS = 90
MODELS = {
    "paddock-neox": 1700.0,
    "paddock-llama": 1300.0,
    "tiny-llama-1b-chat": 22.0,
    "phi-2": 11.0,
    "dolly-v2-3b": 8.0,
    "red-pajama-3b-instruct": 8.5,
    "mistral-7b": 4.2,
    "llama-3-8b-instruct": 3.9,
}
"""Tokens/s of each model in INT8."""
PRECISIONS = {"fp16": 0.6, "int8": 1.0, "int4": 1.3}
"""Speed of each precision relative to INT8."""
RUNTIMES = {"genai": 1.0, "optimum": 0.8}
HOSTS = {"bench": 1.0, "laptop": 0.7}
_TEXT = "The cat sat by the river and thought about what the day would bring. "
_AT_ONCE = 5000


def fill(database: Database, count: int, *, seed: int = 7, hosts: int = 2) -> None:
    """Insert this many finished runs over the last :data:`DAYS` days.

    Past the store, which writes one run a transaction; the values are those it would write.
    """
    chance = random.Random(seed)
    now, left = utc_now(), count
    while left:
        portion = min(left, _AT_ONCE)
        rows = [_row(chance, now, hosts) for _ in range(portion)]
        with database.writing() as connection:
            connection.execute(runs.insert(), rows)
        left -= portion


def some_run(chance: random.Random, now: datetime, hosts: int = 2) -> tuple[RunStart, RunResult]:
    """Return the start and result of one run."""
    model, speed = chance.choice(list(MODELS.items()))
    precision, factor = chance.choice(list(PRECISIONS.items()))
    runtime, share = chance.choice(list(RUNTIMES.items()))
    host, strength = chance.choices(list(HOSTS.items())[:hosts], (9, 1)[:hosts])[0]
    contended = chance.random() < 0.1
    rate = speed * factor * share * strength * chance.lognormvariate(0, 0.15)
    rate *= 0.6 if contended else 1.0
    tokens, prompt = chance.randint(8, 256), chance.randint(12, 400)
    begin = now - timedelta(days=DAYS) * chance.random()
    ttft = 0.05 * prompt * 1000 / rate * chance.lognormvariate(0, 0.2)
    gaps = (1000 / rate * chance.uniform(0.9, 1.1) for _ in range(tokens - 1))
    times = tuple(round(time, 3) for time in accumulate(gaps, initial=ttft))
    start = RunStart(
        origin=chance.choice((Origin.INSTRUCT, Origin.COMPARE, Origin.API)),
        instruction=_TEXT[: chance.randint(20, 70)],
        prompt_format="plain",
        temperature=0.8,
        top_p=0.92,
        top_k=0,
        repetition_penalty=1.0,
        max_new_tokens=256,
        greedy=False,
        seed=chance.randrange(2**31),
        model=model,
        title=model.replace("-", " ").title(),
        source=f"somebody/{model}",
        precision=precision,
        device="AUTO",
        runtime=runtime,
        hints={"INFERENCE_PRECISION_HINT": "f32"},
        versions={"openvino": "2026.4.1", "transformers": "5.5.4", "paddock": "1"},
        host_name=host,
        host_cpu=f"Some CPU of {host} @ 2.0 GHz",
        host_os="Linux 6.1",
        session=f"session-{chance.randrange(500)}",
        started_at=begin,
    )
    result = RunResult(
        text=_TEXT * (tokens // 16 + 1),
        stop_reason=chance.choice(("end of text", "length", "stop marker")),
        execution_precision="f32",
        kv_precision="u8",
        devices_used=("CPU",),
        threads=2,
        contended=contended,
        prompt_tokens=prompt,
        new_tokens=tokens,
        queue_ms=chance.random(),
        ttft_ms=ttft,
        tpot_ms=1000 / rate,
        decode_tokens_per_s=rate,
        end_to_end_tokens_per_s=1000 * tokens / times[-1],
        prefill_tokens_per_s=1000 * prompt / ttft,
        total_ms=times[-1],
        load_s=chance.uniform(0.5, 9.0),
        memory_private_bytes=round(2**30 * chance.uniform(1.0, 1.1)),
        memory_file_backed_bytes=round(2**29 * chance.uniform(1.0, 1.1)),
        memory_scope="growth over load and warm-up",
        token_times_ms=times,
        ended_at=begin + timedelta(milliseconds=times[-1]),
    )
    return start, result


def _row(chance: random.Random, now: datetime, hosts: int) -> dict[str, Any]:
    start, result = some_run(chance, now, hosts)
    instance = current_instance()
    row: dict[str, Any] = to_row(start) | to_row(result)
    row |= {f"instance_{name}": value for name, value in vars(instance).items()}
    return row | {"id": uuid.UUID(int=chance.getrandbits(128)).hex, "state": RunState.DONE}
