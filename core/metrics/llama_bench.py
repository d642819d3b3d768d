"""Measurements in the columns of llama.cpp's ``llama-bench``, to stand beside published figures.

``pp512`` is the rate at which a prompt of 512 tokens is read, first new token included; ``tg128``
the rate of the 127 tokens after the first of an answer of 128. Both are the mean over the timed
answers, ± their sample standard deviation. llama-bench counts neither sampling nor the first
token's overhead, so its figures are at most a little higher.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from core.catalogue import catalogue
from core.db.measurement_values import Measurement
from core.metrics.labels import short_runtime
from core.metrics.rows import subject_of, time_of

PROMPT_TOKENS = 512
NEW_TOKENS = 128
EMPTY = 1
"""Prompt tokens of ``tg128``, which llama-bench starts with an empty context."""


@dataclass(frozen=True)
class _Test:
    """One line of the table."""

    row: Measurement
    name: str
    tokens: int
    """Tokens counted in each sample."""
    seconds: tuple[float, ...]
    """Time of each sample."""

    @property
    def rates(self) -> list[float]:
        return [self.tokens / one for one in self.seconds]

    @property
    def cells(self) -> list[str]:
        row, subject = self.row, subject_of(self.row)
        rates, parameters = self.rates, _parameters(self.row)
        return [
            f"{subject.name} {subject.weights}",
            "—" if row.weight_bytes is None else f"{row.weight_bytes / 2**20:.2f} MiB",
            "—" if parameters is None else f"{parameters / 1e6:.2f} M",
            f"{row.configuration.device} ({short_runtime(subject.runtime)})",
            "—" if row.threads is None else str(row.threads),
            self.name,
            f"{fmean(rates):.2f} ± {_deviation(rates):.2f}",
        ]

    @property
    def values(self) -> dict[str, Any]:
        row, subject, rates = self.row, subject_of(self.row), self.rates
        nanoseconds = [1e9 * one for one in self.seconds]
        reads = self.name.startswith("pp")
        return {
            "build_commit": row.versions.get("openvino"),
            "cpu_info": row.host.cpu,
            "backends": f"OpenVINO, {short_runtime(subject.runtime)}",
            "model_filename": Path(row.configuration.source).name,
            "model_type": f"{subject.name} {subject.weights}",
            "model_size": row.weight_bytes,
            "model_n_params": _parameters(row),
            "n_threads": row.threads,
            "type_k": row.kv_precision,
            "type_v": row.kv_precision,
            "n_prompt": row.configuration.prompt_tokens if reads else 0,
            "n_gen": 0 if reads else row.configuration.new_tokens,
            "n_depth": 0,
            "test_time": time_of(row).isoformat(timespec="seconds"),
            "avg_ns": round(fmean(nanoseconds)),
            "stddev_ns": round(_deviation(nanoseconds)),
            "avg_ts": fmean(rates),
            "stddev_ts": _deviation(rates),
            "samples_ns": [round(one) for one in nanoseconds],
            "samples_ts": rates,
        }


def to_markdown(rows: Sequence[Measurement]) -> str:
    """Return the table of ``llama-bench --output md``; rows without figures are left out."""
    heads = ["model", "size", "params", "backend", "threads", "test", "t/s"]
    rule = ["---", "---:", "---:", "---", "---:", "---:", "---:"]
    lines = [heads, rule, *(test.cells for test in _tests(rows))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def to_json(rows: Sequence[Measurement]) -> str:
    """Return the array of ``llama-bench --output json``, without fields that OpenVINO lacks."""
    return json.dumps([test.values for test in _tests(rows)], indent=2, ensure_ascii=False) + "\n"


def _tests(rows: Sequence[Measurement]) -> list[_Test]:
    """Return prompt processing of long prompts and generation after short ones."""
    found = []
    for row in rows:
        samples = [sample for one in row.rounds for sample in one.samples]
        length, new = row.configuration.prompt_tokens, row.configuration.new_tokens
        if length > EMPTY and samples:
            seconds = tuple(sample.ttft_ms / 1000 for sample in samples)
            found.append(_Test(row, f"pp{length}", length, seconds))
        decoded = tuple(new * s.tpot_ms / 1000 for s in samples if s.tpot_ms)
        if length == EMPTY and decoded:
            found.append(_Test(row, f"tg{new}", new, decoded))
    return sorted(found, key=lambda test: test.name.startswith("tg"))


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _parameters(row: Measurement) -> int | None:
    known = catalogue().get(row.configuration.model)
    return None if known is None else known.parameters
