"""What all sessions of this server share, held by ``st.cache_resource``."""

from __future__ import annotations

import streamlit as st

from core.db import VoteStore
from core.engine import Engine
from core.runtimes.pool import ModelHandle
from core.runtimes.remote import RemoteHandle
from core.runtimes.spec import ModelSpec
from core.settings import load_settings

MAX_HANDLES = 16
"""Handles kept; how many models are in memory is the pool's decision."""


@st.cache_resource(show_spinner=False)
def shared_engine() -> Engine:
    """The process's one engine."""
    return Engine(load_settings())


def shared_votes() -> VoteStore:
    """The votes, beside the runs in one database.

    Raises:
        RecordsError: the database cannot be opened.
    """
    return VoteStore(shared_engine().runs.database)


def _release(handle: ModelHandle | RemoteHandle) -> None:
    handle.release()


@st.cache_resource(max_entries=MAX_HANDLES, show_spinner=False, on_release=_release)
def cached_model(spec: ModelSpec) -> ModelHandle | RemoteHandle:
    """The handle of a model; it is loaded by the first answer and stays for the next ones."""
    return shared_engine().handle(spec)
