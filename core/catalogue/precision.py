"""Weight precisions, INT4 in several recipes."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """Weight precision; the value is used in paths and on the command line.

    INT4 has a member for each recipe, so that the weights of two recipes of one model are stored,
    compared and measured side by side; see :mod:`core.catalogue.recipes`.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"
    """With the recommended recipe of the model."""
    INT4_SCALE = "int4-scale"
    """The same, with scale estimation on texts that the model generates."""
    INT4_GROUP128 = "int4-group128"
    """Groups of 128, all layers."""
    INT4_DEMO = "int4-demo"
    """With the recipe of OpenVINO's demonstration of these models."""
    INT4_NPU = "int4-npu"
    """Symmetric, one scale per channel, all layers: what an NPU requires."""
    INT4_CUSTOM = "int4-custom"
    """With settings that the user has chosen."""
    STORED = "stored"
    """The weights of a GGUF file or an OpenVINO model unchanged, whatever their formats."""

    @property
    def base(self) -> Precision:
        """The precision without its recipe: INT4 for every recipe of INT4."""
        return Precision.INT4 if self.value.startswith("int4") else self

    @property
    def int4(self) -> bool:
        """Whether this is a recipe of INT4."""
        return self.base is Precision.INT4

    @property
    def compressed(self) -> bool:
        """Whether weights are compressed by NNCF: INT8 and INT4."""
        return self.base in (Precision.INT8, Precision.INT4)

    def on(self, device: str) -> Precision:
        """Return the precision of the weights that a device runs: INT4 has a recipe for NPUs."""
        for_npu = self is Precision.INT4 and device.upper().startswith("NPU")
        return Precision.INT4_NPU if for_npu else self

    @property
    def label(self) -> str:
        """Display name, such as ``INT8`` or ``INT4 group 128``."""
        return _LABELS.get(self, self.value.upper())

    @property
    def phrase(self) -> str:
        """Text after a model's title: "in INT8", "as stored"."""
        return "as stored" if self is Precision.STORED else f"in {self.label}"

    @property
    def aim(self) -> str:
        """Text after "convert MODEL": "to INT8", "as stored"."""
        return "as stored" if self is Precision.STORED else f"to {self.label}"


_LABELS = {
    Precision.INT4_SCALE: "INT4 scale estimation",
    Precision.INT4_GROUP128: "INT4 group 128",
    Precision.INT4_DEMO: "INT4 demo",
    Precision.INT4_NPU: "INT4 for an NPU",
    Precision.INT4_CUSTOM: "INT4 custom",
    Precision.STORED: "As stored",
}

INT4_RECIPES = tuple(precision for precision in Precision if precision.int4)

MAIN_PRECISIONS = tuple(each for each in Precision if each not in INT4_RECIPES[1:])
"""All precisions, with the recommended recipe of INT4 only."""

CONVERTED_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT4)
"""Precisions that any checkpoint can be converted to."""

DEFAULT_PRECISION = Precision.INT8
