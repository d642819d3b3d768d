"""What a click set elsewhere survives the next click."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


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


def a_choice_that_is_taken_back() -> None:
    import streamlit as st

    from core.ui.widgets.state import is_stale, mark_sent, restore_pending, set_widgets

    def count() -> None:
        if st.session_state["choice"] is not None and not is_stale("choice"):
            st.session_state["chosen"] = st.session_state.get("chosen", 0) + 1
            set_widgets({"choice": None})

    restore_pending()
    st.pills("Choice", ["one", "other"], key="choice", on_change=count)
    mark_sent()


def interrupted() -> AppTest:
    """The app after a click whose script was ended before it got to the controls."""
    app = AppTest.from_function(two_controls, default_timeout=30).run()
    app.text_input[0].set_value("mine").run()
    app.session_state["interrupted"] = True
    app.button[0].click().run()
    app.session_state["interrupted"] = False
    return app


def test_values_are_set_at_once() -> None:
    app = AppTest.from_function(two_controls, default_timeout=30).run()
    app.text_input[0].set_value("mine").run()
    app.button[0].click().run()
    assert (app.slider[0].value, app.text_input[0].value) == (7, "usual")


def test_what_the_browser_still_showed_does_not_win() -> None:
    app = interrupted()
    app.session_state["number"], app.session_state["word"] = 1, "mine"  # as the browser sends it
    app.run()
    assert (app.slider[0].value, app.text_input[0].value) == (7, "usual")


def test_what_the_person_changed_since_wins() -> None:
    app = interrupted()
    app.session_state["number"] = 3
    app.run()
    assert app.slider[0].value == 3


def test_what_was_drawn_but_not_yet_shown_is_kept() -> None:
    app = interrupted().run()  # drawn in full
    for _ in range(2):  # two clicks come from a browser that shows the page before that
        app.session_state["number"], app.session_state["word"] = 1, "mine"
        app.session_state["drawn"] = "0"
        app.run()
        assert (app.slider[0].value, app.text_input[0].value) == (7, "usual")


def test_a_browser_that_sends_nonsense_has_shown_nothing() -> None:
    app = interrupted().run()
    app.session_state["number"], app.session_state["drawn"] = 1, "nonsense"
    app.run()
    assert not app.exception and app.slider[0].value == 7


def test_once_shown_the_person_may_go_back() -> None:
    app = interrupted().run()
    app.slider[0].set_value(1).run()
    assert app.slider[0].value == 1
    app.button[0].click().run()
    assert app.slider[0].value == 7
    app.slider[0].set_value(1).run()
    assert app.slider[0].value == 1


def test_a_choice_taken_back_counts_once_until_that_is_shown() -> None:
    app = AppTest.from_function(a_choice_that_is_taken_back, default_timeout=30).run()
    for _ in range(2):  # the second time as a browser sends it that has not shown the first
        app.button_group[0].set_value("one")
        app.session_state["drawn"] = "0"
        app.run()
        assert app.session_state["choice"] is None
        assert app.session_state["chosen"] == 1
    app.button_group[0].set_value("other")
    app.session_state["drawn"] = "0"
    app.run()
    assert app.session_state["chosen"] == 2, "another choice is the person's"
    app.button_group[0].set_value("other").run()  # a browser that has shown everything
    assert app.session_state["chosen"] == 3
    assert app.session_state["choice"] is None


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


def test_of_two_values_set_by_one_click_the_latter_stays() -> None:
    app = AppTest.from_function(twice, default_timeout=30).run()
    app.session_state["interrupted"] = True
    app.button[0].click().run()
    app.session_state["interrupted"] = False
    app.session_state["number"] = 1  # as the browser sends it that has shown neither
    app.run()
    assert app.slider[0].value == 7
