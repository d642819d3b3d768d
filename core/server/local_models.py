"""The models of this machine for programs: :class:`core.api.service.ModelService` of an engine."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from core.api.names import ModelName
from core.api.service import Caller, Limits, ModelCard
from core.catalogue import DEFAULT_PRECISION, CatalogueModel, Precision, catalogue, device_int4
from core.catalogue.load import EMBEDDED_DIR
from core.db import Origin
from core.engine import Engine
from core.errors import PaddockError, UnknownModelError
from core.inference.job import Job
from core.inference.request import GenerationRequest
from core.runtimes.sampling import default_sampling
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.store import ModelStore, Source, SourceKind, StoredModel
from core.store.for_device import npu_store

_NPU = "NPU"
_SHOWN = 100
"""Characters of an unknown name that are repeated."""

logger = logging.getLogger(__name__)


class EngineModels:
    """See :class:`core.api.service.ModelService`.

    Programs get what can answer now: what is converted, and the embedded models, which are in
    seconds. Nothing is fetched or compressed for them, and no folder of the machine is looked into.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def limits(self) -> Limits:
        """See :class:`core.api.service.ModelService`."""
        settings = self._engine.settings
        return Limits(settings.max_new_tokens, settings.max_characters)

    def models(self) -> list[ModelCard]:
        """See :class:`core.api.service.ModelService`: the embedded models first, then by name."""
        stored = sorted(_good(self._engine.store), key=lambda each: not _embedded(each))
        there = {(each.key, each.precision) for each in stored}
        embedded = [
            _embedded_card(ModelName(row.key), row)
            for row in catalogue().values()
            if row.embedded and (row.key, DEFAULT_PRECISION) not in there
            if not self._engine.settings.kiosk
        ]
        for_npu = _good(npu_store(self._engine.settings))
        return (
            embedded
            + [_stored_card(ModelName(each.name, each.precision), each) for each in stored]
            + [_stored_card(ModelName(each.name, each.precision, _NPU), each) for each in for_npu]
        )

    def find(self, name: str) -> ModelCard:
        """See :class:`core.api.service.ModelService`."""
        wanted, stored = self._find(name)
        if stored is not None:
            return _stored_card(wanted, stored)
        return _embedded_card(wanted, catalogue()[wanted.model])

    def sampling(self, name: str) -> SamplingSettings:
        """See :class:`core.api.service.ModelService`."""
        try:
            wanted, stored = self._find(name)
        except PaddockError:  # refused when it is to start
            return SamplingSettings()
        return default_sampling(self._engine.store, _spec(wanted, stored).model)

    def start(self, name: str, request: GenerationRequest, caller: Caller) -> Job:
        """See :class:`core.api.service.ModelService`."""
        wanted, stored = self._find(name)
        return self._engine.answer(
            self._engine.handle(_spec(wanted, stored)),
            request,
            origin=Origin.API,
            owner=caller.owner,
            lane=caller.lane,
        )

    def _find(self, name: str) -> tuple[ModelName, StoredModel | None]:
        """
        Raises:
            UnknownModelError: no such model can answer now.
        """
        stored = _good(self._engine.store)
        for_npu = npu_store(self._engine.settings)
        for wanted in _meanings(name):
            int4 = device_int4(wanted.precision, wanted.device)
            for each in stored if int4 is None else (*stored, *_good(for_npu)):
                meant = each.precision is wanted.precision and wanted.model in _names(each)
                if meant and (int4 is None or each.suits(int4)):
                    return wanted, each
            row = catalogue().get(wanted.model)
            if row is not None and row.embedded:
                self._engine.settings.check_not_kiosk()
                return wanted, None
        raise UnknownModelError(
            f"There is no model {name[:_SHOWN]!r} here that can answer now; GET /v1/models lists "
            "those there are, and the Models page gets others."
        )


def _good(store: ModelStore) -> list[StoredModel]:
    """What is stored and need not be made anew first, as where its folder has changed since."""
    good = []
    for each in store.list():
        try:
            if store.get(_source(each), each.precision) is not None:
                good.append(each)
        except (OSError, ValueError, PaddockError) as error:
            logger.warning("%s is passed over, since it cannot be read: %s", each.folder, error)
    return good


def _meanings(name: str) -> Iterator[ModelName]:
    """A name may be a model's own as it is, whatever stands in it.

    One with nothing behind it means a GGUF model as it is stored where there is no INT8.
    """
    yield ModelName(name)
    yield ModelName(name, Precision.STORED)
    yield ModelName.parse(name)


def _spec(wanted: ModelName, stored: StoredModel | None) -> ModelSpec:
    model = stored.name if stored is not None else wanted.model
    return ModelSpec(model, wanted.precision, wanted.device, wanted.runtime)


def _names(stored: StoredModel) -> set[str]:
    source = stored.manifest.source
    hub = {source.location} if source.kind == SourceKind.HUB else set()
    return {stored.key} | hub


def _embedded(stored: StoredModel) -> bool:
    row = catalogue().get(stored.key)
    return row is not None and row.embedded


def _source(stored: StoredModel) -> Source:
    """What it was made from, not looked for."""
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
