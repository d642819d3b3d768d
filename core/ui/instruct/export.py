"""Export answers as Markdown, to read, and as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from core.hardware.devices import host_facts, library_versions
from core.inference.answer import Answer
from core.inference.conversations import Exchange
from core.inference.recorder import run_result
from core.markdown import fenced
from core.runtimes.base import Conditions
from core.ui.instruct.details import detail_rows


def to_json(exchanges: Iterable[Exchange]) -> str:
    """Return the answers with all their data as a JSON array, the oldest first."""
    return json.dumps([_as_dict(exchange) for exchange in exchanges], indent=2, ensure_ascii=False)


def to_markdown(exchanges: Iterable[Exchange]) -> str:
    """Return the answers as Markdown; texts are in code fences, so that nothing in them is active.

    The oldest answer comes first.
    """
    parts = ["# Paddock: instructions and answers"]
    parts += [_as_markdown(exchange) for exchange in exchanges]
    return "\n\n".join(parts) + "\n"


def _as_dict(exchange: Exchange) -> dict[str, Any]:
    answer, details = exchange.answer, exchange.details
    return {
        "asked_at": exchange.asked_at.isoformat(timespec="seconds"),
        "instruction": exchange.instruction,
        "context": exchange.context,
        "system": details.system,
        "follow_up": details.follow_up,
        "prompt_format": answer.prompt_format if answer is not None else details.prompt_format,
        "sampling": asdict(details.sampling),
        "model": details.spec.model,
        "title": details.title,
        "precision": details.spec.precision_name,
        "weights": answer.weights if answer is not None else None,
        "device": details.spec.device,
        "runtime": details.spec.runtime.value,
        "answer": None if answer is None else _result(answer) | {"text": exchange.text},
        "thinking": asdict(answer.thinking) if answer is not None and answer.thinking else None,
        "conditions": _conditions(answer.conditions if answer is not None else None),
        "versions": library_versions(),
        "host": asdict(host_facts()),
    }


def _result(answer: Answer) -> dict[str, Any]:
    result = asdict(run_result(answer))
    del result["ended_at"]
    return result


def _conditions(conditions: Conditions | None) -> dict[str, Any] | None:
    """Return the conditions of a run; ``host`` is only set for a remote server."""
    if conditions is None:
        return None
    return {
        "host": conditions.host,
        "hints": dict(conditions.hints),
        "note": conditions.note,
    }


def _as_markdown(exchange: Exchange) -> str:
    sections = [f"## {exchange.asked_at:%H:%M:%S} UTC", "**Instruction**"]
    sections.append(fenced(exchange.instruction))
    if exchange.context:
        sections += ["**Context**", fenced(exchange.context)]
    sections += ["**Answer**", fenced(exchange.text)]
    sections.append("\n".join(f"- {name}: {value}" for name, value in detail_rows(exchange)))
    return "\n\n".join(sections)
