"""A finished model in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.catalogue import Precision
from core.store.manifest import Manifest


@dataclass(frozen=True)
class StoredModel:
    """A converted model that lies complete on disk."""

    key: str
    precision: Precision
    folder: Path
    manifest: Manifest
