"""Resources shared by all sessions, cached with ``st.cache_resource``."""

from __future__ import annotations

import streamlit as st

from core.benchmark.service import Benchmark
from core.benchmark.tuning_service import TuningService
from core.db import VoteStore
from core.inference.contention import MONITOR
from core.inference.engine import Engine
from core.runtimes.pool import ModelHandle
from core.runtimes.spec import ModelSpec
from core.settings import load_settings

MAX_HANDLES = 16
"""Most cached handles; the model pool decides how many models are in memory."""


@st.cache_resource(show_spinner=False)
def shared_engine() -> Engine:
    """Return the engine of this process."""
    return Engine(load_settings())


@st.cache_resource(show_spinner=False)
def shared_benchmark() -> Benchmark:
    """Return the benchmark of this process."""
    engine = shared_engine()
    return Benchmark(engine.settings, lambda: engine.measurements, MONITOR)


@st.cache_resource(show_spinner=False)
def shared_tuning() -> TuningService:
    """Return the tuning of this process."""
    engine = shared_engine()
    return TuningService(engine.settings, engine.keep_tuned, MONITOR.running)


def shared_votes() -> VoteStore:
    """Return the vote store, in the same database as the runs.

    Raises:
        RecordsError: the database cannot be opened.
    """
    return VoteStore(shared_engine().runs.database)


def _release(handle: ModelHandle) -> None:
    handle.release()


@st.cache_resource(max_entries=MAX_HANDLES, show_spinner=False, on_release=_release)
def cached_model(spec: ModelSpec) -> ModelHandle:
    """Return the handle of a model; the first answer loads it and later ones reuse it."""
    return shared_engine().handle(spec)
