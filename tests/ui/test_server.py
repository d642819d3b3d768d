"""The server beside its pages: what keeps the garbage collector out of the answers' way."""

from __future__ import annotations

import gc
import tomllib

from core.settings import CHECKOUT
from core.ui.server import _spare_the_collector


def test_no_full_collection_follows_each_drawing():
    with (CHECKOUT / ".streamlit" / "config.toml").open("rb") as file:
        assert tomllib.load(file)["runner"]["postScriptGC"] is False


def test_what_is_imported_is_put_out_of_the_collectors_sight():
    before = gc.get_freeze_count()
    try:
        _spare_the_collector()
        assert gc.get_freeze_count() > before + 10_000
        assert len(gc.get_objects()) < 10_000
    finally:
        gc.unfreeze()
