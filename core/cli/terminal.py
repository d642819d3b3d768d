"""Progress on stderr: one line that is rewritten in a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from core.store.progress import Progress, Stage
from core.units import bytes_text, duration_text

if TYPE_CHECKING:
    from core.benchmark.sweep import SweepProgress
    from core.evaluation.run import RunProgress

PLAIN_EVERY_S = 30.0
"""Without a terminal, print a line for each new message, and at least once in this interval."""

TRANSFER_EVERY_S = 10.0
"""The same for downloads and conversions, which also print a line for every 10 %."""

_BAR_WIDTH = 20
_REDRAW_S = 0.1
_UPDATE_S = 0.2
"""Interval at which the progress of work is asked for."""


def say(*lines: str) -> None:
    """Print lines on stderr."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)


class Line:
    """One line on stderr that is rewritten in a terminal.

    Prints nothing if stderr is a file or a pipe, so that scripts find only errors there.
    """

    def __init__(self) -> None:
        self._last: str | None = None
        self.terminal = sys.stderr.isatty()

    def show(self, message: str) -> None:
        """Show a message, cut to the width of the window, unless it is shown already."""
        message = message[: shutil.get_terminal_size().columns - 1]
        if self.terminal and message != self._last:
            print(f"\r\x1b[K{message}", end="", file=sys.stderr, flush=True)
            self._last = message

    def clear(self) -> None:
        """Clear the line before other output."""
        if self._last is not None:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._last = None


def follow(
    wait: Callable[[float | None], bool],
    stop: Callable[[], None],
    progress: Callable[[], tuple[str, str]],
) -> None:
    """Show the progress of work until its end. Ctrl-C stops it and keeps its results.

    Args:
        wait: waits for the end for so many seconds, and returns whether it has ended.
        stop: ends the work; no effect if it has ended.
        progress: returns what is done, such as ``3 of 8``, and a message about the current step.
    """
    line, last, printed = Line(), "", 0.0
    try:
        while not wait(_UPDATE_S):
            done, message = progress()
            text, now = f"{done} · {message}", time.monotonic()
            line.show(text)
            if not line.terminal and (message != last or now - printed >= PLAIN_EVERY_S):
                last, printed = message, now
                say(text)
    except KeyboardInterrupt:
        stop()
        wait(None)
    finally:  # also after any other exception
        stop()
        line.clear()


def step_of(progress: SweepProgress | RunProgress) -> tuple[str, str]:
    """Return what is done of a run, such as ``3 of 8, 20 s left``, and its message."""
    done = f"{progress.done} of {progress.total}" if progress.total else "planning"
    if progress.seconds_left is not None:
        done += f", {duration_text(progress.seconds_left)} left"
    return done, progress.message


class Report:
    """Shows the progress of a download or a conversion.

    In a terminal it is one line, with a bar if the total is known.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._step: Progress | None = None
        self._memory: int | None = None
        self._line = Line()
        self._shown_at, self._shown_stage, self._shown_tenth = 0.0, None, 0
        utf = (getattr(sys.stderr, "encoding", None) or "").lower().startswith("utf")
        self._full, self._empty = ("█", "░") if utf else ("#", ".")

    def progress(self, step: Progress) -> None:
        """Show the next step; the caller prints the end."""
        if step.stage is not Stage.DONE:
            self._step = step
            self._show(step)

    def memory(self, resident_bytes: int) -> None:
        """Show the memory of the child process; called twice a second."""
        self._memory = resident_bytes
        if self._step is not None:
            self._show(self._step)

    def clear(self) -> None:
        """Clear the progress before other output; printed lines stay."""
        self._line.clear()

    def _show(self, step: Progress) -> None:
        now, share = time.monotonic(), _share(step)
        tenth = int((share or 0.0) * 10 + 1e-9)
        same, waited_s = step.stage is self._shown_stage, now - self._shown_at
        if self._line.terminal:
            if same and waited_s < _REDRAW_S:
                return
            full = round((share or 0.0) * _BAR_WIDTH)
            bar = self._full * full + self._empty * (_BAR_WIDTH - full)
            # The message is last, because a narrow window cuts the line off.
            parts = " · ".join([*self._figures(step), step.message.rstrip(".")])
            self._line.show(parts if share is None else f"{bar} {share:4.0%}  {parts}")
        else:
            if same and tenth <= self._shown_tenth and waited_s < TRANSFER_EVERY_S:
                return
            parts = [*([] if share is None else [f"{share:.0%}"]), *self._figures(step)]
            say(f"{step.message} {', '.join(parts)}")
        self._shown_at, self._shown_stage = now, step.stage
        self._shown_tenth = max(self._shown_tenth, tenth) if same else tenth

    def _figures(self, step: Progress) -> list[str]:
        """Return bytes, rate and time left of a download, else duration and memory."""
        transfer = step.transfer
        if transfer is None:
            parts = [duration_text(time.monotonic() - self._started)]
            if self._memory and step.stage is not Stage.FETCHING:
                parts.append(f"{bytes_text(self._memory)} of memory")
            return parts
        parts = [f"{bytes_text(transfer.done)} of {bytes_text(transfer.total)}"]
        if transfer.rate:
            parts.append(f"{bytes_text(transfer.rate)}/s")
        if transfer.seconds_left is not None:
            parts.append(f"{duration_text(transfer.seconds_left)} left")
        return parts


def _share(step: Progress) -> float | None:
    if step.transfer is not None and step.transfer.total:
        return min(1.0, step.transfer.done / step.transfer.total)
    return step.fraction
