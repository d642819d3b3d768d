"""Run one page with AppTest."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from streamlit.testing.v1 import AppTest

from tests.waiting import PATIENCE_S


def open_page(name: str, *, session: Mapping[str, Any] | None = None, **link: str) -> AppTest:
    """Open the page of this path with these URL parameters and run it once.

    Args:
        session: session state that another page has left.
    """
    app = AppTest.from_string(
        "import streamlit as st\n"
        "from core.errors import PaddockError\n"
        "from core.ui.widgets.actions import draw_error, draw_messages\n"
        "from core.ui.widgets.navigation import all_pages\n"
        "draw_messages()\n"
        f"pages = sorted(all_pages(), key=lambda page: page.title.lower() != {name.lower()!r})\n"
        "try:\n"
        "    st.navigation(pages).run()\n"
        "except PaddockError as error:\n"
        "    draw_error(error)",
        default_timeout=PATIENCE_S,
    )
    for key, value in link.items():
        app.query_params[key] = value
    for key, value in (session or {}).items():
        app.session_state[key] = value
    app.run()
    assert not app.exception
    return app


def texts(app: AppTest) -> str:
    """Return all texts on the page, including alert boxes and messages."""
    boxes = (app.info, app.warning, app.error, app.success, app.toast)
    return "\n".join(
        str(element.value) for kind in (*boxes, app.markdown, app.caption) for element in kind
    )


def button(app: AppTest, label: str, number: int = 0):  # type: ignore[no-untyped-def]
    """Return a button by what is seen of its label; ``number`` selects among the same ones."""
    return [each for each in app.button if seen(each.label) == label][number]


def seen(label: str) -> str:
    """Return a button's label without the part for screen readers."""
    return label.partition(" :gray[")[0]


def charts(app: AppTest) -> list[dict[str, Any]]:
    """Return the data and layout of the charts."""
    return [json.loads(each.proto.spec, object_hook=_as_list) for each in app.get("plotly_chart")]


def _as_list(value: dict[str, Any]) -> Any:
    """Return the numbers of an array that plotly has encoded; other objects as they are."""
    if value.keys() == {"dtype", "bdata"}:
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
    return value
