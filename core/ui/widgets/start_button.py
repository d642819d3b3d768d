"""Run button; if a model must be downloaded first, it opens a dialog to confirm that."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.errors import PaddockError
from core.inference.engine import Engine, find_stored
from core.runtimes.spec import ModelSpec
from core.store import SourceKind
from core.store import hub as model_hub
from core.store.estimate import Estimate, estimate, missing_bytes
from core.store.hub import HubModel
from core.ui.models.hub_access import hub_access, hub_url
from core.ui.models.list import add_model, added
from core.ui.widgets.actions import action
from core.ui.widgets.person import may_manage
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.units import bytes_text, duration_text

_CONFIRMED = "agreed_to_download"


def to_download(engine: Engine, spec: ModelSpec) -> int | None:
    """Return the bytes to download before the model can run.

    0 if nothing has to be downloaded or the model is not available at all; None if the size is not
    known without a request to the Hugging Face Hub.
    """
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
    """Draw the button and return whether to start now."""
    sizes = _sizes(specs)
    missing = any(size != 0 for size in sizes) and may_manage()
    total = sum(size or 0 for size in sizes)
    download = "Download" if None in sizes else f"Download {bytes_text(total)}"
    pressed = action(
        f"{download}, then {label[0].lower()}{label[1:]}" if missing else label,
        "download" if missing else "play_arrow",
        "start",
        kind="primary",
        shortcut="Ctrl+Enter",
        disabled=disabled,
        width="stretch",
    )
    return may_start(specs, asked=pressed) and not disabled


def may_start(specs: Sequence[ModelSpec], *, asked: bool) -> bool:
    """Return whether to start now: the user asked and nothing has to be downloaded, or agreed to.

    Args:
        specs: the models to run.
        asked: whether the user asked to start in this run; this may open the dialog.
    """
    if st.session_state.pop(_CONFIRMED, None) == tuple(specs):
        return True
    if not asked or not may_manage():
        return asked
    missing = [spec for spec, size in zip(specs, _sizes(specs), strict=True) if size != 0]
    if missing:
        _confirm(tuple(specs), missing)
    return not missing


def _sizes(specs: Sequence[ModelSpec]) -> list[int | None]:
    return [to_download(shared_engine(), spec) for spec in specs]


@st.dialog("Download the model?", on_dismiss="rerun")
def _confirm(specs: tuple[ModelSpec, ...], missing: Sequence[ModelSpec]) -> None:
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
            f"**{title}** · {spec.precision.label}: download of "
            f"{bytes_text(needs.download_bytes)} from {safe_inline(hub_url(access))}. Conversion "
            f"takes about {duration_text(needs.seconds)} and {bytes_text(needs.memory_bytes)} of "
            f"memory; the converted model takes {bytes_text(needs.disk_bytes)} on disk."
        )
    if problem is not None:
        st.error(safe_inline(problem), icon=":material/block:")
    with st.container(horizontal=True):
        action(
            "Download, then run",
            "download",
            "agree",
            *(_accept_download, specs, missing),
            manage=True,
            kind="primary",
            disabled=problem is not None,
        )
        if st.button("Cancel", key="disagree"):
            st.rerun()


def _accept_download(specs: tuple[ModelSpec, ...], missing: Sequence[ModelSpec]) -> None:
    for spec in missing:
        shared_engine().download_with(spec, hub_access())
    st.session_state[_CONFIRMED] = specs


def _needs(engine: Engine, spec: ModelSpec) -> Estimate:
    """Return what download and conversion take."""
    source = engine.store.resolve(spec.model)
    described = _described(source.key)
    if source.model is None and described is None:
        with st.spinner(f"Looking up {safe_inline(source.title)} on the Hugging Face Hub"):
            described = model_hub.describe(str(source.location), hub_access())
        add_model(source, described)
    return estimate(source, spec.precision, engine.settings, hub=described)


def _described(key: str) -> HubModel | None:
    """Return what the Hugging Face Hub reported for a model in this session."""
    model = added().get(key)
    return model.hub if model is not None else None
