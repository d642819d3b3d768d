"""Loads ``models.toml``."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from core.catalogue.model import (
    CatalogueModel,
    Int4Settings,
    PackageFile,
    RecommendedSampling,
    Shape,
)
from core.catalogue.precision import Precision
from core.catalogue.shapes import parameter_count, shape_from_config
from core.errors import UnknownModelError
from core.settings import CHECKOUT

EMBEDDED_DIR = CHECKOUT / "core" / "embedded"
"""Holds one folder per embedded model, named by its key."""


@cache
def catalogue() -> dict[str, CatalogueModel]:
    """Return the rows of all models of the catalogue by key, in the file's order."""
    return {key: _row(key, row) for key, row in _toml()["models"].items()}


def find(key: str) -> CatalogueModel:
    """Return the row of that key.

    Raises:
        UnknownModelError: there is none; the message lists the keys.
    """
    rows = catalogue()
    if key not in rows:
        raise UnknownModelError(
            f"There is no model {key!r} in the catalogue; choose one of {', '.join(rows)}."
        )
    return rows[key]


@cache
def default_int4() -> Int4Settings:
    """Return the INT4 settings of a model that is not in the catalogue."""
    return Int4Settings(**_toml()["int4"]["default"])


@cache
def npu_int4() -> Int4Settings:
    """Return the INT4 settings of any model that runs on an NPU."""
    return Int4Settings(**_toml()["int4"]["npu"])


def device_int4(precision: Precision, device: str) -> Int4Settings | None:
    """Return the INT4 settings that a device requires.

    Returns:
        None for another precision, and for devices that run the model's own INT4 settings.
    """
    required = precision is Precision.INT4 and device.upper().startswith("NPU")
    return npu_int4() if required else None


@cache
def benchmark_shapes() -> dict[str, tuple[str, Shape]]:
    """Return shapes without weights for benchmarks: name to (architecture, shape)."""
    return {
        name: (row["architecture"], Shape(**row["shape"]))
        for name, row in _toml()["shapes"].items()
    }


@cache
def published_scores() -> dict[str, dict[str, float]]:
    """Return the score table of Dolly's model card: model to {task: accuracy from 0 to 1}."""
    table = _toml()["scores"]
    return {
        name: dict(zip(table["tasks"], values, strict=True))
        for name, values in table["models"].items()
    }


@cache
def _toml() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))


def _row(key: str, row: dict[str, Any]) -> CatalogueModel:
    shape = Shape(**row["shape"]) if "shape" in row else _embedded_shape(key)
    limits = row.get("known_limits") or _toml()["known_limits"].get(row.get("known_limits_of"), ())
    scores = published_scores().get(key, {})
    return CatalogueModel(
        key=key,
        title=row["title"],
        architecture=row["architecture"],
        hub_id=row.get("hub_id"),
        prompt_format=row["prompt_format"],
        shape=shape,
        parameters=parameter_count(row["architecture"], shape),
        licence=row["licence"],
        licence_note=row["licence_note"],
        gated=row.get("gated", False),
        int4=Int4Settings(**row["int4"]),
        summary=row["summary"],
        known_limits=tuple(limits),
        scores=tuple(scores.items()),
        scores_source=_toml()["scores"]["source"] if scores else None,
        sampling=RecommendedSampling(**row["sampling"]) if "sampling" in row else None,
        package=PackageFile(**row["package"]) if "package" in row else None,
    )


def _embedded_shape(key: str) -> Shape:
    config = EMBEDDED_DIR / key / "config.json"
    return shape_from_config(json.loads(config.read_text(encoding="utf-8")))
