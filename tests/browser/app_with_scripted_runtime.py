"""The app of ``streamlit_app.py`` with the scripted runtime instead of the real ones.

The browser tests start it with ``streamlit run``, with the checkout on ``PYTHONPATH``.
"""

from pathlib import Path

import streamlit as st

import core.compare.match
import core.compare.timed_answers
import core.inference.engine
from core.app import middleware, routes, watching
from core.runtimes.spec import RuntimeName
from tests.browser.scripted import ScriptedRuntime, scripted_conversion, test_routes

SHELL = Path(__file__).resolve().parents[2] / "core" / "ui" / "shell.py"

core.inference.engine.default_runtimes = lambda settings: dict.fromkeys(
    RuntimeName, ScriptedRuntime()
)
core.inference.engine.convert_in_process = scripted_conversion

core.compare.timed_answers.SHORTEST_S = 0.0  # scripted answers are not repeated
core.compare.match.IDLE_WAIT_S = 0.0  # the tests keep the machine busy

app = st.App(SHELL, routes=[*routes, *test_routes], middleware=middleware, lifespan=watching)
