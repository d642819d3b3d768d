"""Run one page with AppTest."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

PATIENCE_S = 400.0


def open_page(name: str, **link: str) -> AppTest:
    """Open the page of this path with these URL parameters and run it once."""
    app = AppTest.from_string(
        "import streamlit as st\n"
        "from core.ui.widgets.navigation import all_pages\n"
        f"pages = sorted(all_pages(), key=lambda page: page.title != {name.title()!r})\n"
        "st.navigation(pages).run()",
        default_timeout=PATIENCE_S,
    )
    for key, value in link.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def texts(app: AppTest) -> str:
    """Return all texts on the page, including alert boxes."""
    return "\n".join(
        str(element.value)
        for kind in (app.markdown, app.caption, app.info, app.warning, app.error, app.success)
        for element in kind
    )


def button(app: AppTest, label: str, number: int = 0):  # type: ignore[no-untyped-def]
    """Return a button by its label; ``number`` selects among buttons with the same label."""
    return [each for each in app.button if each.label == label][number]
