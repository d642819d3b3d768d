"""Models of remote servers in the model selectors."""

from __future__ import annotations

import streamlit as st

from core.errors import PaddockError
from core.remotes import Directory, is_remote, model_name, split_name
from core.runtimes.spec import ModelSpec
from core.ui.widgets.safe_text import safe_inline

_POLL_S = 0.3
"""Interval at which a page checks whether the first model list of a remote server has arrived."""


def remote_models(directory: Directory, chosen: str | None = None) -> list[str]:
    """Return the names of all known models of all remote servers, without waiting for lists.

    Args:
        chosen: A name that is always included, even if its server does not list it now.
    """
    names = [model_name(remote.name, model) for remote, model in directory.models()]
    if chosen is not None and is_remote(chosen) and chosen not in names:
        names.append(chosen)
    return names


def follow_listings(directory: Directory) -> None:
    """Rerun the page when the first model list of a remote server arrives; call once per page."""
    if directory.waiting:
        st.fragment(_await_listings, run_every=_POLL_S)(directory)


def _await_listings(directory: Directory) -> None:
    if not directory.waiting:
        st.rerun()


def draw_remote_state(directory: Directory, spec: ModelSpec) -> None:
    """Draw where a remote model runs, and whether its server is available."""
    try:
        name, model = split_name(spec.model)
        remote = directory.book.get(name)
    except PaddockError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        return
    known, host = directory.listing(remote), safe_inline(remote.host)
    if known is None:
        st.caption(f":material/cloud_sync: Requesting the model list from {host}.")
    elif not known.reachable:
        st.warning(safe_inline(str(known.error)), icon=":material/cloud_off:")
    elif known.error is None and model not in known.models:
        st.warning(f"{host} does not list this model.", icon=":material/cloud_alert:")
    else:
        st.caption(
            f":material/cloud: Runs on {host}, over the network. The server selects precision, "
            "device and prompt format. Your instruction is sent there."
        )
