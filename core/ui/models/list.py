"""Models listed on the Models page: those of the catalogue, on disk, and added in this session."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core.catalogue import CatalogueModel, Precision, catalogue
from core.errors import PaddockError
from core.inference.engine import Engine
from core.store import Source, SourceKind, StoredModel
from core.store.estimate import Estimate, estimate
from core.store.gguf.reader import GgufSummary, summary
from core.store.resolver import package_file
from core.ui.models.filter import Candidate, family, of_row

if TYPE_CHECKING:
    from core.catalogue import Int4Settings
    from core.store.hub import HubModel


@dataclass(frozen=True)
class ListedModel:
    """A model listed on the page."""

    key: str
    name: str
    """Key for programs, such as in the API and on the command line."""
    title: str
    row: CatalogueModel | None
    stored: tuple[StoredModel, ...] = ()
    """Precisions on disk."""
    hub: HubModel | None = field(default=None, repr=False)
    """Details from the Hugging Face Hub for models outside the catalogue, if looked up in this
    session."""

    def get(self, precision: Precision) -> StoredModel | None:
        """Return the stored model in this precision, or None."""
        return next((each for each in self.stored if each.precision is precision), None)

    def gguf(self, engine: Engine) -> GgufSummary | None:
        """Return a summary of the GGUF file; None if the model is not a GGUF file."""
        try:
            source = engine.store.resolve(self.name)
            return summary(Path(source.location)) if source.kind is SourceKind.GGUF else None
        except PaddockError:
            return None

    def estimate(
        self, engine: Engine, precision: Precision, int4: Int4Settings | None = None
    ) -> Estimate | PaddockError:
        """Return the requirements in this precision, or the error if it is not available."""
        try:
            source = engine.store.resolve(self.name)
            return estimate(source, precision, engine.settings, int4=int4, hub=self.hub)
        except PaddockError as error:
            return error

    def fits(self, engine: Engine) -> bool:
        """Return whether any precision is on disk or can be converted on this machine."""
        return bool(self.stored) or any(
            isinstance(each, Estimate) and each.problem is None
            for each in (self.estimate(engine, precision) for precision in Precision)
        )

    def candidate(self, *, fits: bool) -> Candidate:
        """Return the properties used by the filter."""
        if self.row is not None:
            return of_row(self.row, on_disk=bool(self.stored), fits=fits)
        manifest = self.stored[0].manifest if self.stored else None
        config = (self.hub.config or {}) if self.hub else {}
        architecture = manifest.architecture if manifest else config.get("model_type")
        return Candidate(
            words=f"{self.key} {self.name} {self.title} {architecture} {family(str(architecture))}",
            architecture=architecture,
            parameters=manifest.parameters if manifest else None,
            licence=None,
            gated=self.hub.gated if self.hub else None,
            on_disk=bool(self.stored),
            fits=fits,
        )


@dataclass
class Added:
    """Models added in this session; a plain object in the session state."""

    models: dict[str, ListedModel] = field(default_factory=dict)
    """By key, the most recent first."""

    def put(self, source: Source, hub: HubModel | None) -> ListedModel:
        """Add a model, or update it and move it to the front."""
        model = ListedModel(source.key, source.name, source.title, source.model, hub=hub)
        self.models = {source.key: model} | self.models
        self.models[source.key] = model
        return model


def added() -> Added:
    """Return the models added in this session."""
    if "added_models" not in st.session_state:
        st.session_state["added_models"] = Added()
    return st.session_state["added_models"]


def own_models(engine: Engine) -> list[ListedModel]:
    """Return models outside the catalogue: added in this session first, then those on disk."""
    on_disk = _by_key(engine)
    found: dict[str, ListedModel] = {}
    for key, model in added().models.items():
        if model.row is None:
            title = engine.store.title(model.name)
            found[key] = ListedModel(key, model.name, title, None, on_disk.get(key, ()), model.hub)
    for key, stored in on_disk.items():
        if key not in found and key not in catalogue():
            title = engine.store.title(stored[0].name)
            found[key] = ListedModel(key, stored[0].name, title, None, stored)
    return list(found.values())


def catalogue_models(engine: Engine) -> list[ListedModel]:
    """Return all catalogue models with their precisions on disk; the tiny demos are last."""
    on_disk = _by_key(engine)
    rows = sorted(catalogue().items(), key=lambda item: item[1].embedded)
    return [ListedModel(key, key, row.title, row, on_disk.get(key, ())) for key, row in rows]


def of_hub(model: ListedModel) -> bool:
    """Return whether the original weights are on the Hugging Face Hub."""
    if model.row is not None:
        return not model.row.embedded and package_file(model.row) is None
    if model.hub is not None:
        return True
    return bool(model.stored) and model.stored[0].manifest.source.kind == SourceKind.HUB


def _by_key(engine: Engine) -> dict[str, tuple[StoredModel, ...]]:
    found: dict[str, tuple[StoredModel, ...]] = {}
    for stored in engine.store.list():
        found[stored.key] = (*found.get(stored.key, ()), stored)
    return found
