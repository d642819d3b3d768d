"""Weight precisions."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """Weight precision; the value is used in paths and on the command line."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"
    STORED = "stored"
    """The weights of a GGUF file unchanged, whatever their types."""

    @property
    def label(self) -> str:
        """Display name, such as ``INT8``."""
        return "As stored" if self is Precision.STORED else self.value.upper()

    @property
    def phrase(self) -> str:
        """Text after a model's title: "in INT8", "as stored"."""
        return "as stored" if self is Precision.STORED else f"in {self.label}"

    @property
    def aim(self) -> str:
        """Text after "convert MODEL": "to INT8", "as stored"."""
        return "as stored" if self is Precision.STORED else f"to {self.label}"


CONVERTED_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT4)
"""Precisions that any checkpoint can be converted to."""

DEFAULT_PRECISION = Precision.INT8
