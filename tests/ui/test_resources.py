"""Reruns of a page when work in the background is done."""

from streamlit.testing.v1 import AppTest

from tests.waiting import PATIENCE_S


def page_that_waits() -> None:
    import streamlit as st

    from core.ui.widgets.resources import rerun_when

    rerun_when(lambda: "done" in st.session_state)
    st.text("below")


def place_of_text(app: AppTest) -> int:
    return next(at for at, each in app.main.children.items() if each.type == "text")


def test_what_follows_keeps_its_place_when_the_page_no_longer_waits() -> None:
    app = AppTest.from_function(page_that_waits, default_timeout=PATIENCE_S).run()
    waiting = place_of_text(app)
    app.session_state["done"] = True
    assert place_of_text(app.run()) == waiting
