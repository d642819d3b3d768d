"""Catalogue of known models: prompt format, licence, shape, sampling, scores, INT4 settings."""

# ruff: noqa: F401  names for other packages

from core.catalogue.load import EMBEDDED_DIR, benchmark_shapes, catalogue, published_scores
from core.catalogue.model import (
    CatalogueModel,
    Compression,
    Int4Settings,
    Int8Settings,
    PackageFile,
    RecommendedSampling,
    Shape,
    Thinking,
)
from core.catalogue.precision import (
    CONVERTED_PRECISIONS,
    DEFAULT_PRECISION,
    INT4_RECIPES,
    MAIN_PRECISIONS,
    Precision,
)
from core.catalogue.recipes import int4_settings, npu_int4
