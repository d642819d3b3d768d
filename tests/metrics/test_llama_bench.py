"""The columns of llama-bench."""

from __future__ import annotations

import json
from statistics import stdev

import pytest

from core.metrics import llama_bench
from tests.db.measurement_samples import a_measurement, a_round


def test_prompt_and_generation_rates_with_their_deviation() -> None:
    rounds = (a_round(start=100.0),)  # answers start at 100 and 110 ms
    rows = [
        a_measurement(prompt_tokens=llama_bench.EMPTY, new_tokens=4, rounds=rounds),
        a_measurement(prompt_tokens=512, new_tokens=4, rounds=rounds),
    ]
    reading, generating = json.loads(llama_bench.to_json(rows))
    assert (reading["n_prompt"], reading["n_gen"]) == (512, 0)
    assert reading["samples_ts"] == pytest.approx([5120, 512 / 0.11])
    assert reading["stddev_ts"] == pytest.approx(stdev([5120, 512 / 0.11]))
    assert (generating["n_prompt"], generating["n_gen"]) == (0, 4)
    assert generating["samples_ts"] == pytest.approx([3 / 0.0603, 3 / 0.0639])
    _, _, first, second = llama_bench.to_markdown(rows).splitlines()
    assert "| pp512 | 4887.27 ± 329.13 |" in first and "| tg4 | 48.35 ± 1.98 |" in second
    assert "2775.09 M" in first, "the catalogue knows the parameters"
