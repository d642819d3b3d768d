"""Catalogue of known models: prompt format, stop rule, licence, scores, INT4 settings."""

from core.catalogue.load import (
    EMBEDDED_DIR,
    benchmark_shapes,
    catalogue,
    default_int4,
    device_int4,
    find,
    npu_int4,
    published_scores,
)
from core.catalogue.model import (
    CatalogueModel,
    Int4Settings,
    Int8Settings,
    PackageFile,
    RecommendedSampling,
    Shape,
)
from core.catalogue.precision import CONVERTED_PRECISIONS, DEFAULT_PRECISION, Precision

__all__ = [
    "CONVERTED_PRECISIONS",
    "DEFAULT_PRECISION",
    "EMBEDDED_DIR",
    "CatalogueModel",
    "Int4Settings",
    "Int8Settings",
    "PackageFile",
    "Precision",
    "RecommendedSampling",
    "Shape",
    "benchmark_shapes",
    "catalogue",
    "default_int4",
    "device_int4",
    "find",
    "npu_int4",
    "published_scores",
]
