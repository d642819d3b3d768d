"""A link to a page replaces settings of the session once; the others stay unchanged."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from tests.waiting import PATIENCE_S


def two_pages() -> None:
    import streamlit as st

    from core.ui.widgets.link import link_choice, link_choices, link_texts, note_page, number_in

    shown = st.session_state.get("shown", "first")
    note_page(shown)
    if shown == "first":
        link_texts("words")
        link_choice("number", 1, number_in(0, 9))
        link_choices("many", ["one", "two", "three"])
        st.text_area("Words", key="words", persist_state="session")
        st.slider("Number", 0, 9, key="number", persist_state="session")
        st.multiselect("Many", ["one", "two", "three"], key="many", persist_state="session")


def opened(**link: str) -> AppTest:
    app = AppTest.from_function(two_pages, default_timeout=PATIENCE_S)
    app.query_params.update(link)
    return app.run()


def go(app: AppTest, shown: str, **link: str) -> AppTest:
    app.session_state["shown"] = shown
    app.query_params.clear()
    app.query_params.update(link)
    return app.run()


def state(app: AppTest) -> tuple[str, int, list[str]]:
    return app.text_area[0].value, app.slider[0].value, app.multiselect[0].value


def test_link_sets_widgets_of_a_new_session() -> None:
    app = opened(words="hello", number="4", many="three,nonsense,one")
    assert state(app) == ("hello", 4, ["one", "three"])
    assert app.query_params["many"] == "one,three"


def test_link_from_another_page_replaces_session_values() -> None:
    app = opened()
    app.slider[0].set_value(7).run()
    app.text_area[0].set_value("mine").run()
    go(app, "second")
    assert state(go(app, "first", number="3", many="two")) == ("mine", 3, ["two"])
    assert dict(app.query_params) == {"number": "3", "many": "two", "words": "mine"}


def test_page_without_a_link_keeps_session_values() -> None:
    app = opened(number="4")
    app.slider[0].set_value(7).run()
    go(app, "second")
    assert state(go(app, "first"))[1] == 7
    assert app.query_params["number"] == "7"


def test_stale_link_does_not_undo_a_change() -> None:
    """Two quick changes: the second run still comes with the URL from before the first."""
    app = opened(number="4")
    app.slider[0].set_value(7).run()
    app.query_params["number"] = "4"
    app.run()
    assert app.slider[0].value == 7
    assert app.query_params["number"] == "7"


def test_invalid_values_in_a_link_are_ignored() -> None:
    app = opened()
    app.slider[0].set_value(7).run()
    go(app, "second")
    assert state(go(app, "first", number="99", many="nonsense"))[1:] == (7, [])
