"""Account page: profile, API keys, stored data and, for administrators, all accounts."""

import streamlit as st

from core.ui.account.admin import draw_administration
from core.ui.account.data import draw_data
from core.ui.account.keys import draw_keys
from core.ui.account.profile import draw_guest, draw_profile, draw_sessions
from core.ui.widgets.person import person
from core.ui.widgets.resources import shared_engine

engine, someone = shared_engine(), person()

st.title("Account", anchor=False)
if someone.account is None:
    draw_guest()
else:
    draw_profile(someone)
    draw_sessions(engine, someone)
    draw_keys(engine, someone)
draw_data(engine, someone)
if someone.access.administer:
    draw_administration(engine, someone)
