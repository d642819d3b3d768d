"""Precisions in which a model's weights can be kept."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """Weight precision; the value is what stands in paths and on the command line.

    Pickers, tables and charts have them in this order.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"
    STORED = "stored"
    """The weights of a GGUF file as they are, of whatever type."""

    @property
    def label(self) -> str:
        """Name as people write it, ``INT8``."""
        return "As stored" if self is Precision.STORED else self.value.upper()

    @property
    def phrase(self) -> str:
        """After a model's title: "in INT8", "as stored"."""
        return "as stored" if self is Precision.STORED else f"in {self.label}"

    @property
    def aim(self) -> str:
        """After "convert MODEL": "to INT8", "as stored"."""
        return "as stored" if self is Precision.STORED else f"to {self.label}"


CONVERTED_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT4)
"""What weights can be converted to, whatever they come as."""


DEFAULT_PRECISION = Precision.INT8
