"""Disk usage of Paddock's home folder, and cleaning it up."""

from __future__ import annotations

import streamlit as st

from core.benchmark.artifacts import delete_npu_weights
from core.benchmark.random_models import delete_random_weights, random_weights_bytes
from core.catalogue import catalogue
from core.errors import PaddockError
from core.inference.engine import Engine
from core.store import StoredDownload
from core.store.for_device import npu_weights_bytes
from core.ui.models.results import draw_figure, notify
from core.ui.widgets.person import manage_button, person
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text


def draw_disk_use(engine: Engine) -> None:
    """Draw the size of models, downloads and running conversions, and what can be removed."""
    with st.container(border=True, key="disk_use"):
        where = f" · `{engine.settings.home}`" if person().local else ""
        st.markdown(f"**Disk**{where}")
        try:
            usage = engine.store.disk_usage()
            downloads = engine.store.downloads()
            random_bytes = random_weights_bytes(engine.settings)
            npu_bytes = npu_weights_bytes(engine.settings)
        except OSError as error:
            st.warning(
                f"The home folder cannot be read ({safe_inline(str(error))}). Check its "
                "permissions.",
                icon=":material/error:",
            )
            return
        with st.container(horizontal=True, gap="medium"):
            for name, size, always in (
                ("Models", usage.models_bytes, True),
                ("Downloads", usage.downloads_bytes, True),
                ("Random weights", random_bytes, False),
                ("INT4 for an NPU", npu_bytes, False),
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
        for download in downloads:
            _draw_download(engine, download)
        if random_bytes:
            _draw_random_weights(engine, random_bytes)
        if npu_bytes:
            _draw_npu_weights(engine, npu_bytes)
        if usage.work_bytes and not engine.tasks.active():
            _draw_leftovers(engine, usage.work_bytes)


def _draw_random_weights(engine: Engine, size: int) -> None:
    """Draw the random weights kept by benchmarks, also by cancelled ones that may be resumed."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Random weights for benchmarks · {bytes_text(size)}", width="stretch")
        if manage_button("Remove", icon=":material/delete:", type="tertiary", key="forget_random"):
            try:
                freed = delete_random_weights(engine.settings)
            except PaddockError as error:
                st.error(safe_inline(str(error)), icon=":material/error:")
            else:
                notify(f"Random weights removed, {bytes_text(freed)} freed.")
                st.rerun()


def _draw_npu_weights(engine: Engine, size: int) -> None:
    """Draw the INT4 weights for an NPU, used if the stored INT4 model does not run on it."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"INT4 for an NPU, compressed on first use · {bytes_text(size)}",
            width="stretch",
        )
        if manage_button("Remove", icon=":material/delete:", type="tertiary", key="forget_npu"):
            try:
                folder = engine.settings.npu_models_dir
                freed = delete_npu_weights(engine.settings, lambda: engine.unload_below(folder))
            except PaddockError as error:
                st.error(safe_inline(str(error)), icon=":material/error:")
            else:
                notify(f"INT4 for an NPU removed, {bytes_text(freed)} freed.")
                st.rerun()


def _draw_leftovers(engine: Engine, size: int) -> None:
    """Draw the leftovers of interrupted conversions; running ones are not touched."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Leftovers of interrupted conversions · {bytes_text(size)}", width="stretch")
        if manage_button("Clean up", icon=":material/mop:", type="tertiary", key="sweep"):
            freed = engine.store.clean_up_all()
            notify(f"Leftovers removed, {bytes_text(freed)} freed.")
            st.rerun()


def _draw_download(engine: Engine, download: StoredDownload) -> None:
    row = catalogue().get(download.key)
    title = safe_inline(row.title if row else download.key.replace("--", "/"))
    state = "" if download.complete else " · :orange[incomplete; the next download resumes it]"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{title} · {bytes_text(download.bytes)}{state}", width="stretch")
        if manage_button(
            "Remove",
            icon=":material/delete:",
            type="tertiary",
            key=f"forget_{download.key}",
        ):
            try:
                freed = engine.store.delete_download(download.key)
            except PaddockError as error:
                st.error(safe_inline(str(error)), icon=":material/error:")
            else:
                notify(f"Download of {title} removed, {bytes_text(freed)} freed.")
                st.rerun()
