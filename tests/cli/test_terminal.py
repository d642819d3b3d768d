"""Progress in a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from core.cli import terminal
from core.cli.terminal import Report, follow
from core.store.progress import Progress, Stage, Transfer


class Terminal(io.StringIO):
    """Stderr that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Return a function that advances the clock by seconds; the window is wide."""
    monkeypatch.setenv("COLUMNS", "120")
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])

    def turn(seconds: float) -> None:
        now[0] += seconds

    return turn


def fetching(done: float, rate: float | None = 50e6) -> Progress:
    transfer = Transfer(int(done), 2_000_000_000, rate)
    return Progress(Stage.FETCHING, "Downloading org/name.", None, transfer)


def test_bar_shows_bytes_rate_and_time_left(clock, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    bar = Report()
    bar.progress(fetching(500e6))
    shown = screen.getvalue()
    assert "█████░" in shown and " 25%" in shown
    assert "500 MB of 2.0 GB · 50 MB/s · 30 s left · Downloading org/name" in shown
    assert "\n" not in shown
    bar.clear()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_a_bar_shows_time_and_memory_while_it_converts(clock, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    bar = Report()
    bar.progress(Progress(Stage.COMPRESSING, "Compressing weights to INT4.", 0.6))
    clock(75)
    bar.memory(3_100_000_000)  # no new step; the operation continues
    last = screen.getvalue().split("\r")[-1]
    assert " 60%  1 min 15 s · 3.1 GB of memory · Compressing" in last


def test_a_bar_fits_the_window_and_its_characters(clock, monkeypatch):
    screen = Terminal()
    screen.encoding = "ascii"
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "40")
    Report().progress(fetching(1e9))
    text = screen.getvalue().removeprefix("\r\x1b[K")
    assert text.startswith("##########.........." + "  50%") and len(text) == 39


def test_plain_lines_for_each_stage_tenth_and_ten_seconds(
    clock, capsys: pytest.CaptureFixture[str]
):
    lines = Report()
    lines.progress(fetching(0, rate=None))
    for hundredth in range(1, 100):
        clock(0.05)
        lines.progress(fetching(hundredth * 20e6))
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[2].rstrip(",") for line in told] == [f"{10 * n}%" for n in range(10)]
    assert told[3] == "Downloading org/name. 30%, 600 MB of 2.0 GB, 50 MB/s, 28 s left"
    lines.progress(Progress(Stage.EXPORTING, "Exporting to OpenVINO.", 0.3))
    lines.progress(Progress(Stage.EXPORTING, "Exporting to OpenVINO.", 0.3))
    for _ in range(50):
        clock(0.5)
        lines.memory(1_500_000_000)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert told[0].startswith("Exporting to OpenVINO. 30%, 5 s")
    assert told[2] == "Exporting to OpenVINO. 30%, 25 s, 1.5 GB of memory"
    lines.progress(Progress(Stage.DONE, "It is there.", 1.0))
    lines.clear()
    assert capsys.readouterr().err == ""


def test_work_is_followed_by_a_line_for_each_message_and_stopped_by_ctrl_c(
    clock, capsys: pytest.CaptureFixture[str]
):
    messages = iter(["Loading.", "Loading.", "Measuring."])
    stopped: list[bool] = []

    def wait(timeout_s: float | None) -> bool:
        if timeout_s is not None and next(steps, None) is None:
            raise KeyboardInterrupt
        return timeout_s is None

    steps = iter(range(3))
    follow(wait, lambda: stopped.append(True), lambda: ("1 of 2", next(messages)))
    assert capsys.readouterr().err == "1 of 2 · Loading.\n1 of 2 · Measuring.\n" and stopped
