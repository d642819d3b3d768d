"""Default sampling settings of a model."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.catalogue import Precision, catalogue
from core.errors import PaddockError
from core.runtimes.spec import TEMPERATURE_RANGE, TOP_K_RANGE, TOP_P_RANGE, SamplingSettings
from core.store import ModelStore
from core.store.weights_source import original_folder

_FILE = "generation_config.json"


def default_sampling(store: ModelStore, model: str) -> SamplingSettings:
    """Return the default sampling settings of a model.

    These are the recommendation of its model card, if its catalogue row has one; else those of its
    ``generation_config.json``, if it is on disk; else the defaults of :class:`SamplingSettings`.

    Args:
        store: the model store.
        model: key or any other name of the model; unknown and remote models get the defaults.
    """
    defaults = SamplingSettings()
    row = catalogue().get(model)
    if row is not None and row.sampling is not None:
        card = {name: value for name, value in vars(row.sampling).items() if value is not None}
        return replace(defaults, **card)
    for path in _files(store, model):
        try:
            return _from_file(path, path.stat().st_mtime_ns)
        except (OSError, ValueError):  # missing, or not JSON: try the next one
            continue
    return defaults


def _files(store: ModelStore, model: str) -> list[Path]:
    """Return the paths where the file may be: in stored models, or in the original checkpoint."""
    try:
        source = store.resolve(model)
        stored = [store.get(source, precision) for precision in Precision]
        folders = [each.folder for each in stored if each is not None]
        original = original_folder(source, store.settings)
    except PaddockError:
        return []
    return [folder / _FILE for folder in (*folders, *([original] if original else []))]


@lru_cache(maxsize=64)
def _from_file(path: Path, _mtime_ns: int) -> SamplingSettings:
    """
    Args:
        _mtime_ns: modification time; part of the cache key.

    Raises:
        OSError, ValueError: the file cannot be read, or is not a JSON object.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object")
    defaults = SamplingSettings()
    temperature = _number(found, "temperature", defaults.temperature)
    if found.get("do_sample") is False or temperature < TEMPERATURE_RANGE[0]:
        return replace(defaults, greedy=True)
    top_p, top_k = _number(found, "top_p", defaults.top_p), _number(found, "top_k", defaults.top_k)
    return replace(
        defaults,
        temperature=min(temperature, TEMPERATURE_RANGE[1]),
        top_p=min(max(top_p, TOP_P_RANGE[0]), TOP_P_RANGE[1]),
        top_k=min(max(int(top_k), TOP_K_RANGE[0]), TOP_K_RANGE[1]),
    )


def _number(found: dict[str, Any], name: str, default: float) -> float:
    value = found.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default
