"""Models in memory, disk usage of Paddock's home folder, and cleaning both up."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from core.benchmark.random_models import delete_random_weights, random_weights_bytes
from core.catalogue import catalogue
from core.inference.engine import Engine
from core.ui.models.stored import draw_figure
from core.ui.widgets.actions import action, draw_error, tell
from core.ui.widgets.loaded_models import draw_loaded
from core.ui.widgets.person import person
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text


def draw_disk_use(engine: Engine) -> None:
    """Draw what is in memory and on disk, and what can be removed."""
    store, settings = engine.store, engine.settings
    with st.container(border=True, key="disk_use"):
        if engine.pool.loaded():
            with st.container(key="in_memory", gap=None):
                st.markdown("**In memory now**")
                draw_loaded(engine, key="models")
        where = f" · `{settings.home}`" if person().local else ""
        st.markdown(f"**Disk**{where}")
        try:
            usage, downloads = store.disk_usage(), store.downloads()
            random_bytes = random_weights_bytes(settings)
        except OSError as error:
            draw_error(f"The home folder cannot be read ({error}). Check its permissions.")
            return
        with st.container(horizontal=True, gap="medium"):
            for name, size, always in (
                ("Models", usage.models_bytes, True),
                ("Downloads", usage.downloads_bytes, True),
                ("Random weights", random_bytes, False),
                ("Running conversions", usage.work_bytes, True),
                ("Free", usage.free_bytes, True),
            ):
                if size or always:
                    draw_figure(name, bytes_text(size))
        if downloads:
            st.caption(
                "Downloads are the original weights. Converted models do not need them. Converting "
                "to another precision needs the download or an FP16 model on disk."
            )
        for each in downloads:
            row = catalogue().get(each.key)
            title = row.title if row else each.key.replace("--", "/")
            state = "" if each.complete else " · :orange[incomplete; the next download resumes it]"
            _draw_removable(
                f"{safe_inline(title)} · {bytes_text(each.bytes)}{state}",
                f"download of {title}",
                f"forget_{each.key}",
                lambda key=each.key: store.delete_download(key),
            )
        if random_bytes:  # also of cancelled benchmarks, which may be resumed
            _draw_removable(
                f"Random weights for benchmarks · {bytes_text(random_bytes)}",
                "random weights",
                "forget_random",
                lambda: delete_random_weights(settings),
            )
        if usage.work_bytes and not engine.tasks.active():
            _draw_removable(
                f"Leftovers of interrupted conversions · {bytes_text(usage.work_bytes)}",
                "leftovers",
                "sweep",
                store.clean_up_all,
            )


def _draw_removable(text: str, what: str, key: str, remove: Callable[[], int]) -> None:
    """Draw a line with a button that calls ``remove``, which returns the bytes that it freed."""

    def removed() -> None:
        freed = remove()
        tell(f"{what[0].upper()}{what[1:]} removed, {bytes_text(freed)} freed.")

    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(text, width="stretch")
        action("Remove", "delete", key, removed, of=what, manage=True)
