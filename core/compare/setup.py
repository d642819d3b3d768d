"""Settings of a comparison: the models, the request, and whether they run in turn or at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.db import Mode
from core.errors import BadRequestError, UnknownDeviceError
from core.hardware.devices import AUTO, auto_devices, require_device
from core.inference.request import GenerationRequest
from core.remotes import MARK
from core.runtimes.spec import ModelSpec, Speculation

MIN_SIDES, MAX_SIDES = 2, 4
LETTERS = "ABCDEFGH"
"""Names of the sides of a comparison, and of the candidates of a test set, in order."""


@dataclass(frozen=True)
class Setup:
    """Two to four models and their request, which is validated on creation.

    Raises:
        BadRequestError: too few or too many sides, or an invalid request.
    """

    sides: tuple[ModelSpec, ...]
    request: GenerationRequest
    """The validated request, with one seed for all sides; random if the user gave none."""
    mode: Mode
    formats: tuple[str | None, ...] = ()
    """Prompt format of each side; None, or no tuple, means the request's."""
    speculation: tuple[Speculation, ...] = ()
    """Speculation of each side; no tuple means the request's."""

    def __post_init__(self) -> None:
        if not MIN_SIDES <= len(self.sides) <= MAX_SIDES:
            raise BadRequestError(
                f"{len(self.sides)} models were chosen. "
                f"Choose {MIN_SIDES} to {MAX_SIDES} to compare."
            )
        formats = self.formats or (None,) * len(self.sides)
        speculation = self.speculation or (self.request.speculation,) * len(self.sides)
        object.__setattr__(self, "formats", formats)
        object.__setattr__(self, "speculation", speculation)
        object.__setattr__(self, "request", self.request.validated())

    def request_of(self, side: int) -> GenerationRequest:
        """Return the request of one side, with its own prompt format."""
        return replace(
            self.request,
            prompt_format=self.formats[side] or self.request.prompt_format,
            speculation=self.speculation[side],
        )


def default_mode(sides: Sequence[ModelSpec]) -> Mode:
    """Return fair mode if two sides use the same device, with AUTO resolved, else race mode.

    An AUTO whose choice is unknown may use any device, so it counts as shared.
    """
    seen: set[str] = set()
    for devices in map(devices_of, sides):
        if not devices or seen & devices:
            return Mode.FAIR
        seen |= devices
    return Mode.RACE


def devices_of(spec: ModelSpec) -> frozenset[str]:
    """Return the names of the devices the model will use; empty if AUTO's choice is unknown.

    A remote server counts as a device. A device that this machine does not have is returned as
    it is: the answer will report the error.
    """
    if spec.remote:
        return frozenset({f"{MARK}{spec.device}"})
    try:
        device = require_device(spec.device)
    except UnknownDeviceError:
        return frozenset({spec.device.strip().upper()})
    return frozenset(auto_devices() if device == AUTO else (device,))
