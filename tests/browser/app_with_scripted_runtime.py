"""The app of ``streamlit_app.py`` with the scripted runtime in the place of the real ones.

Started by the browser tests as ``streamlit run`` of this file, with the checkout on ``PYTHONPATH``.
"""

import gc
from pathlib import Path

import streamlit as st
import transformers.models.auto.tokenization_auto  # noqa: F401 - seconds, which no test waits for

import core.compare.timed_answers
import core.engine
from core.app import middleware, routes, watching
from core.runtimes.spec import RuntimeName
from tests.browser.scripted import ScriptedRuntime, scripted_conversion, test_routes

SHELL = Path(__file__).resolve().parents[2] / "core" / "ui" / "shell.py"

core.engine.default_runtimes = lambda settings: dict.fromkeys(RuntimeName, ScriptedRuntime())
core.engine.convert_in_process = scripted_conversion

core.compare.timed_answers.SHORTEST_S = 0.0  # what is on a stage is given once

gc.freeze()  # as the real runtime does after its imports, see core/runtimes/optimum.py

app = st.App(SHELL, routes=[*routes, *test_routes], middleware=middleware, lifespan=watching)
