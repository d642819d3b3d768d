"""Loads the TOML files of the catalogue, and the rows of ``models.toml``."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from core.catalogue.model import CatalogueModel, Shape
from core.catalogue.shapes import parameter_count, shape_from_config
from core.settings import CHECKOUT

EMBEDDED_DIR = CHECKOUT / "core" / "embedded"
"""Holds one folder per embedded model, named by its key."""


@cache
def catalogue() -> dict[str, CatalogueModel]:
    """Return the rows of all models of the catalogue by key, in the file's order."""
    rows = {key: _fields(key, row) for key, row in _toml()["models"].items()}
    return TypeAdapter(dict[str, CatalogueModel]).validate_python(rows)


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
def read_toml(name: str) -> dict[str, Any]:
    """Return the content of a TOML file of this package."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _toml() -> dict[str, Any]:
    return read_toml("models.toml")


def _fields(key: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the file with what follows from it and from other tables."""
    shape = Shape(**row["shape"]) if "shape" in row else _embedded_shape(key)
    scores = published_scores().get(key, {})
    known_sources, limits = _toml()["sources"], _toml()["known_limits"]
    return row | {
        "key": key,
        "shape": shape,
        "parameters": parameter_count(row["architecture"], shape),
        "sources": [(fact, known_sources[name]) for fact, name in row.get("sources", {}).items()],
        "known_limits": row.get("known_limits") or limits.get(row.get("known_limits_of"), ()),
        "scores": list(scores.items()),
        "scores_source": _toml()["scores"]["source"] if scores else None,
    }


def _embedded_shape(key: str) -> Shape:
    config = EMBEDDED_DIR / key / "config.json"
    return shape_from_config(json.loads(config.read_text(encoding="utf-8")))
