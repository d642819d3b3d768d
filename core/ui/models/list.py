"""Models listed on the Models page: those of the catalogue, on disk, and added in this session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import streamlit as st

from core.benchmark.decode_rate import DecodeRates
from core.catalogue import DEFAULT_PRECISION, CatalogueModel, Precision, catalogue
from core.errors import PaddockError
from core.inference.engine import Engine
from core.store import Source, SourceKind, StoredModel
from core.store.estimate import Estimate, estimate
from core.store.gguf.summary import GgufSummary, summary
from core.store.resolver import package_file
from core.store.weights_source import find_origin, original_folder

if TYPE_CHECKING:
    from core.catalogue import Int4Settings
    from core.store.hub import HubModel


_FAMILIES = {
    "gemma3_text": "Gemma 3",
    "gpt_neox": "GPT-NeoX",
    "gpt_oss": "gpt-oss",
    "granite": "Granite",
    "llama": "Llama",
    "mistral": "Mistral",
    "phi": "Phi",
    "phi3": "Phi-3",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
}
"""Display names of architectures."""

_LARGEST_FIRST = (Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT4, Precision.STORED)


def fitting(plans: Mapping[Precision, Estimate | PaddockError]) -> list[Precision]:
    """Return the precisions that can be made on this machine."""
    return [
        precision
        for precision, plan in plans.items()
        if isinstance(plan, Estimate) and plan.problem is None
    ]


def family(architecture: str) -> str:
    """Return the display name of an architecture."""
    return _FAMILIES.get(architecture, architecture)


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
        """Return a summary of the GGUF file; None if the model is not a GGUF file, or one on the
        hub that was not looked up."""
        try:
            source = engine.store.resolve(self.name)
            path = original_folder(source, engine.settings) if source.is_gguf else None
            return summary(path) if path is not None else self.hub and self.hub.gguf
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

    def decode_rate(self, engine: Engine, rates: DecodeRates, precision: Precision) -> float | None:
        """Return the expected decode rate in tokens/s, or None if the model's size is unknown."""
        try:
            source = engine.store.resolve(self.name)
            origin = find_origin(source, precision, engine.settings, self.hub)
        except PaddockError:
            return None
        int4 = source.int4_settings(precision, origin.parameters)
        return rates.expected(origin, precision, int4)

    def plans(self, engine: Engine) -> dict[Precision, Estimate | PaddockError]:
        """Return :meth:`estimate` of the precisions that differ in size, the largest first."""
        return {each: self.estimate(engine, each) for each in _LARGEST_FIRST}

    @property
    def usual(self) -> StoredModel | None:
        """The precision on disk that is used unless another one is chosen."""
        stored = self.get(Precision.STORED) or self.get(DEFAULT_PRECISION)
        return stored or next(iter(self.stored), None)

    @property
    def architecture(self) -> str | None:
        """``model_type`` of ``config.json``; None if it is not known."""
        if self.row is not None:
            return self.row.architecture
        if self.stored:
            return self.stored[0].manifest.architecture
        if self.hub is None:
            return None
        gguf = self.hub.gguf
        return gguf.architecture if gguf else (self.hub.config or {}).get("model_type")

    @property
    def parameters(self) -> int | None:
        """Number of parameters; None if it is not known."""
        if self.row is not None:
            return self.row.parameters
        return self.stored[0].manifest.parameters if self.stored else None

    @property
    def gated(self) -> bool | None:
        """Whether its licence must be accepted on the Hub first; None if it is not known."""
        if self.row is not None:
            return self.row.gated
        return self.hub.gated if self.hub is not None else None

    @property
    def words(self) -> str:
        """The text to search in."""
        architecture = self.architecture or ""
        known = [self.key, self.name, self.title, architecture, family(architecture)]
        if self.row is not None:
            known += [self.row.licence, self.row.hub_id or "embedded"]
        return " ".join(known)


OPEN = "open"
"""Session state key and URL parameter: key of the model whose details are shown."""


def open_model(key: str) -> None:
    """Show the details of a model in the next run."""
    st.session_state[OPEN] = key


def added() -> dict[str, ListedModel]:
    """Return the models added in this session by key, the most recent first."""
    return st.session_state.setdefault("added_models", {})


def add_model(source: Source, hub: HubModel | None) -> None:
    """Add a model, or update it and move it to the front."""
    model = ListedModel(source.key, source.name, source.title, source.model, hub=hub)
    others = {key: each for key, each in added().items() if key != source.key}
    st.session_state["added_models"] = {source.key: model} | others


def all_models(engine: Engine) -> list[ListedModel]:
    """Return the models outside the catalogue, those added in this session first, then those of the
    catalogue, the tiny demos last."""
    on_disk: dict[str, tuple[StoredModel, ...]] = {}
    for stored in engine.store.list():
        on_disk[stored.key] = (*on_disk.get(stored.key, ()), stored)
    own = {key: model for key, model in added().items() if model.row is None}
    for key, here in on_disk.items():
        if key not in own and key not in catalogue():
            own[key] = ListedModel(key, here[0].name, "", None)
    rows = sorted(catalogue().items(), key=lambda item: item[1].embedded)
    listed = [replace(each, title=engine.store.title(each.name)) for each in own.values()]
    listed += [ListedModel(key, key, row.title, row) for key, row in rows]
    return [replace(each, stored=on_disk.get(each.key, ())) for each in listed]


def of_hub(model: ListedModel) -> bool:
    """Return whether the original weights are on the Hugging Face Hub."""
    if model.row is not None:
        return not model.row.embedded and package_file(model.row) is None
    if model.hub is not None:
        return True
    return bool(model.stored) and model.stored[0].manifest.source.kind == SourceKind.HUB
