"""Entry point: ``streamlit run streamlit_app.py``."""

import gc

import streamlit as st

gc.disable()  # imports create no garbage; see core.store.library_env.quick_imports
from core.app import lifespan, middleware, routes  # noqa: E402

gc.enable()

app = st.App("core/ui/shell.py", routes=routes, middleware=middleware, lifespan=lifespan)
