"""Remote servers on the pages: added, shown, selected and removed; keys are never shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.inference.engine import Engine
from core.server.visitor import Visitor
from core.settings import load_settings
from core.ui.widgets.resources import shared_engine
from tests.pages.app import PATIENCE_S, button, open_page, texts
from tests.remotes.scripted_server import KEY, ScriptedServer, free_port, serving

TINY = "remote:office/tiny"


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving(key=KEY) as script:
        yield script


@pytest.fixture
def office(server: ScriptedServer) -> Engine:
    """The engine of the pages, with the server and its model list."""
    engine = shared_engine()
    listed(engine, server.url)
    return engine


def listed(engine: Engine, url: str) -> None:
    remote = engine.add_remote("office", url, KEY)
    engine.remotes.directory.ask(remote).result(PATIENCE_S)


def fill(app: AppTest, **values: str) -> None:
    for key, value in values.items():
        app.text_input(key=f"remote_{key}").input(value)
    button(app, "Add and test").click()
    app.run()
    assert not app.exception


def everything(app: AppTest) -> str:
    """Return texts, values of all fields, and the URL parameters."""
    fields = [each.value for each in [*app.text_input, *app.text_area]]
    return texts(app) + repr(fields) + repr(app.query_params)


def test_a_server_is_added_and_its_key_is_removed_from_the_page(server: ScriptedServer) -> None:
    app = open_page("models")
    assert "Remote servers" not in [each.value for each in app.subheader]
    fill(app, name="Office", url=f"{server.url}/", key=KEY)
    remote = shared_engine().remotes.directory.book.get("office")
    shared_engine().remotes.directory.ask(remote).result(PATIENCE_S)
    app.run()
    shown = texts(app)
    assert "Remote servers" in [each.value for each in app.subheader]
    assert "**office**" in shown and "2 models" in shown and "has an API key" in shown
    assert "tiny" in shown and "Scripted/1.0" in shown
    assert app.text_input(key="remote_key").value == ""
    assert KEY not in everything(app)
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"


def test_an_invalid_entry_is_an_error_and_the_input_is_kept(server: ScriptedServer) -> None:
    app = open_page("models")
    fill(app, name="office", url="http://user:pw@box/v1", key=KEY)
    assert any("user name or password" in each.value for each in app.toast)
    assert app.text_input(key="remote_name").value == "office"
    assert shared_engine().remotes.directory.book.list() == []
    assert server.headers == []


def test_an_unreachable_server_is_shown_as_not_available(office: Engine) -> None:
    listed(office, f"http://127.0.0.1:{free_port()}/v1")
    shown = texts(open_page("models"))
    assert "not available" in shown and "Cannot connect to" in shown


def test_a_server_is_removed_with_its_key(office: Engine) -> None:
    app = open_page("models")
    button(app, "Remove it").click()
    app.run()
    assert not app.exception
    assert office.remotes.directory.book.list() == []
    assert KEY not in (load_settings().home / "remotes.json").read_text()


def test_a_server_of_the_environment_cannot_be_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PADDOCK_REMOTES", f"lab=http://127.0.0.1:{free_port()}/v3")
    app = open_page("models")
    assert "PADDOCK_REMOTE_KEY_LAB" in texts(app)
    assert "Remove it" not in [each.label for each in app.button]


def test_adding_and_removing_requires_the_manage_permission(
    office: Engine, without_rights: Visitor, tmp_path: Path
) -> None:
    app = open_page("models")
    assert "Add and test" not in [each.label for each in app.button]
    assert button(app, "Remove it").disabled and button(app, "Test").disabled


def test_every_user_may_use_a_remote_model(office: Engine, without_rights: Visitor) -> None:
    app = open_page("instruct", model=TINY)
    picker = app.selectbox(key="model")
    assert picker.value == TINY
    assert "tiny · on office" in picker.options and "org/large-model · on office" in picker.options
    assert "answers on the server **office**; your text is sent there." in texts(app)
    assert {"precision", "device", "runtime"}.isdisjoint(
        each.key for each in [*app.selectbox, *app.segmented_control]
    )
    app.chat_input[0].set_value("Who?").run()
    assert not app.exception
    shown = texts(app)
    assert "Hello, you." in shown and "over the network" in shown
    (run,) = office.runs.recent(1)
    assert (run.start.model, run.result.new_tokens) == (TINY, 5)


def test_a_selected_model_stays_selected_without_its_server(office: Engine) -> None:
    app = open_page("instruct", model=TINY)
    office.remove_remote("office")
    app.run()
    assert not app.exception
    assert app.selectbox(key="model").value == TINY
    assert "no remote server named" in texts(app)


def test_a_link_to_an_unknown_server_is_ignored() -> None:
    app = open_page("instruct", model="remote:nowhere/x")
    assert app.selectbox(key="model").value != "remote:nowhere/x"


def test_local_settings_are_removed_from_the_url_of_a_remote_model(office: Engine) -> None:
    app = open_page("instruct", model=TINY, precision="int4", runtime="optimum")
    assert {"precision", "runtime"}.isdisjoint(app.query_params)
    assert json.loads(json.dumps(app.query_params["model"])) in (TINY, [TINY])


def test_a_remote_model_is_compared_with_a_local_one(office: Engine) -> None:
    app = open_page("compare", right_model=TINY)
    assert app.selectbox(key="right_model").value == TINY
    keys = {each.key for each in app.selectbox}
    assert "left_device" in keys and "right_device" not in keys
    button(app, "Swap").click()
    app.run()
    assert not app.exception
    assert app.selectbox(key="left_model").value == TINY
