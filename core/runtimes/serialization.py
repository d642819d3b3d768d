"""JSON serialization of values between this process and its child processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from core.catalogue import Precision
from core.hardware.devices import ProcessMemory
from core.runtimes.base import Conditions
from core.runtimes.spec import (
    ExecutionHints,
    GenAIOptions,
    ModelSpec,
    RuntimeName,
    SamplingSettings,
    Speculation,
    SpeculationMode,
    Structure,
    TokenRequest,
)


def spec_to_json(spec: ModelSpec) -> dict[str, Any]:
    """Return a spec as JSON."""
    return {
        "model": spec.model,
        "precision": spec.precision.value,
        "device": spec.device,
        "runtime": spec.runtime.value,
        "hints": asdict(spec.hints) if spec.hints else None,
        "prefix_cache": spec.prefix_cache,
    }


def spec_from_json(plain: Mapping[str, Any]) -> ModelSpec:
    """Return the spec that :func:`spec_to_json` wrote."""
    return ModelSpec(
        model=plain["model"],
        precision=Precision(plain["precision"]),
        device=plain["device"],
        runtime=RuntimeName(plain["runtime"]),
        hints=ExecutionHints(**plain["hints"]) if plain["hints"] else None,
        prefix_cache=plain["prefix_cache"],
    )


def request_to_json(request: TokenRequest) -> dict[str, Any]:
    """Return a request as JSON."""
    return {
        "prompt_ids": list(request.prompt_ids),
        "sampling": asdict(request.sampling),
        "stop_ids": sorted(request.stop_ids),
        "options": asdict(request.options),
        "echo": request.echo,
        "speculation": asdict(request.speculation),
    }


def request_from_json(plain: Mapping[str, Any]) -> TokenRequest:
    """Return the request that :func:`request_to_json` wrote."""
    options = dict(plain["options"])
    options["stop_token_ids"] = tuple(options["stop_token_ids"])
    if options["structure"] is not None:
        options["structure"] = Structure(**options["structure"])
    return TokenRequest(
        tuple(plain["prompt_ids"]),
        SamplingSettings(**plain["sampling"]),
        frozenset(plain["stop_ids"]),
        GenAIOptions(**options),
        plain["echo"],
        speculation_from_json(plain["speculation"]),
    )


def speculation_from_json(plain: Mapping[str, Any]) -> Speculation:
    """Return the setting that :func:`dataclasses.asdict` wrote."""
    return Speculation(**{**plain, "mode": SpeculationMode(plain["mode"])})


def conditions_from_json(plain: Mapping[str, Any]) -> Conditions:
    """Return the conditions that :func:`dataclasses.asdict` wrote."""
    return Conditions(**{**plain, "devices_used": tuple(plain["devices_used"])})


def memory_from_json(plain: Mapping[str, Any]) -> ProcessMemory:
    """Return the memory that :func:`dataclasses.asdict` wrote."""
    return ProcessMemory(**plain)
