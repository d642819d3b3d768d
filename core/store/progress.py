"""What a long conversion tells whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """Where a conversion stands; the order is the order in which stages come."""

    WAITING = "waiting"
    FETCHING = "fetching"
    EXPORTING = "exporting"
    COMPRESSING = "compressing"
    CHECKING = "checking"
    SAVING = "saving"
    DONE = "done"


@dataclass(frozen=True)
class Transfer:
    """How far a download has come."""

    done: int
    """Bytes on disk, those of an earlier attempt included."""
    total: int
    """Bytes of all files."""
    rate: float | None
    """Bytes per second over the last seconds; None until it can be told."""

    @property
    def seconds_left(self) -> float | None:
        """Time left at the present rate; None while nothing comes."""
        return (self.total - self.done) / self.rate if self.rate else None


@dataclass(frozen=True)
class Progress:
    """One step of a conversion, as it is shown."""

    stage: Stage
    message: str
    """A sentence for the person."""
    fraction: float | None
    """Share of the whole that is done, 0 to 1; None where it cannot be known."""
    transfer: Transfer | None = None
    """While files are fetched."""


ProgressCallback = Callable[[Progress], None]


def ignore_progress(_progress: Progress) -> None:
    """The callback of those who do not want to know."""
