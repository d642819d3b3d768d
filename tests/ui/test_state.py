"""Widget values set by a callback survive the next click."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from tests.waiting import PATIENCE_S


def two_controls() -> None:
    import streamlit as st

    from core.ui.widgets.state import RESET, mark_sent, restore_pending, set_widgets

    restore_pending()
    st.button("Choose", on_click=set_widgets, args=({"number": 7, "word": RESET},))
    if st.session_state.get("interrupted"):
        st.stop()
    st.slider("Number", 0, 9, 1, key="number")
    st.text_input("Word", "usual", key="word")
    mark_sent()


def interrupted() -> AppTest:
    """Return the app after a click whose run was interrupted before it drew the widgets."""
    app = AppTest.from_function(two_controls, default_timeout=PATIENCE_S).run()
    app.text_input[0].set_value("mine").run()
    app.session_state["interrupted"] = True
    app.button[0].click().run()
    app.session_state["interrupted"] = False
    return app


def test_values_are_set_immediately() -> None:
    app = AppTest.from_function(two_controls, default_timeout=PATIENCE_S).run()
    app.text_input[0].set_value("mine").run()
    app.button[0].click().run()
    assert (app.slider[0].value, app.text_input[0].value) == (7, "usual")


def test_old_value_from_the_browser_is_ignored() -> None:
    app = interrupted()
    app.session_state["number"], app.session_state["word"] = 1, "mine"  # as sent by the browser
    app.run()
    assert (app.slider[0].value, app.text_input[0].value) == (7, "usual")


def test_later_change_by_the_user_wins() -> None:
    app = interrupted()
    app.session_state["number"] = 3
    app.run()
    assert app.slider[0].value == 3


def test_value_is_kept_until_the_browser_shows_it() -> None:
    app = interrupted().run()  # drawn in full
    for _ in range(2):  # two clicks from a browser that still shows the page before
        app.session_state["number"], app.session_state["word"] = 1, "mine"
        app.session_state["drawn"] = "0"
        app.run()
        assert (app.slider[0].value, app.text_input[0].value) == (7, "usual")


def test_invalid_counter_means_not_shown() -> None:
    app = interrupted().run()
    app.session_state["number"], app.session_state["drawn"] = 1, "nonsense"
    app.run()
    assert not app.exception and app.slider[0].value == 7


def test_user_can_restore_the_old_value() -> None:
    app = interrupted().run()
    app.slider[0].set_value(1).run()
    assert app.slider[0].value == 1
    app.button[0].click().run()
    assert app.slider[0].value == 7
    app.slider[0].set_value(1).run()
    assert app.slider[0].value == 1


def twice() -> None:
    import streamlit as st

    from core.ui.widgets.state import mark_sent, restore_pending, set_widgets

    def choose() -> None:
        set_widgets({"number": 5})
        set_widgets({"number": 7})

    restore_pending()
    st.button("Choose", on_click=choose)
    if st.session_state.get("interrupted"):
        st.stop()
    st.slider("Number", 0, 9, 1, key="number")
    mark_sent()


def test_second_of_two_values_from_one_click_is_kept() -> None:
    app = AppTest.from_function(twice, default_timeout=PATIENCE_S).run()
    app.session_state["interrupted"] = True
    app.button[0].click().run()
    app.session_state["interrupted"] = False
    app.session_state["number"] = 1  # the browser has shown neither value
    app.run()
    assert app.slider[0].value == 7
