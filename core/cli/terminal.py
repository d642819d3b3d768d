"""What a terminal, or a file in its place, is shown while something takes long."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Protocol

from core.store.progress import Progress, Stage
from core.units import bytes_text, duration_text

PLAIN_EVERY_S = 10.0
"""Without a terminal a line is printed at least this often…"""

PLAIN_EVERY_SHARE = 0.1
"""… and each time this much more is done."""

_BAR_WIDTH = 20
_REDRAW_S = 0.1


class Line:
    """One line on stderr, rewritten in a terminal.

    Nothing where stderr is a file or a pipe, so that a script finds nothing there but an error.
    """

    def __init__(self) -> None:
        self._told: str | None = None
        self._terminal = sys.stderr.isatty()

    def show(self, message: str) -> None:
        """Show a message, once."""
        if self._terminal and message != self._told:
            print(f"\r\x1b[K{message}", end="", file=sys.stderr, flush=True)
            self._told = message

    def clear(self) -> None:
        """Make room for other output."""
        if self._told is not None:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._told = None


class Report(Protocol):
    """Shows the progress of a download or a conversion; also a
    :class:`core.store.subprocesses.ChildWatch`."""

    def progress(self, step: Progress) -> None:
        """The next step."""

    def memory(self, resident_bytes: int) -> None:
        """The memory of the child process, twice a second."""

    def line(self, text: str) -> None:
        """A line of the child's log."""

    def clear(self) -> None:
        """Make room for other output; the work is over."""


def report() -> Report:
    """A bar where stderr is a terminal, plain lines otherwise."""
    return Bar() if sys.stderr.isatty() else PlainLines()


class _Watched:
    """What is known of the work; subclasses show it."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._step: Progress | None = None
        self._memory: int | None = None

    def progress(self, step: Progress) -> None:
        """See :class:`Report`; the end is told by whoever started the work."""
        if step.stage is not Stage.DONE:
            self._step = step
            self._show()

    def memory(self, resident_bytes: int) -> None:
        """See :class:`Report`."""
        self._memory = resident_bytes
        self._show()

    def line(self, text: str) -> None:
        """What libraries write is of use in a log, not here: errors come as sentences."""

    def _show(self) -> None:
        raise NotImplementedError

    def _share(self) -> float | None:
        step = self._step
        if step is None:
            return None
        if step.transfer is not None and step.transfer.total:
            return min(1.0, step.transfer.done / step.transfer.total)
        return step.fraction

    def _figures(self) -> list[str]:
        """Bytes, rate and time left of a download; time and memory of everything else."""
        transfer = self._step.transfer if self._step else None
        if transfer is None:
            parts = [duration_text(time.monotonic() - self._started)]
            if self._memory and self._step and self._step.stage is not Stage.FETCHING:
                parts.append(f"{bytes_text(self._memory)} of memory")
            return parts
        parts = [f"{bytes_text(transfer.done)} of {bytes_text(transfer.total)}"]
        if transfer.rate:
            parts.append(f"{bytes_text(transfer.rate)}/s")
        if transfer.seconds_left is not None:
            parts.append(f"{duration_text(transfer.seconds_left)} left")
        return parts


class Bar(_Watched):
    """One line in a terminal, with a bar where it is known how much there is to do."""

    def __init__(self) -> None:
        super().__init__()
        self._line = Line()
        self._drawn = 0.0
        self._stage: Stage | None = None
        utf = (getattr(sys.stderr, "encoding", None) or "").lower().startswith("utf")
        self._full, self._empty = ("█", "░") if utf else ("#", ".")

    def clear(self) -> None:
        """See :class:`Report`."""
        self._line.clear()

    def _show(self) -> None:
        step, now = self._step, time.monotonic()
        if step is None or (step.stage is self._stage and now - self._drawn < _REDRAW_S):
            return
        self._drawn, self._stage = now, step.stage
        share = self._share()
        parts = [*self._figures(), step.message.rstrip(".")]  # a narrow window cuts the message
        bar = "" if share is None else f"{self._bar(share)} {share:4.0%}  "
        width = shutil.get_terminal_size().columns - 1
        self._line.show(f"{bar}{' · '.join(parts)}"[:width])

    def _bar(self, share: float) -> str:
        full = round(share * _BAR_WIDTH)
        return self._full * full + self._empty * (_BAR_WIDTH - full)


class PlainLines(_Watched):
    """A line for each stage, and one for every tenth and every ten seconds in between."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = 0.0
        self._stage: Stage | None = None
        self._tenth = 0

    def clear(self) -> None:
        """See :class:`Report`; lines that are printed stay."""

    def _show(self) -> None:
        step, now, share = self._step, time.monotonic(), self._share()
        if step is None:
            return
        tenth = int((share or 0.0) / PLAIN_EVERY_SHARE + 1e-9)
        new_stage = step.stage is not self._stage
        if not new_stage and tenth <= self._tenth and now - self._printed < PLAIN_EVERY_S:
            return
        self._printed, self._stage = now, step.stage
        self._tenth = tenth if new_stage else max(self._tenth, tenth)
        parts = [*([] if share is None else [f"{share:.0%}"]), *self._figures()]
        print(f"{step.message} {', '.join(parts)}", file=sys.stderr, flush=True)
