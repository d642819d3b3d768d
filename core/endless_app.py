"""The app without stop rules: answers end at the maximum length, so all runs have equal tokens.

:mod:`core.benchmark.speed.app` starts it with ``streamlit run``, which finds an app by parsing its
file. So this file creates one itself, like ``streamlit_app.py``, instead of importing that.
"""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

import streamlit as st  # noqa: E402

from core.app import lifespan, middleware, routes  # noqa: E402
from core.catalogue.prompts import PromptFormat, StopRule  # noqa: E402


def _no_stop_rule(self: PromptFormat, tokenizer: object, end_ids: object = ()) -> StopRule:
    return StopRule(frozenset(), frozenset(), (), ())


PromptFormat.stop_rule = _no_stop_rule  # type: ignore[method-assign]

app = st.App(
    CHECKOUT / "core" / "ui" / "shell.py",
    routes=routes,
    middleware=middleware,
    lifespan=lifespan,
)
