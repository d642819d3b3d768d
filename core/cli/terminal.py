"""Progress of long operations: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Protocol

from core.store.progress import Progress, Stage
from core.units import bytes_text, duration_text

PLAIN_EVERY_S = 10.0
"""Without a terminal, print a line at least once in this interval…"""

PLAIN_EVERY_SHARE = 0.1
"""… and each time the progress has increased by this share."""

_BAR_WIDTH = 20
_REDRAW_S = 0.1


class Line:
    """One line on stderr that is rewritten in a terminal.

    Prints nothing if stderr is a file or a pipe, so that scripts find only errors there.
    """

    def __init__(self) -> None:
        self._last: str | None = None
        self._terminal = sys.stderr.isatty()

    def show(self, message: str) -> None:
        """Show a message, unless it is shown already."""
        if self._terminal and message != self._last:
            print(f"\r\x1b[K{message}", end="", file=sys.stderr, flush=True)
            self._last = message

    def clear(self) -> None:
        """Clear the line before other output."""
        if self._last is not None:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._last = None


class Report(Protocol):
    """Shows the progress of a download or a conversion; also a
    :class:`core.store.subprocesses.ChildWatch`."""

    def progress(self, step: Progress) -> None:
        """Show the next step."""

    def memory(self, resident_bytes: int) -> None:
        """Show the memory of the child process; called twice a second."""

    def line(self, text: str) -> None:
        """Handle a line of the child's log."""

    def clear(self) -> None:
        """Clear the progress before other output; the operation has ended."""


def report() -> Report:
    """Return a bar if stderr is a terminal, else plain lines."""
    return Bar() if sys.stderr.isatty() else PlainLines()


class _State:
    """State of the operation; subclasses display it."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._step: Progress | None = None
        self._memory: int | None = None

    def progress(self, step: Progress) -> None:
        """See :class:`Report`. The caller prints the end."""
        if step.stage is not Stage.DONE:
            self._step = step
            self._show()

    def memory(self, resident_bytes: int) -> None:
        """See :class:`Report`."""
        self._memory = resident_bytes
        self._show()

    def line(self, text: str) -> None:
        """Ignored: the log is not for the terminal, and errors are raised."""

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
        """Return bytes, rate and time left of a download, else duration and memory."""
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


class Bar(_State):
    """One line in a terminal, with a bar if the total is known."""

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
        # The message is last, because a narrow window cuts the line off.
        parts = [*self._figures(), step.message.rstrip(".")]
        bar = "" if share is None else f"{self._bar(share)} {share:4.0%}  "
        width = shutil.get_terminal_size().columns - 1
        self._line.show(f"{bar}{' · '.join(parts)}"[:width])

    def _bar(self, share: float) -> str:
        full = round(share * _BAR_WIDTH)
        return self._full * full + self._empty * (_BAR_WIDTH - full)


class PlainLines(_State):
    """One line per stage, and one for every 10 % and every ten seconds in between."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = 0.0
        self._stage: Stage | None = None
        self._tenth = 0

    def clear(self) -> None:
        """See :class:`Report`. Printed lines stay."""

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
