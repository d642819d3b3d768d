"""Access checks: which models a user may look up, and which they may run."""

from __future__ import annotations

from core.catalogue import catalogue
from core.errors import AccessDeniedError
from core.inference.engine import find_stored
from core.remotes import is_remote, split_name
from core.runtimes.spec import ModelSpec
from core.store import ModelStore
from core.store.resolver import check_confined, path_of, recorded_name
from core.ui.widgets.person import Person
from core.ui.widgets.resources import shared_engine


def key_of(store: ModelStore, text: str, user: Person) -> str:
    """Return the model key for a name that this user entered or that is in a link."""
    check_name(store, text, user)
    name = recorded_name(text.strip())
    if is_remote(name) or name in catalogue() or name in names_on_disk(store):
        return name
    return store.name(text)


def check_name(store: ModelStore, name: str, user: Person) -> None:
    """Check that this user may look up this model.

    Raises:
        AccessDeniedError: They may not; nothing was looked up.
        UserError: There is no such remote server.
    """
    if is_remote(name):
        # All users of the pages may use all remote servers.
        shared_engine().remotes.directory.book.get(split_name(name).remote)
        return
    if name in catalogue() or recorded_name(name.strip()) in names_on_disk(store):
        return
    if not user.access.manage:
        raise AccessDeniedError(
            "This model is neither in the catalogue nor on this machine. Ask a user with the "
            "Manage permission to add it."
        )
    if not user.local:
        check_confined(path_of(name), store.settings.import_dir)


def check_use(store: ModelStore, spec: ModelSpec, user: Person) -> None:
    """Check that this user may run this model.

    Raises:
        AccessDeniedError: The model would have to be downloaded, converted or compressed for the
            device first, which requires the Manage permission and is not possible in a kiosk.
        PaddockError: There is no such model.
    """
    check_name(store, spec.model, user)
    if spec.remote:
        return
    row = catalogue().get(spec.model)
    embedded = row is not None and row.embedded
    if user.access.manage or (embedded and not user.access.kiosk):
        return
    if find_stored(store, spec) is not None:
        return
    store.settings.check_not_kiosk()
    stored = store.get(store.resolve(spec.model), spec.precision)
    named = f"{store.title(spec.model)} {spec.precision.phrase}"
    if stored is None:
        raise AccessDeniedError(
            f"{named} is not on this machine yet. Ask a user with the Manage permission to "
            "download it on the Models page."
        )
    raise AccessDeniedError(
        f"{named} is compressed for another device than {spec.device}. Ask a user with the Manage "
        f"permission to run it on {spec.device} once, which compresses it for that device."
    )


def names_on_disk(store: ModelStore) -> list[str]:
    """Return the keys of the models on disk that are not in the catalogue."""
    return list({each.name: None for each in store.list() if each.key not in catalogue()})
