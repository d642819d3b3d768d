"""The store of a kiosk downloads, converts and deletes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from core.benchmark.random_models import delete_random_weights
from core.catalogue import Precision
from core.errors import AccessDeniedError
from core.settings import Settings
from core.store import (
    ModelStore,
    StoredModel,
    TaskQueue,
    TaskRequest,
    convert_in_process,
    fetch_in_process,
    resolve,
)
from core.store.progress import ignore_progress


@pytest.fixture
def kiosk(settings: Settings) -> Settings:
    return settings.model_copy(update={"kiosk": True})


@pytest.mark.parametrize(
    "change",
    [
        lambda s: ModelStore(s).ensure(resolve("paddock-neox"), Precision.INT8),
        lambda s: ModelStore(s).fetch(resolve("phi-2"), ignore_progress),
        lambda s: ModelStore(s).delete_download("phi-2"),
        lambda s: ModelStore(s).clean_up_all(),
        lambda s: convert_in_process("paddock-neox", Precision.INT8, settings=s),
        lambda s: fetch_in_process("phi-2", settings=s),
        lambda s: TaskQueue(s).submit(TaskRequest("phi-2")),
        delete_random_weights,
    ],
)
def test_nothing_is_changed(kiosk: Settings, change: Callable[[Settings], object]) -> None:
    with pytest.raises(AccessDeniedError, match="in kiosk mode"):
        change(kiosk)
    assert not kiosk.home.exists() or not list(kiosk.home.rglob("*.xml"))


def test_stored_models_are_returned_and_kept(
    kiosk: Settings, converted: Callable[[str, Precision], StoredModel]
) -> None:
    stored = converted("llama", Precision.INT8)
    shutil.copytree(stored.folder, kiosk.models_dir / stored.key / "int8")
    store = ModelStore(kiosk)
    source = store.resolve(stored.key)
    assert convert_in_process(source, Precision.INT8, settings=kiosk).key == stored.key
    (there,) = store.list()
    with pytest.raises(AccessDeniedError):
        store.delete(there)
    assert store.list() == [there]
