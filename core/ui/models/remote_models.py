"""Models of servers elsewhere among the models to choose from."""

from __future__ import annotations

import streamlit as st

from core.errors import PaddockError
from core.remotes import Directory, is_remote, model_name, split_name
from core.runtimes.spec import ModelSpec
from core.ui.widgets.safe_text import safe_inline

_LOOK_S = 0.3
"""How often a page looks whether the first list of a remote has come."""


def remote_models(directory: Directory, chosen: str | None = None) -> list[str]:
    """Names of all models of all remotes, as far as is known now; nobody is waited for.

    Args:
        chosen: a name that stays among them, whatever its server says now.
    """
    names = [model_name(remote.name, model) for remote, model in directory.models()]
    if chosen is not None and is_remote(chosen) and chosen not in names:
        names.append(chosen)
    return names


def follow_listings(directory: Directory) -> None:
    """Draw the page again once the first list of a remote has come; called once a page."""
    if directory.waiting:
        st.fragment(_await_listings, run_every=_LOOK_S)(directory)


def _await_listings(directory: Directory) -> None:
    if not directory.waiting:
        st.rerun()


def draw_remote_state(directory: Directory, spec: ModelSpec) -> None:
    """One line: where it runs, and whether its server is there."""
    try:
        name, model = split_name(spec.model)
        remote = directory.book.get(name)
    except PaddockError as error:
        st.warning(safe_inline(str(error)), icon=":material/error:")
        return
    known, host = directory.listing(remote), safe_inline(remote.host)
    if known is None:
        st.caption(f":material/cloud_sync: Asking {host} for its models.")
    elif not known.reachable:
        st.warning(safe_inline(str(known.error)), icon=":material/cloud_off:")
    elif known.error is None and model not in known.models:
        st.warning(f"{host} does not list this model (any more).", icon=":material/cloud_alert:")
    else:
        st.caption(
            f":material/cloud: On {host}, over the network. The server chooses precision, device "
            "and prompt format; what you type is sent there."
        )
