"""Which models a person may name, and which they may make answer."""

from __future__ import annotations

from core.catalogue import catalogue
from core.engine import find_stored
from core.errors import AccessDeniedError
from core.remotes import is_remote, split_name
from core.runtimes.spec import ModelSpec
from core.store import ModelStore
from core.store.for_device import npu_store
from core.store.resolver import check_confined, path_of, recorded_name
from core.ui.widgets.person import Person
from core.ui.widgets.resources import shared_engine


def key_of(store: ModelStore, text: str, someone: Person) -> str:
    """The key for programs of what this person calls a model, or a link does.

    Raises:
        PersonMistake: see :func:`check_name`.
    """
    check_name(store, text, someone)
    name = recorded_name(text.strip())
    if is_remote(name) or name in catalogue() or name in names_on_disk(store):
        return name
    return store.name(text)


def check_name(store: ModelStore, name: str, someone: Person) -> None:
    """
    Raises:
        AccessDeniedError: this person may not name this model; nothing was looked up for it.
        PersonMistake: there is no such remote.
    """
    if is_remote(name):
        # Whoever may use the pages may use the servers that somebody with the right has added.
        shared_engine().remotes.directory.book.get(split_name(name).remote)
        return
    if name in catalogue() or recorded_name(name.strip()) in names_on_disk(store):
        return
    if not someone.access.manage:
        raise AccessDeniedError(
            "This model is neither in the catalogue nor on this machine; somebody with the right "
            "to manage can add it."
        )
    if not someone.local:
        check_confined(path_of(name), store.import_dir)


def check_use(store: ModelStore, spec: ModelSpec, someone: Person) -> None:
    """
    Raises:
        AccessDeniedError: the model would have to be fetched, converted or compressed for its
            device first, which takes the right to manage, and is not done in a kiosk.
        PaddockError: there is no such model.
    """
    check_name(store, spec.model, someone)
    if spec.remote:
        return
    row = catalogue().get(spec.model)
    embedded = row is not None and row.embedded
    if someone.access.manage or (embedded and not someone.access.kiosk):
        return
    if find_stored(store, spec) is not None:
        return
    store.settings.check_not_kiosk()
    stored = store.get(store.resolve(spec.model), spec.precision)
    named = f"{store.title(spec.model)} {spec.precision.phrase}"
    if stored is None:
        raise AccessDeniedError(
            f"{named} is not on this machine yet; somebody with the right to manage can get it on "
            "the Models page."
        )
    raise AccessDeniedError(
        f"{named} is compressed for another device than {spec.device}; somebody with the right to "
        "manage can have it compressed for that one too by asking it there."
    )


def names_on_disk(store: ModelStore) -> list[str]:
    """Keys for programs of the models outside the catalogue that are on disk."""
    return list(
        {
            stored.name: None
            for stored in (*store.list(), *npu_store(store.settings).list())
            if stored.key not in catalogue()
        }
    )
