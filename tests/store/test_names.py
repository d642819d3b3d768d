"""A model has one key and one title, whatever name is used and wherever it is recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.catalogue import Precision, catalogue
from core.errors import NotAModelError
from core.settings import Settings
from core.store import ModelStore, StoredModel, resolve, resolver
from core.store.resolver import folder_key, recorded_name, recorded_title


@pytest.fixture(autouse=True)
def _no_other_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore folders that other tests of this process resolved."""
    monkeypatch.setattr(resolver, "_LOCAL", {})


@pytest.fixture
def folder(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_of("llama"), tmp_path / "mine"))


def test_a_folder_has_its_key_as_name_before_it_is_stored(store: ModelStore, folder: Path) -> None:
    key = store.name(str(folder))
    assert key == folder_key(folder) and store.name(key) == key
    assert store.resolve(key) == resolve(str(folder))
    assert store.title(key) == "mine"


@pytest.mark.parametrize("name", ["dolly-v2-3b", "databricks/Dolly-v2-3b", " dolly-v2-3b "])
def test_a_catalogue_model_has_its_key_as_name(store: ModelStore, name: str) -> None:
    assert store.name(name) == "dolly-v2-3b"
    assert store.title("dolly-v2-3b") == "Dolly 2.0 3B"


def test_a_hub_model_has_its_id_as_name(store: ModelStore) -> None:
    assert store.name("https://huggingface.co/Org/Mini") == "Org/Mini" == store.title("Org/Mini")


def test_an_unknown_name_is_unchanged(store: ModelStore) -> None:
    assert store.name(" no such model ") == "no such model" == store.title("no such model")


def test_folders_with_the_same_title_get_unique_titles(store: ModelStore, folder: Path) -> None:
    other = Path(shutil.copytree(folder, folder.parent / "other" / "mine"))
    names = [store.name(str(each)) for each in (folder, other)]
    assert [store.title(name) for name in names] == [f"mine ({name[-8:]})" for name in names]


def test_a_stored_model_keeps_its_name_without_its_folder(
    converted: Callable[[str, Precision], StoredModel], settings: Settings
) -> None:
    stored = converted("llama", Precision.INT8)
    target = settings.models_dir / stored.key / "int8"
    shutil.copytree(stored.folder, target)
    assert ModelStore(settings).title(stored.name) == "llama"
    assert stored.name == stored.key == recorded_name(stored.manifest.source.location)


def test_a_missing_folder_is_not_a_model(store: ModelStore, folder: Path) -> None:
    key = store.name(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(NotAModelError):
        store.resolve(key)


@pytest.mark.parametrize(
    ("model", "source", "name"),
    [
        ("phi-2", "microsoft/phi-2", "phi-2"),
        ("microsoft/phi-2", "", "phi-2"),
        ("Org/Mini", "Org/Mini", "Org/Mini"),
        ("Org--Mini", "Org/Mini", "Org/Mini"),
        ("remote:lab/Org/Mini", "remote:lab", "remote:lab/Org/Mini"),
        ("/home/ada/mini", "", folder_key(Path("/home/ada/mini"))),
        ("mini", "/home/ada/mini", folder_key(Path("/home/ada/mini"))),
        (folder_key(Path("/home/ada/mini")), "", folder_key(Path("/home/ada/mini"))),
    ],
)
def test_records_of_all_versions_have_one_name(model: str, source: str, name: str) -> None:
    assert recorded_name(model, source) == name


def test_a_catalogue_model_has_its_current_title() -> None:
    title = catalogue()["paddock-neox"].title
    assert recorded_title("paddock-neox", "Paddock NeoX (embedded)") == title
    assert "(tiny demo)" in title
    assert recorded_title("mine-00c0ffee", "mine") == "mine"
