"""A finished model in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.catalogue import Int4Settings, Precision
from core.store.manifest import Manifest


@dataclass(frozen=True)
class StoredModel:
    """A converted model that lies complete on disk."""

    key: str
    precision: Precision
    folder: Path
    manifest: Manifest

    @property
    def int4(self) -> Int4Settings | None:
        """How it was compressed to INT4; None in another precision."""
        record = self.manifest.int4
        if record is None:
            return None
        return Int4Settings(
            record.symmetric, record.group_size, record.ratio, record.scale_estimation
        )
