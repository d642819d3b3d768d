"""The models of this machine for the API."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from core.api.names import ModelName
from core.api.service import Caller, Limits, ModelCard
from core.catalogue import DEFAULT_PRECISION, CatalogueModel, Precision, catalogue
from core.catalogue.load import EMBEDDED_DIR
from core.db import Origin
from core.errors import PaddockError, UnknownModelError
from core.inference.engine import Engine, User
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.sampling import default_sampling
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.store import ModelStore, Source, SourceKind, StoredModel

_NPU = "NPU"
_SHOWN = 100
"""Characters of an unknown name that are quoted in an error."""

logger = logging.getLogger(__name__)


class EngineModels:
    """A :class:`core.api.service.ModelService` for the models of an engine.

    API requests can use the models that can answer now: converted models, and the demo models,
    whose conversion takes seconds. Nothing is downloaded or compressed for a request, and no other
    folder of the machine is read.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def limits(self) -> Limits:
        """Limits of a request, from the settings."""
        settings = self._engine.settings
        return Limits(settings.max_new_tokens, settings.max_characters)

    def models(self) -> list[ModelCard]:
        """Return the models that can answer now: demo models first, then by name."""
        stored = sorted(_usable(self._engine.store), key=lambda each: not _embedded(each))
        there = {(each.key, each.precision) for each in stored}
        embedded = [
            _embedded_card(ModelName(row.key), row)
            for row in catalogue().values()
            if row.embedded and (row.key, DEFAULT_PRECISION) not in there
            if not self._engine.settings.kiosk
        ]
        return embedded + [_stored_card(_name(each), each) for each in stored]

    def find(self, name: str) -> ModelCard:
        """Return the model with this name."""
        wanted, stored = self._find(name)
        if stored is not None:
            return _stored_card(wanted, stored)
        return _embedded_card(wanted, catalogue()[wanted.model])

    def sampling(self, name: str) -> SamplingSettings:
        """Return the model's default sampling settings."""
        try:
            wanted, stored = self._find(name)
        except PaddockError:  # raised again by start
            return SamplingSettings()
        return default_sampling(self._engine.store, _spec(wanted, stored).model)

    def start(self, name: str, request: GenerationRequest, caller: Caller) -> Job:
        """Start an answer and return immediately."""
        wanted, stored = self._find(name)
        return self._engine.answer(
            self._engine.handle(replace(_spec(wanted, stored), prefix_cache=True)),
            request,
            origin=Origin.API,
            user=User(caller.owner, caller.lane),
        )

    def _find(self, name: str) -> tuple[ModelName, StoredModel | None]:
        """Return the parsed name and the stored model, None for a demo model not yet converted.

        Raises:
            UnknownModelError: no such model can answer now.
        """
        stored = _usable(self._engine.store)
        for wanted in _interpretations(name):
            precision = wanted.precision.on(wanted.device)
            for each in stored:
                if each.serves(precision) and wanted.model in _names(each):
                    return wanted, each
            row = catalogue().get(wanted.model)
            if row is not None and row.embedded:
                self._engine.settings.check_not_kiosk()
                return wanted, None
        raise UnknownModelError(
            f"The model {name[:_SHOWN]!r} is not on this machine. Choose one of GET /v1/models, or "
            "download it on the Models page."
        )


def _usable(store: ModelStore) -> list[StoredModel]:
    """Return the stored models that need no new conversion because their source has changed."""
    usable = []
    for each in store.list():
        try:
            if store.get(_source(each), each.precision) is not None:
                usable.append(each)
        except (OSError, ValueError, PaddockError) as error:
            logger.warning("%s is not listed because it cannot be read: %s", each.folder, error)
    return usable


def _interpretations(name: str) -> Iterator[ModelName]:
    """Yield the ways to read a name, which may itself contain what looks like a suffix.

    Without a suffix, it also means a GGUF model as stored if there is no INT8 version.
    """
    yield ModelName(name)
    yield ModelName(name, Precision.STORED)
    yield ModelName.parse(name)


def _spec(wanted: ModelName, stored: StoredModel | None) -> ModelSpec:
    model = stored.name if stored is not None else wanted.model
    return ModelSpec(model, wanted.precision, wanted.device, wanted.runtime)


def _name(stored: StoredModel) -> ModelName:
    if stored.precision is Precision.INT4_NPU:
        return ModelName(stored.name, Precision.INT4, _NPU)
    return ModelName(stored.name, stored.precision)


def _names(stored: StoredModel) -> set[str]:
    source = stored.manifest.source
    hub = {source.location} if source.kind == SourceKind.HUB else set()
    return {stored.key} | hub


def _embedded(stored: StoredModel) -> bool:
    row = catalogue().get(stored.key)
    return row is not None and row.embedded


def _source(stored: StoredModel) -> Source:
    """Return the recorded source, without checking that it still exists."""
    source = stored.manifest.source
    kind = SourceKind(source.kind)
    row = catalogue().get(stored.key)
    return Source(stored.key, kind, source.location, row, stored.title)


def _stored_card(name: ModelName, stored: StoredModel) -> ModelCard:
    manifest = stored.manifest
    hub = manifest.source.kind == SourceKind.HUB
    owner = manifest.source.location.partition("/")[0] if hub else "local"
    return ModelCard(
        id=str(name),
        title=stored.title,
        created=int(manifest.created.timestamp()),
        owned_by="paddock" if _embedded(stored) else owner,
        positions=manifest.positions,
    )


def _embedded_card(name: ModelName, row: CatalogueModel) -> ModelCard:
    weights = EMBEDDED_DIR / row.key / "model.safetensors"
    return ModelCard(
        id=str(name),
        title=row.title,
        created=int(weights.stat().st_mtime),
        owned_by="paddock",
        positions=row.shape.positions,
    )
