"""Converted models on disk: resolve a name, convert to a precision, verify, delete."""

from core.store.manifest import Manifest
from core.store.process import ConversionCancelled, convert_in_process
from core.store.progress import Progress, Stage
from core.store.sources import Source, SourceKind, resolve
from core.store.store import ModelStore, StoredModel

__all__ = [
    "ConversionCancelled",
    "Manifest",
    "ModelStore",
    "Progress",
    "Source",
    "SourceKind",
    "Stage",
    "StoredModel",
    "convert_in_process",
    "resolve",
]
