"""Progress of a download or conversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """Stages of a conversion, in their order."""

    WAITING = "waiting"
    FETCHING = "fetching"
    EXPORTING = "exporting"
    COMPRESSING = "compressing"
    CHECKING = "checking"
    SAVING = "saving"
    DONE = "done"


@dataclass(frozen=True)
class Transfer:
    """Progress of a download."""

    done: int
    """Bytes on disk, including those of an earlier attempt."""
    total: int
    """Bytes of all files."""
    rate: float | None
    """Bytes per second over the last seconds; None until it is known."""

    @property
    def seconds_left(self) -> float | None:
        """Time left at the current rate; None while nothing is received."""
        return (self.total - self.done) / self.rate if self.rate else None


@dataclass(frozen=True)
class Progress:
    """One step of a download or conversion, as it is shown to the user."""

    stage: Stage
    message: str
    """A sentence for the user."""
    fraction: float | None
    """Completed share of the whole, 0 to 1; None if unknown."""
    transfer: Transfer | None = None
    """During downloads."""


ProgressCallback = Callable[[Progress], None]


def ignore_progress(_progress: Progress) -> None:
    """Callback that does nothing."""
