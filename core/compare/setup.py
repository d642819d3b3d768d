"""What is compared: the models, the one request for all of them, and how they share the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from core.errors import BadRequestError, UnknownDeviceError
from core.hardware.devices import AUTO, auto_devices, require_device
from core.inference.request import GenerationRequest
from core.remotes import MARK
from core.runtimes.spec import ModelSpec

FEWEST_SIDES, MOST_SIDES = 2, 4
LETTERS = "ABCD"
"""Names of the sides, in order."""


class Mode(StrEnum):
    """How the sides share the machine."""

    FAIR = "fair"
    RACE = "race"

    @property
    def label(self) -> str:
        """Word for the control."""
        return "Fair" if self is Mode.FAIR else "Race"

    @property
    def sentence(self) -> str:
        """What it means, for the person."""
        if self is Mode.FAIR:
            return "One after the other, so that neither disturbs the other's figures."
        return (
            "All at once, for the show: on one machine they slow each other down, and the figures "
            "say so."
        )


@dataclass(frozen=True)
class Setup:
    """Two to four models and what they are asked; the request is checked when this is made.

    Raises:
        BadRequestError: too few or too many sides, or a request that cannot be used.
        ValueError: other than one prompt format a side.
    """

    sides: tuple[ModelSpec, ...]
    request: GenerationRequest
    """Validated: one seed for all sides, drawn here where the person gave none."""
    mode: Mode
    formats: tuple[str | None, ...] = ()
    """Prompt format of each side; None takes the request's, and so do all sides without this."""

    def __post_init__(self) -> None:
        if not FEWEST_SIDES <= len(self.sides) <= MOST_SIDES:
            raise BadRequestError(
                f"{len(self.sides)} models were chosen; "
                f"choose {FEWEST_SIDES} to {MOST_SIDES} to compare."
            )
        object.__setattr__(self, "sides", tuple(self.sides))
        object.__setattr__(self, "formats", tuple(self.formats) or (None,) * len(self.sides))
        if len(self.formats) != len(self.sides):
            raise ValueError(f"{len(self.formats)} prompt formats for {len(self.sides)} sides")
        object.__setattr__(self, "request", self.request.validated())

    def request_of(self, side: int) -> GenerationRequest:
        """What one side is asked: the same as all, in its own prompt format."""
        prompt_format = self.formats[side] or self.request.prompt_format
        return replace(self.request, prompt_format=prompt_format)


def default_mode(sides: Sequence[ModelSpec]) -> Mode:
    """Fair where two sides use the same device, AUTO resolved; else a race.

    An AUTO that cannot say what it will take may take any device, so it counts as shared.
    """
    used = [devices_of(spec) for spec in sides]
    seen: set[str] = set()
    for devices in used:
        if not devices or seen & devices:
            return Mode.FAIR
        seen |= devices
    return Mode.RACE


def devices_of(spec: ModelSpec) -> frozenset[str]:
    """Names of the devices the model will use; empty where AUTO cannot say yet.

    A server elsewhere is a device of its own.

    A device that this machine does not have stands for itself: the answer will tell the person.
    """
    if spec.remote:
        return frozenset({f"{MARK}{spec.device}"})
    try:
        device = require_device(spec.device)
    except UnknownDeviceError:
        return frozenset({spec.device.strip().upper()})
    return frozenset(auto_devices() if device == AUTO else (device,))
