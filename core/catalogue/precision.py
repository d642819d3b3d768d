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

    @property
    def label(self) -> str:
        """Name as people write it, ``INT8``."""
        return self.value.upper()


DEFAULT_PRECISION = Precision.INT8
