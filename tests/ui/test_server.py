"""The server beside its pages: what keeps the garbage collector out of the answers' way."""

from __future__ import annotations

import tomllib

from core.settings import CHECKOUT


def test_no_full_collection_follows_each_drawing():
    with (CHECKOUT / ".streamlit" / "config.toml").open("rb") as file:
        assert tomllib.load(file)["runner"]["postScriptGC"] is False
