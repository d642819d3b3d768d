"""The door: ``streamlit run streamlit_app.py`` finds the app here."""

import streamlit as st

from core.ui.server import lifespan, routes

app = st.App("core/ui/shell.py", routes=routes, lifespan=lifespan)
