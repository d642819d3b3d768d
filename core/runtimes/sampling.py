"""The sampling settings that a model begins with, before a person or a program chooses others."""

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
    """What the model's card recommends, as its row in the catalogue has it; else what its
    ``generation_config.json`` says, where that is on disk; else Dolly's settings.

    Args:
        store: where the model may lie.
        model: key for programs, or what else is resolved to it; one that is not known, or runs on
            a server elsewhere, gets Dolly's.
    """
    usual = SamplingSettings()
    row = catalogue().get(model)
    if row is not None and row.sampling is not None:
        advice = row.sampling
        return replace(
            usual,
            temperature=usual.temperature if advice.temperature is None else advice.temperature,
            top_p=usual.top_p if advice.top_p is None else advice.top_p,
        )
    for path in _files(store, model):
        try:
            return _of_file(path, path.stat().st_mtime_ns)
        except (OSError, ValueError):  # not there, or no JSON: the next one
            continue
    return usual


def _files(store: ModelStore, model: str) -> list[Path]:
    """Where the file may lie: beside a stored model, or in the original's folder."""
    try:
        source = store.resolve(model)
        stored = [store.get(source, precision) for precision in Precision]
        folders = [each.folder for each in stored if each is not None]
        original = original_folder(source, store.settings)
    except PaddockError:
        return []
    return [folder / _FILE for folder in (*folders, *([original] if original else []))]


@lru_cache(maxsize=64)
def _of_file(path: Path, _mtime_ns: int) -> SamplingSettings:
    """
    Raises:
        OSError, ValueError: the file cannot be read, or is no JSON object.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object")
    usual = SamplingSettings()
    temperature = _number(found, "temperature", usual.temperature)
    if found.get("do_sample") is False or temperature < TEMPERATURE_RANGE[0]:
        return replace(usual, greedy=True)
    return replace(
        usual,
        temperature=min(temperature, TEMPERATURE_RANGE[1]),
        top_p=min(max(_number(found, "top_p", usual.top_p), TOP_P_RANGE[0]), TOP_P_RANGE[1]),
        top_k=min(max(int(_number(found, "top_k", usual.top_k)), TOP_K_RANGE[0]), TOP_K_RANGE[1]),
    )


def _number(found: dict[str, Any], name: str, default: float) -> float:
    value = found.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default
