"""Tests of storing, finding and deleting tuned hints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.runtimes.spec import ExecutionHints, RuntimeName
from core.runtimes.tuned_hints import Tuned, TunedHints, TuningKey

KEY = TuningKey.here("paddock-neox", Precision.INT8, "CPU", RuntimeName.GENAI)
TUNED = Tuned(
    key=KEY,
    hints=ExecutionHints(inference_precision="f32", dynamic_quantization_group=0),
    gain=1.2,
    tokens_per_s=120.0,
    usual_tokens_per_s=100.0,
    perplexity_ratio=1.001,
    measured_at="2026-01-01T00:00:00+00:00",
)


@pytest.fixture
def kept(tmp_path: Path) -> TunedHints:
    return TunedHints(tmp_path / "home")


def test_stored_hints_are_found_by_their_key_only(kept: TunedHints):
    assert kept.all() == [] and kept.find(KEY) is None
    kept.keep(TUNED)
    assert kept.find(KEY) == TUNED
    assert kept.find(replace(KEY, precision=Precision.INT4)) is None
    assert kept.find(replace(KEY, runtime=RuntimeName.OPTIMUM)) is None
    assert kept.find(replace(KEY, host="another machine")) is None


def test_key_for_auto_has_the_selected_device():
    assert TuningKey.here("m", Precision.INT8, "AUTO", RuntimeName.GENAI).device == "CPU"


def test_new_hints_replace_those_of_the_same_key(kept: TunedHints):
    other = replace(TUNED, key=replace(KEY, model="paddock-llama"))
    kept.keep(TUNED)
    kept.keep(other)
    kept.keep(replace(TUNED, gain=1.5))
    assert [(row.key.model, row.gain) for row in kept.all()] == [
        ("paddock-llama", 1.2),
        ("paddock-neox", 1.5),
    ]


def test_hints_can_be_deleted(kept: TunedHints):
    kept.keep(TUNED)
    assert kept.forget(KEY) is True
    assert kept.forget(KEY) is False
    assert kept.all() == []


@pytest.mark.parametrize("content", ["{", "[1]", '[{"key": {}}]', "null"])
def test_damaged_file_counts_as_no_hints(kept: TunedHints, tmp_path: Path, content: str):
    kept.keep(TUNED)
    (tmp_path / "home" / "tuned.json").write_text(content)
    assert kept.all() == []
    kept.keep(TUNED)
    assert kept.all() == [TUNED]
