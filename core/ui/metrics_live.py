"""What the machine does now: processor, memory, models in memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import psutil
import streamlit as st

from core.devices import app_memory, available_memory_bytes
from core.engine import Engine
from core.errors import PaddockError
from core.runtimes.pool import LoadedInfo
from core.ui.person import manage_button
from core.ui.safe_text import safe_markdown
from core.units import bytes_text

_EVERY_S = 2.0
_KEPT = 60
"""Readings in the small charts: the last two minutes."""


@dataclass
class _Readings:
    """What this session has seen; a plain object, so that an interrupted script keeps it."""

    busy: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Share of the processor's time that was used since the reading before, 0 to 100."""
    memory: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Resident memory of the app in MiB."""
    times: tuple[float, float] = (0.0, 0.0)
    """Busy and all seconds of the processor at the last reading."""

    def take(self) -> None:
        """Read once more."""
        before, self.times = self.times, _processor_seconds()
        passed = self.times[1] - before[1]
        if before[1] and passed > 0:
            share = (self.times[0] - before[0]) / passed
            self.busy.append(round(100 * min(1.0, max(0.0, share)), 1))
        self.memory.append(round(app_memory().rss_bytes / 2**20, 1))


def draw_live(engine: Engine) -> None:
    """The panel; it keeps itself up to date."""
    with st.container(border=True, key="live"):
        st.fragment(_draw, run_every=_EVERY_S)(engine)


def _draw(engine: Engine) -> None:
    readings: _Readings = st.session_state.setdefault("live_readings", _Readings())
    readings.take()
    memory, loaded = app_memory(), engine.pool.loaded()
    with st.container(horizontal=True, gap="medium"):
        st.metric(
            "Processor",
            f"{readings.busy[-1]:.0f} %" if readings.busy else "—",
            chart_data=list(readings.busy) or None,
            chart_type="area",
            help=f"Of all {psutil.cpu_count() or 1} cores, everything on this machine counted.",
        )
        st.metric(
            "Memory of Paddock",
            f"{bytes_text(memory.private_bytes)} + {bytes_text(memory.file_backed_bytes)}",
            chart_data=list(readings.memory),
            chart_type="area",
            help="Private, and file-backed: mapped weights and libraries. The app's process and "
            "those of its models.",
        )
        st.metric(
            "Free memory",
            bytes_text(available_memory_bytes()),
            help="What can be taken without swapping.",
        )
        st.metric("Models in memory", len(loaded))
    for info in loaded:
        _draw_model(engine, info)


def _draw_model(engine: Engine, info: LoadedInfo) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        use = f"{info.in_use} answering" if info.in_use else f"idle {info.idle_s:.0f} s"
        memory = info.facts.memory
        st.markdown(
            f"{safe_markdown(info.spec.label)} · {bytes_text(memory.private_bytes)} private + "
            f"{bytes_text(memory.file_backed_bytes)} file-backed · {use}",
            width="stretch",
        )
        clicked = manage_button(
            "Unload",
            icon=":material/eject:",
            type="tertiary",
            key=f"metrics_unload_{info.spec.label}_{info.spec.runtime}",
        )
    if not clicked:
        return
    try:
        engine.pool.unload(info.spec)
    except PaddockError as error:
        st.error(safe_markdown(str(error)), icon=":material/error:")
    else:
        st.rerun(scope="fragment")


def _processor_seconds() -> tuple[float, float]:
    """Seconds that all cores together were busy, and that passed, since the machine started."""
    times = psutil.cpu_times()
    # Guests' seconds are in ``user`` already; waiting for a disk is no work of the processor.
    everything = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return everything - times.idle - getattr(times, "iowait", 0.0), everything
