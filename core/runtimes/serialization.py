"""What a process and those it starts to run models have in common: values as JSON, and signs of
trouble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import core.errors
from core.catalogue import Precision
from core.errors import GenerationError, PaddockError
from core.hardware.devices import ProcessMemory
from core.runtimes.base import Conditions
from core.runtimes.spec import (
    ExecutionHints,
    ModelSpec,
    RuntimeName,
    SamplingSettings,
    TokenRequest,
)

OUT_OF_MEMORY_SIGNS = (
    "bad_alloc",
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "memoryerror",
    "can't start new thread",
)
"""In lower case, what libraries say or leave behind when an allocation failed; the last is
Python's when there is no room for a thread's stack."""


def plain_spec(spec: ModelSpec) -> dict[str, Any]:
    """A spec as JSON."""
    return {
        "model": spec.model,
        "precision": spec.precision.value,
        "device": spec.device,
        "runtime": spec.runtime.value,
        "hints": asdict(spec.hints) if spec.hints else None,
    }


def loaded_spec(plain: Mapping[str, Any]) -> ModelSpec:
    """The spec that :func:`plain_spec` wrote."""
    return ModelSpec(
        model=plain["model"],
        precision=Precision(plain["precision"]),
        device=plain["device"],
        runtime=RuntimeName(plain["runtime"]),
        hints=ExecutionHints(**plain["hints"]) if plain["hints"] else None,
    )


def plain_request(request: TokenRequest) -> dict[str, Any]:
    """A request as JSON."""
    return {
        "prompt_ids": list(request.prompt_ids),
        "sampling": asdict(request.sampling),
        "stop_ids": sorted(request.stop_ids),
    }


def loaded_request(plain: Mapping[str, Any]) -> TokenRequest:
    """The request that :func:`plain_request` wrote."""
    return TokenRequest(
        tuple(plain["prompt_ids"]),
        SamplingSettings(**plain["sampling"]),
        frozenset(plain["stop_ids"]),
    )


def loaded_conditions(plain: Mapping[str, Any]) -> Conditions:
    """The conditions that :func:`dataclasses.asdict` wrote."""
    return Conditions(**{**plain, "devices_used": tuple(plain["devices_used"])})


def loaded_memory(plain: Mapping[str, Any]) -> ProcessMemory:
    """The memory that :func:`dataclasses.asdict` wrote."""
    return ProcessMemory(**plain)


def loaded_error(name: str, message: str) -> PaddockError:
    """The worker's error, in its own class."""
    kind = getattr(core.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, PaddockError):
        return kind(message)
    return GenerationError(message)
