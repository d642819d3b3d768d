"""Live load of the machine: processor, memory, loaded models."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import psutil
import streamlit as st

from core.hardware.devices import ProcessMemory, app_memory, available_memory_bytes
from core.inference.engine import Engine
from core.ui.widgets.loaded_models import draw_loaded
from core.units import bytes_text

_EVERY_S = 2.0
_MAX_SAMPLES = 60
"""Samples in the small charts: the last two minutes."""
_CURVE = "The chart shows the last two minutes, scaled from the lowest to the highest value."


@dataclass
class _Samples:
    """Samples of this session; a plain object, so that interrupted scripts keep it."""

    busy: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_SAMPLES))
    """Processor usage since the previous sample, 0 to 100."""
    memory: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_SAMPLES))
    """Resident memory of the app in MB."""
    times: tuple[float, float] = (0.0, 0.0)
    """Busy and total processor seconds at the last sample. ``psutil.cpu_percent`` keeps its own for
    each thread, and a script runs in a new one each time."""

    def add(self, memory: ProcessMemory) -> None:
        """Take a sample."""
        before, self.times = self.times, _processor_seconds()
        passed = self.times[1] - before[1]
        if before[1] and passed > 0:
            share = (self.times[0] - before[0]) / passed
            self.busy.append(round(100 * min(1.0, max(0.0, share)), 1))
        self.memory.append(round(memory.rss_bytes / 1e6, 1))


def draw_live(engine: Engine) -> None:
    """Draw the panel, which updates itself."""
    with st.container(border=True, key="live"):
        st.fragment(_draw, run_every=_EVERY_S)(engine)


def _draw(engine: Engine) -> None:
    samples: _Samples = st.session_state.setdefault("live_samples", _Samples())
    memory = app_memory()
    samples.add(memory)
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "Processor",
            f"{samples.busy[-1]:.0f} %" if samples.busy else "—",
            chart_data=list(samples.busy) or None,
            help=f"Usage of all {psutil.cpu_count() or 1} logical processors by all programs. "
            f"{_CURVE}",
        )
        st.metric(
            "Memory of Paddock",
            bytes_text(memory.private_bytes),
            f"{bytes_text(memory.file_backed_bytes)} file-backed",
            delta_color="off",
            delta_arrow="off",
            chart_data=list(samples.memory),
            help="Private memory of the app's process and its model processes. File-backed memory "
            f"(mapped weights and libraries) is shown separately. {_CURVE} The chart is the sum.",
        )
        st.metric(
            "Free memory",
            bytes_text(available_memory_bytes()),
            help="Memory available without swapping.",
        )
        st.metric("Models in memory", len(engine.pool.loaded()))
    draw_loaded(engine, key="metrics")


def _processor_seconds() -> tuple[float, float]:
    """Return busy and total seconds of all processors since the machine started."""
    times = psutil.cpu_times()
    # ``user`` includes guest time; waiting for a disk is not processor work.
    everything = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return everything - times.idle - getattr(times, "iowait", 0.0), everything
