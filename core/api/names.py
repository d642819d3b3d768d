"""Model names with optional precision, device and runtime: ``name:INT4@GPU+optimum``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.catalogue import DEFAULT_PRECISION, Precision
from core.runtimes.spec import DEFAULT_RUNTIME, RuntimeName

DEFAULT_DEVICE = "AUTO"
MAX_LENGTH = 1000
"""Characters of a name that are parsed."""

_NAME = re.compile(
    r"(?P<model>.+?)"
    rf"(?::(?P<precision>{'|'.join(Precision)}))?"
    r"(?:@(?P<device>[a-z0-9.:,_-]{1,100}))?"
    r"(?:\+(?P<runtime>genai|optimum))?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class ModelName:
    """A model and how to run it; parts that the name leaves out have defaults."""

    model: str
    precision: Precision = DEFAULT_PRECISION
    device: str = DEFAULT_DEVICE
    runtime: RuntimeName = DEFAULT_RUNTIME

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Parse a name; whether the model exists is not checked."""
        found = _NAME.fullmatch(text[:MAX_LENGTH])
        if found is None:
            return cls(text)
        return cls(
            found["model"],
            Precision((found["precision"] or DEFAULT_PRECISION).lower()),
            (found["device"] or DEFAULT_DEVICE).upper(),
            RuntimeName((found["runtime"] or DEFAULT_RUNTIME).lower()),
        )

    def __str__(self) -> str:
        """Return the shortest name that parses to this value."""
        text = self.model
        if self.precision is not DEFAULT_PRECISION:
            text += f":{self.precision.value.upper()}"
        if self.device != DEFAULT_DEVICE:
            text += f"@{self.device}"
        if self.runtime is not DEFAULT_RUNTIME:
            text += f"+{self.runtime.value}"
        return text
