"""The models of this machine for the API."""

from __future__ import annotations

import logging
from dataclasses import replace

from core.api.service import ModelCard
from core.catalogue import DEFAULT_PRECISION, CatalogueModel, Precision, catalogue
from core.catalogue.load import EMBEDDED_DIR
from core.db import Origin
from core.errors import PaddockError, UnknownModelError
from core.inference.engine import Engine
from core.inference.job import Job
from core.inference.request import GenerationRequest, User
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
        self.settings = engine.settings

    def models(self) -> list[ModelCard]:
        """Return the models that can answer now: demo models first, then by name."""
        stored = sorted(_usable(self._engine.store), key=lambda each: not _embedded(each))
        there = {(each.key, each.precision) for each in stored}
        embedded = [
            _embedded_card(ModelSpec(row.key), row)
            for row in catalogue().values()
            if row.embedded and (row.key, DEFAULT_PRECISION) not in there
            if not self.settings.kiosk
        ]
        return embedded + [_stored_card(_spec(each), each) for each in stored]

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
        model = wanted.model if stored is None else stored.name
        return default_sampling(self._engine.store, model)

    def start(self, name: str, request: GenerationRequest, user: User) -> Job:
        """Start an answer and return immediately."""
        wanted, stored = self._find(name)
        model = wanted.model if stored is None else stored.name
        return self._engine.answer(
            self._engine.handle(replace(wanted, model=model, prefix_cache=True)),
            request,
            origin=Origin.API,
            user=user,
        )

    def _find(self, name: str) -> tuple[ModelSpec, StoredModel | None]:
        """Return the parsed name and the stored model, None for a demo model not yet converted.

        Raises:
            UnknownModelError: no such model can answer now.
        """
        stored = _usable(self._engine.store)
        # A name may itself contain what looks like a suffix; without one, it also means a GGUF
        # model as stored if there is no INT8 version.
        readings = ModelSpec(name), ModelSpec(name, Precision.STORED), ModelSpec.parse(name)
        for wanted in readings:
            precision = wanted.precision.on(wanted.device)
            for each in stored:
                if each.serves(precision) and wanted.model in (each.key, _hub_id(each)):
                    return wanted, each
            row = catalogue().get(wanted.model)
            if row is not None and row.embedded:
                self.settings.check_not_kiosk()
                return wanted, None
        raise UnknownModelError(
            f"The model {name[:_SHOWN]!r} is not on this machine. Choose one of GET /v1/models, or "
            "download it on the Models page."
        )


def _usable(store: ModelStore) -> list[StoredModel]:
    """Return the stored models that need no new conversion because their source has changed."""
    usable = []
    for each in store.list():
        recorded = each.manifest.source
        try:
            kind, row = SourceKind(recorded.kind), catalogue().get(each.key)
            # The recorded source, without checking that it still exists.
            source = Source(each.key, kind, recorded.location, row, each.title)
            if store.get(source, each.precision) is not None:
                usable.append(each)
        except (OSError, ValueError, PaddockError) as error:
            logger.warning("%s is not listed because it cannot be read: %s", each.folder, error)
    return usable


def _spec(stored: StoredModel) -> ModelSpec:
    if stored.precision is Precision.INT4_NPU:
        return ModelSpec(stored.name, Precision.INT4, _NPU)
    return ModelSpec(stored.name, stored.precision)


def _hub_id(stored: StoredModel) -> str | None:
    source = stored.manifest.source
    return source.location if source.kind == SourceKind.HUB else None


def _embedded(stored: StoredModel) -> bool:
    row = catalogue().get(stored.key)
    return row is not None and row.embedded


def _stored_card(spec: ModelSpec, stored: StoredModel) -> ModelCard:
    manifest = stored.manifest
    owner = (_hub_id(stored) or "local").partition("/")[0]
    return ModelCard(
        id=spec.name,
        title=stored.title,
        created=int(manifest.created.timestamp()),
        owned_by="paddock" if _embedded(stored) else owner,
        positions=manifest.positions,
    )


def _embedded_card(spec: ModelSpec, row: CatalogueModel) -> ModelCard:
    weights = EMBEDDED_DIR / row.key / "model.safetensors"
    return ModelCard(
        id=spec.name,
        title=row.title,
        created=int(weights.stat().st_mtime),
        owned_by="paddock",
        positions=row.shape.positions,
    )
