"""What the machine does now: processor, memory, models in memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import psutil
import streamlit as st

from core.engine import Engine
from core.hardware.devices import app_memory, available_memory_bytes
from core.ui.widgets.loaded_models import draw_loaded
from core.units import bytes_text

_EVERY_S = 2.0
_KEPT = 60
"""Readings in the small charts: the last two minutes."""
_CURVE = "The curve is of the last two minutes, from their least value to their most."


@dataclass
class _Readings:
    """What this session has seen; a plain object, so that an interrupted script keeps it."""

    busy: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Share of the processor's time that was used since the reading before, 0 to 100."""
    memory: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Resident memory of the app in MB."""
    times: tuple[float, float] = (0.0, 0.0)
    """Busy and all seconds of the processor at the last reading."""

    def take(self) -> None:
        """Read once more."""
        before, self.times = self.times, _processor_seconds()
        passed = self.times[1] - before[1]
        if before[1] and passed > 0:
            share = (self.times[0] - before[0]) / passed
            self.busy.append(round(100 * min(1.0, max(0.0, share)), 1))
        self.memory.append(round(app_memory().rss_bytes / 1e6, 1))


def draw_live(engine: Engine) -> None:
    """The panel; it keeps itself up to date."""
    with st.container(border=True, key="live"):
        st.fragment(_draw, run_every=_EVERY_S)(engine)


def _draw(engine: Engine) -> None:
    readings: _Readings = st.session_state.setdefault("live_readings", _Readings())
    readings.take()
    memory = app_memory()
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "Processor",
            f"{readings.busy[-1]:.0f} %" if readings.busy else "—",
            chart_data=list(readings.busy) or None,
            help=f"Of all {psutil.cpu_count() or 1} cores, everything on this machine counted. "
            f"{_CURVE}",
        )
        st.metric(
            "Memory of Paddock",
            bytes_text(memory.private_bytes),
            f"{bytes_text(memory.file_backed_bytes)} file-backed",
            delta_color="off",
            delta_arrow="off",
            chart_data=list(readings.memory),
            help="Private memory of the app's process and those of its models; and apart from it "
            f"what is file-backed, mapped weights and libraries. {_CURVE} It shows both together.",
        )
        st.metric(
            "Free memory",
            bytes_text(available_memory_bytes()),
            help="What can be taken without swapping.",
        )
        st.metric("Models in memory", len(engine.pool.loaded()))
    draw_loaded(engine, key="metrics")


def _processor_seconds() -> tuple[float, float]:
    """Seconds that all cores together were busy, and that passed, since the machine started."""
    times = psutil.cpu_times()
    # Guests' seconds are in ``user`` already; waiting for a disk is no work of the processor.
    everything = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return everything - times.idle - getattr(times, "iowait", 0.0), everything
