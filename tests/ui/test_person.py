"""Permissions on the pages, without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.testing.v1 import AppTest

from core.catalogue import Precision
from core.errors import AccessDeniedError, PaddockError
from core.inference.engine import Engine
from core.runtimes.spec import ModelSpec
from core.server.visitor import Visitor
from core.settings import load_settings
from core.store.manifest import Int4Record, write_manifest
from core.store.resolver import check_confined
from core.ui.models.access import check_name, check_use, key_of
from core.ui.widgets import person as module
from core.ui.widgets.person import Person
from core.ui.widgets.visits import media_in, redirect_message
from tests.auth.samples import HOSTILE
from tests.builders import tiny_checkpoint
from tests.fakes import stored_model
from tests.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def someone(visitor: Visitor, *, local: bool = False, manage: bool = False) -> Person:
    from dataclasses import replace

    access = replace(visitor.access, manage=manage)
    place = replace(visitor.place, forwarded=not local)
    found = replace(visitor, access=access, place=place)
    return Person(**vars(found), session="s")


# Buttons that need the Manage permission


def two_buttons() -> None:
    import streamlit as st

    from core.ui.widgets.actions import action
    from core.ui.widgets.person import draw_manage_hint

    def act() -> None:
        st.session_state["done"] = "callback"

    draw_manage_hint()
    action("By callback", "bolt", "first", act, manage=True)
    if action("In the script", "bolt", "second", manage=True):
        st.session_state["done"] = "script"


def press(label: str, *, quietly: bool = False) -> AppTest:
    app = AppTest.from_function(two_buttons, default_timeout=PATIENCE_S).run()
    button = next(each for each in app.button if each.label == label)
    if quietly:  # a manipulated browser can send the click of a disabled button
        button._value = True
        return app.run()
    return button.click().run()


@pytest.mark.parametrize(
    ("label", "done"), [("By callback", "callback"), ("In the script", "script")]
)
def test_action_works_with_permission(label: str, done: str) -> None:
    app = press(label)
    assert app.session_state["done"] == done and not app.info
    assert not any(button.disabled for button in app.button)


@pytest.mark.parametrize("label", ["By callback", "In the script"])
def test_click_of_a_disabled_button_is_ignored(label: str, without_rights: Visitor) -> None:
    app = press(label, quietly=True)
    assert "done" not in app.session_state
    assert all(button.disabled for button in app.button)
    assert "requires the Manage permission" in app.info[0].value


def test_page_without_a_visitor_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_current_visitor", lambda: None)
    app = AppTest.from_function(two_buttons, default_timeout=PATIENCE_S).run()
    assert not app.button and not app.exception


@pytest.mark.parametrize("page", ["instruct", "compare", "metrics", "models", "account"])
def test_every_page_requires_a_visitor(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.pages.app import open_page

    monkeypatch.setattr(module, "_current_visitor", lambda: None)
    app = open_page(page)
    shown = [*app.button, *app.text_area, *app.metric, *app.selectbox, *app.dataframe]
    assert not shown, "no widget is drawn"


# Models


@pytest.fixture
def engine() -> Engine:
    return Engine(load_settings())


def test_users_can_only_run_models_on_disk(engine: Engine, visitor: Visitor) -> None:
    user, manager = someone(visitor), someone(visitor, manage=True)
    check_use(engine.store, ModelSpec("paddock-neox", Precision.INT4), user)  # included in Paddock
    away = ModelSpec("dolly-v2-3b", Precision.INT8)
    with pytest.raises(AccessDeniedError, match=r"Dolly.* in INT8 is not on this machine yet"):
        check_use(engine.store, away, user)
    check_use(engine.store, away, manager)
    with pytest.raises(AccessDeniedError):
        check_use(engine.store, ModelSpec("someone/else", Precision.INT8), user)


def test_users_cannot_compress_again(
    engine: Engine, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = stored_model(ModelSpec("dolly-v2-3b", Precision.INT4))
    there = {Precision.INT4: stored}
    monkeypatch.setattr(type(engine.store), "get", lambda _, __, precision: there.get(precision))
    check_use(engine.store, ModelSpec("dolly-v2-3b", Precision.INT4, "CPU"), someone(visitor))
    with pytest.raises(AccessDeniedError, match="is compressed for another device than NPU"):
        check_use(engine.store, ModelSpec("dolly-v2-3b", Precision.INT4, "NPU"), someone(visitor))


def test_users_can_run_models_compressed_for_an_npu(engine: Engine, visitor: Visitor) -> None:
    manifest = stored_model(ModelSpec("org--name", Precision.INT4_NPU)).manifest
    int4 = Int4Record(
        symmetric=True, group_size=-1, ratio=1.0, group_sizes={-1: 9}, four_bit_share=1.0
    )
    folder = engine.settings.models_dir / "org--name" / "int4-npu"
    folder.mkdir(parents=True)
    write_manifest(folder, manifest.model_copy(update={"int4": int4}))
    check_use(engine.store, ModelSpec("org/name", Precision.INT4, "NPU"), someone(visitor))
    with pytest.raises(AccessDeniedError, match="is not on this machine yet"):
        check_use(engine.store, ModelSpec("org/name", Precision.INT4, "CPU"), someone(visitor))


@pytest.mark.parametrize("name", [*HOSTILE, "/etc", "/", "core/embedded", "someone/else"])
def test_users_cannot_look_up_other_names(
    engine: Engine, visitor: Visitor, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(engine.store), "resolve", lambda *_: pytest.fail("it was looked up"))
    with pytest.raises(AccessDeniedError):
        key_of(engine.store, name, someone(visitor))


def test_link_with_a_path_reveals_nothing(without_rights: Visitor) -> None:
    from tests.pages.app import open_page, texts

    app = open_page("instruct", model="/etc")
    model = next(box for box in app.selectbox if box.label == "Model")
    assert model.value == "paddock-neox" and "/etc" not in texts(app)


# Folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "import"
    made.mkdir()
    return made


def refused(name: object, root: Path) -> str:
    with pytest.raises(AccessDeniedError) as raised:
        check_confined(str(name), root)
    return str(raised.value)


def test_folders_inside_and_names_are_accepted(root: Path) -> None:
    inside = tiny_checkpoint("llama", root / "mine")
    check_confined(str(inside), root)
    check_confined(f"{root}/../import/mine", root)
    (root / "mine.gguf").touch()
    check_confined(str(root / "mine.gguf"), root)
    check_confined("paddock-neox", root)
    check_confined("org/name", root)
    check_confined("https://huggingface.co/org/name", root)


def test_paths_outside_are_rejected(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    inside = root / "inside"
    inside.mkdir()
    (root / "link").symlink_to(outside)
    (inside / "config.json").symlink_to(outside / "config.json")
    (root / "loop").symlink_to(root / "loop")
    monkeypatch.chdir(tmp_path)
    sentences = {
        refused(name, root)
        for name in (
            outside,
            root / "link",
            inside,
            root / "loop",
            root / ".." / "outside",
            root,
            root.parent,
            "import/../outside",
            "outside",
            "~",
            "/",
            "/etc",
            root / "not-there",
            tmp_path / "not-there",
            *(text for text in HOSTILE if len(text) < 5000 and text != "a/b"),  # a hub's name
        )
    }
    assert len(sentences) == 1, "the error does not reveal which paths exist"


def test_local_folder_named_like_a_hub_id_is_a_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    refused("org/name", root)


def test_only_remote_managers_are_confined(
    engine: Engine, visitor: Visitor, tmp_path: Path
) -> None:
    folder = str(tiny_checkpoint("llama", tmp_path / "mine"))
    check_name(engine.store, folder, someone(visitor, local=True, manage=True))
    with pytest.raises(PaddockError, match=r"below .*import\. Put"):
        check_name(engine.store, folder, someone(visitor, manage=True))


# Media URLs in messages


def test_media_urls_are_only_read_from_streamlit_fields() -> None:
    said = ForwardMsg()
    said.backend_operation_response.deferred_file.url = "/media/abc123.json"
    assert media_in(said.SerializeToString()) == {"abc123"}
    said = ForwardMsg()
    said.delta.new_element.download_button.url = "/media/def456.csv"
    assert media_in(said.SerializeToString()) == {"def456"}
    said = ForwardMsg()
    said.delta.new_element.markdown.body = "/media/abc123.json"
    assert media_in(said.SerializeToString()) == set(), "texts are not searched for URLs"
    assert media_in(redirect_message().SerializeToString()) == set()
