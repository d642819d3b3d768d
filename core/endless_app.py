"""The app with answers that end at their length alone, so that every run has as many tokens.

Started by :mod:`core.benchmark.speed.app` as ``streamlit run`` of this file.
"""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

import streamlit as st  # noqa: E402

from core.app import lifespan, middleware, routes  # noqa: E402
from core.catalogue.prompts import PromptFormat, StopRule  # noqa: E402


def _never(self: PromptFormat, tokenizer: object, end_ids: object = ()) -> StopRule:
    return StopRule(frozenset(), frozenset(), (), ())


PromptFormat.stop_rule = _never  # type: ignore[method-assign]

app = st.App(
    CHECKOUT / "core" / "ui" / "shell.py",
    routes=routes,
    middleware=middleware,
    lifespan=lifespan,
)
