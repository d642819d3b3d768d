"""List of loaded models on the Models and Metrics pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import streamlit as st

from core.catalogue import Precision
from core.errors import ModelBusyError
from core.hardware.devices import ProcessMemory
from core.runtimes.pool import LoadedInfo, LoadFacts, ModelPool
from core.runtimes.spec import ModelSpec, RuntimeName
from core.ui.widgets.loaded_models import loaded_text
from tests.fakes import stored_model
from tests.pages.app import button, open_page, texts

MIB = 2**20


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def info(runtime: RuntimeName, *, in_use: int = 0, idle_s: float = 281.0) -> LoadedInfo:
    spec = ModelSpec("paddock-neox", Precision.INT8, "CPU", runtime)
    facts = LoadFacts(0.5, ProcessMemory(30_000_000, 50_000_000, 80_000_000))
    return LoadedInfo(spec, stored_model(spec), facts, in_use, idle_s)


def test_line_has_configuration_memory_and_use():
    line = loaded_text(info(RuntimeName.OPTIMUM))
    assert line == (
        "Paddock NeoX 3M (tiny demo) · INT8 · CPU · Optimum · 30 MB private + 50 MB file-backed · "
        "idle 4 min 41 s"
    )
    assert loaded_text(info(RuntimeName.GENAI, in_use=2)).endswith("· 2 running")


@pytest.mark.parametrize("page", ["models", "metrics"])
def test_model_on_two_runtimes_has_two_lines_with_buttons(
    page: str, monkeypatch: pytest.MonkeyPatch
):
    loaded = [info(RuntimeName.GENAI), info(RuntimeName.OPTIMUM)]
    freed: list[ModelSpec] = []
    monkeypatch.setattr(ModelPool, "loaded", lambda self: tuple(loaded))
    monkeypatch.setattr(ModelPool, "unload", lambda self, spec: freed.append(spec))
    app = open_page(page)
    assert "CPU · GenAI" in texts(app) and "CPU · Optimum" in texts(app)
    buttons = [each for each in app.button if each.label.startswith("Unload :gray[")]
    assert len(buttons) == 2
    loaded.reverse()  # the most recently used model comes first
    buttons[1].click().run()
    assert [spec.runtime for spec in freed] == [RuntimeName.OPTIMUM] and not app.exception


def test_unloading_a_busy_model_shows_an_error_once(monkeypatch: pytest.MonkeyPatch):
    def busy(self: ModelPool, spec: ModelSpec) -> bool:
        raise ModelBusyError(f"{spec.label} is generating an answer.")

    monkeypatch.setattr(ModelPool, "loaded", lambda self: (info(RuntimeName.GENAI),))
    monkeypatch.setattr(ModelPool, "unload", busy)
    app = open_page("models")
    button(app, "Unload").click().run()
    assert "paddock-neox · INT8 · CPU is generating an answer." in texts(app)
    assert "is generating an answer." not in texts(app.run())
