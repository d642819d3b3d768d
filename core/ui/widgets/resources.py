"""Resources shared by all sessions, cached with ``st.cache_resource``, and waiting for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import streamlit as st

from core.benchmark.decode_rate import DecodeRates
from core.benchmark.service import Benchmark
from core.benchmark.tuning import TuningService
from core.db import VoteStore
from core.evaluation.run import Evaluations
from core.inference.contention import MONITOR
from core.inference.engine import Engine
from core.runtimes.pool import ModelHandle
from core.runtimes.spec import ModelSpec
from core.settings import load_settings

P = ParamSpec("P")
T = TypeVar("T")

MAX_HANDLES = 16
"""Most cached handles; the model pool decides how many models are in memory."""
KEPT_S = 600
"""Seconds for which the measured bandwidth, and an answer of the Hub, are kept."""
_POLL_S = 0.3


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
    return TuningService(
        engine.settings, engine.keep_tuned, partial(MONITOR.running, measured=True)
    )


@st.cache_resource(show_spinner=False)
def shared_evaluations() -> Evaluations:
    """Return the runs of test sets of this process."""
    return Evaluations(shared_engine())


def shared_votes() -> VoteStore:
    """Return the vote store, in the same database as the runs.

    Raises:
        RecordsError: the database cannot be opened.
    """
    return VoteStore(shared_engine().runs.database)


@st.cache_resource(max_entries=MAX_HANDLES, show_spinner=False, on_release=ModelHandle.release)
def cached_model(spec: ModelSpec) -> ModelHandle:
    """Return the handle of a model; the first answer loads it and later ones reuse it."""
    return shared_engine().handle(spec)


def in_background(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Run a function in a thread of its own."""
    executor = ThreadPoolExecutor(1, function.__name__)
    future = executor.submit(function, *args, **kwargs)
    executor.shutdown(wait=False)
    return future


def rerun_when(done: Callable[[], bool]) -> None:
    """Rerun the page when this is true, unless it is already; call it once per page."""

    def check() -> None:
        if done():
            st.rerun()

    # The same place in every run: otherwise all that follows would be removed and drawn again.
    with st.empty():
        if not done():
            st.fragment(check, run_every=_POLL_S)()


def decode_rates() -> DecodeRates | None:
    """Return what answers' speed is estimated from; None while the bandwidth is measured."""
    measuring = _measured_rates()
    return measuring.result() if measuring.done() else None


def await_decode_rates() -> None:
    """Rerun the page when :func:`decode_rates` are known; call it once per page."""
    rerun_when(_measured_rates().done)


@st.cache_resource(show_spinner=False, ttl=KEPT_S)
def _measured_rates() -> Future[DecodeRates]:
    return in_background(DecodeRates.of_this_machine, shared_engine())
