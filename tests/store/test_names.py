"""One key and one title for a model, whatever it is called and wherever it was recorded."""

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
    """Folders that other tests of this process named do not make a title ambiguous."""
    monkeypatch.setattr(resolver, "_LOCAL", {})


@pytest.fixture
def folder(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_of("llama"), tmp_path / "mine"))


def test_a_folder_goes_by_its_key_before_anything_of_it_is_stored(
    store: ModelStore, folder: Path
) -> None:
    key = store.name(str(folder))
    assert key == folder_key(folder) and store.name(key) == key
    assert store.resolve(key) == resolve(str(folder))
    assert store.title(key) == "mine"


@pytest.mark.parametrize("name", ["dolly-v2-3b", "databricks/Dolly-v2-3b", " dolly-v2-3b "])
def test_a_row_goes_by_its_key(store: ModelStore, name: str) -> None:
    assert store.name(name) == "dolly-v2-3b"
    assert store.title("dolly-v2-3b") == "Dolly 2.0 3B"


def test_a_model_of_the_hub_goes_by_its_id(store: ModelStore) -> None:
    assert store.name("https://huggingface.co/Org/Mini") == "Org/Mini" == store.title("Org/Mini")


def test_a_name_of_none_stays_as_it_is(store: ModelStore) -> None:
    assert store.name(" no such model ") == "no such model" == store.title("no such model")


def test_folders_of_one_title_are_told_apart(store: ModelStore, folder: Path) -> None:
    other = Path(shutil.copytree(folder, folder.parent / "other" / "mine"))
    names = [store.name(str(each)) for each in (folder, other)]
    assert [store.title(name) for name in names] == [f"mine ({name[-8:]})" for name in names]


def test_what_is_stored_has_its_name_when_the_folder_is_gone(
    converted: Callable[[str, Precision], StoredModel], settings: Settings
) -> None:
    stored = converted("llama", Precision.INT8)
    target = settings.models_dir / stored.key / "int8"
    shutil.copytree(stored.folder, target)
    assert ModelStore(settings).title(stored.name) == "llama"
    assert stored.name == stored.key == recorded_name(stored.manifest.source.location)


def test_a_folder_that_is_gone_is_no_model(store: ModelStore, folder: Path) -> None:
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
def test_records_of_every_version_meet_under_one_name(model: str, source: str, name: str) -> None:
    assert recorded_name(model, source) == name


def test_a_row_is_called_what_it_is_called_today() -> None:
    title = catalogue()["paddock-neox"].title
    assert recorded_title("paddock-neox", "Paddock NeoX (embedded)") == title
    assert "(tiny demo)" in title
    assert recorded_title("mine-00c0ffee", "mine") == "mine"
