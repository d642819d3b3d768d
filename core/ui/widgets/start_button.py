"""The button that starts answers; where a model is to be downloaded first, it asks once."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import streamlit as st

from core.engine import Engine, find_stored
from core.errors import PaddockError
from core.runtimes.spec import ModelSpec
from core.store import SourceKind
from core.store import hub as model_hub
from core.store.estimate import Estimate, estimate, missing_bytes
from core.store.hub import HubModel
from core.ui.models.hub_access import hub_access, hub_url
from core.ui.models.list import added
from core.ui.widgets.person import may_manage
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, duration_text

_AGREED = "agreed_to_download"


def to_download(engine: Engine, spec: ModelSpec) -> int | None:
    """Bytes to be fetched before the model can answer; 0 where nothing is, and where that model
    cannot be had at all; None where it must be looked up first."""
    if spec.remote:
        return 0
    try:
        source = engine.store.resolve(spec.model)
        if source.kind is not SourceKind.HUB or find_stored(engine.store, spec) is not None:
            return 0
    except PaddockError:
        return 0
    try:
        return missing_bytes(source, engine.settings, _described(source.key))
    except PaddockError:
        return None


def draw_start(label: str, specs: Sequence[ModelSpec], *, disabled: bool) -> bool:
    """Draw the primary button.

    Args:
        label: where nothing is to be downloaded.
        specs: the models that are to answer.
        disabled: whether nothing can be started now.

    Returns:
        Whether to start now.
    """
    sizes = {spec.model: to_download(shared_engine(), spec) for spec in specs}
    missing = [spec for spec in specs if sizes[spec.model] != 0] if may_manage() else []
    words = _words(sizes.values())
    pressed = st.button(
        f"{words}, then {label[0].lower()}{label[1:]}" if missing else label,
        icon=":material/download:" if missing else ":material/play_arrow:",
        type="primary",
        shortcut="Ctrl+Enter",
        disabled=disabled,
        key="start",
    )
    if st.session_state.pop(_AGREED, None) == tuple(specs):
        return not disabled
    if pressed and missing:
        _ask(tuple(specs), missing)
        return False
    return pressed


@st.dialog("Download first?")
def _ask(specs: tuple[ModelSpec, ...], missing: Sequence[ModelSpec]) -> None:
    engine, access = shared_engine(), hub_access()
    problem: str | None = None
    if access.offline:
        problem = "Offline mode is on. Turn it off under Hugging Face access on the Models page."
    for spec in missing:
        title = safe_inline(engine.store.title(spec.model))
        try:
            needs = _needs(engine, spec)
        except PaddockError as error:
            problem = problem or str(error)
            continue
        problem = problem or needs.problem
        st.markdown(
            f"**{title}** · {spec.precision.label}: {bytes_text(needs.download_bytes)} from "
            f"{safe_inline(hub_url(access))}. Converting it takes about "
            f"{duration_text(needs.seconds)} and {bytes_text(needs.memory_bytes)} of memory; the "
            f"result has {bytes_text(needs.disk_bytes)}."
        )
    if problem is not None:
        st.error(safe_inline(problem), icon=":material/block:")
    with st.container(horizontal=True):
        if st.button(
            "Download, then run",
            icon=":material/download:",
            type="primary",
            disabled=problem is not None,
            key="agree",
            on_click=lambda: st.session_state.update({_AGREED: specs}),
        ):
            st.rerun()
        if st.button("Cancel", key="disagree"):
            st.rerun()


def _needs(engine: Engine, spec: ModelSpec) -> Estimate:
    """
    Raises:
        PaddockError: it cannot be had, or the hub does not know it.
    """
    source = engine.store.resolve(spec.model)
    described = _described(source.key)
    if source.model is None and described is None:
        with st.spinner(f"Asking the hub for {safe_inline(source.title)}"):
            described = model_hub.describe(str(source.location), hub_access())
        added().put(source, described)
    return estimate(source, spec.precision, engine.settings, hub=described)


def _described(key: str) -> HubModel | None:
    """What the hub said of a model in this session."""
    model = added().models.get(key)
    return model.hub if model is not None else None


def _words(sizes: Collection[int | None]) -> str:
    known = [size for size in sizes if size is not None]
    return f"Download {bytes_text(sum(known))}" if len(known) == len(sizes) else "Download"
