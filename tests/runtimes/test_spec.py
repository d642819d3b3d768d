"""Tests of model specs and the default hints of each precision."""

from __future__ import annotations

from core.catalogue import Precision
from core.runtimes.spec import ExecutionHints, ModelSpec


def test_hints_of_each_precision():
    assert ExecutionHints.default_for(Precision.FP32) == ExecutionHints("f32", "f32")
    assert ExecutionHints.default_for(Precision.FP16) == ExecutionHints()
    assert ExecutionHints.default_for(Precision.INT8) == ExecutionHints("f32")
    assert ExecutionHints.default_for(Precision.INT4) == ExecutionHints("f32")
    assert ExecutionHints.default_for(Precision.INT4, "AUTO") == ExecutionHints("f32")


def test_cpu_hints_are_not_applied_to_other_devices() -> None:
    for device in ("GPU", "GPU.1", "NPU"):
        assert ModelSpec("a", Precision.INT8, device).effective_hints == ExecutionHints()


def test_explicit_hints_override_the_defaults():
    hints = ExecutionHints(inference_precision="bf16", threads=1)
    assert ModelSpec("a", Precision.INT8, hints=hints).effective_hints == hints


def test_label_and_equality():
    assert ModelSpec("a", Precision.INT4, "GPU").label == "a · INT4 · GPU"
    assert ModelSpec("a") == ModelSpec("a", Precision.INT8, "AUTO")
    assert hash(ModelSpec("a")) == hash(ModelSpec("a"))
