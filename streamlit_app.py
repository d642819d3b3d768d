"""Entry point: ``streamlit run streamlit_app.py``."""

import streamlit as st

from core.app import lifespan, middleware, routes

app = st.App("core/ui/shell.py", routes=routes, middleware=middleware, lifespan=lifespan)
