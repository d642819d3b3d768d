"""Export answers as Markdown, to read, and as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from core.hardware.devices import host_facts, library_versions
from core.inference.recorder import GROWTH_IN_PROCESS, run_result
from core.markdown import fenced
from core.runtimes.base import Conditions
from core.ui.instruct.history import HistoryEntry


def to_json(entries: Iterable[HistoryEntry]) -> str:
    """Return the answers with all their data as a JSON array, the newest first."""
    return json.dumps([_as_dict(entry) for entry in entries], indent=2, ensure_ascii=False)


def to_markdown(entries: Iterable[HistoryEntry]) -> str:
    """Return the answers as Markdown; texts are in code fences, so that nothing in them is active.

    The newest answer comes first.
    """
    parts = ["# Paddock: instructions and answers"]
    parts += [_as_markdown(entry) for entry in entries]
    return "\n\n".join(parts) + "\n"


def _as_dict(entry: HistoryEntry) -> dict[str, Any]:
    result, conditions = asdict(run_result(entry.answer)), entry.answer.conditions
    result.pop("ended_at")
    return {
        "asked_at": entry.asked_at.isoformat(timespec="seconds"),
        "instruction": entry.request.instruction,
        "context": entry.request.context,
        "prompt_format": entry.answer.prompt_format,
        "sampling": asdict(entry.request.sampling),
        "model": entry.spec.model,
        "title": entry.title,
        "precision": entry.spec.precision_name,
        "weights": entry.answer.weights,
        "device": entry.spec.device,
        "runtime": entry.spec.runtime.value,
        "answer": result,
        "conditions": None if conditions is None else _conditions(conditions),
        "versions": library_versions(),
        "host": asdict(host_facts()),
    }


def _conditions(conditions: Conditions) -> dict[str, Any]:
    """Return the conditions of a run; ``host`` is only set for a remote server."""
    return {
        "host": conditions.host,
        "hints": dict(conditions.hints),
        "note": conditions.note,
    }


def _as_markdown(entry: HistoryEntry) -> str:
    answer, sampling = entry.answer, entry.request.sampling
    timings, facts = answer.timings, answer.facts
    weights, *place = entry.spec.words[:-1]
    rows: list[tuple[str, object]] = [
        ("Time", entry.asked_at.isoformat(sep=" ", timespec="seconds")),
        ("Model", " · ".join([entry.title, answer.weights or weights, *place])),
        ("Runtime", entry.spec.runtime.short_name),
        (
            "Sampling",
            "greedy"
            if sampling.greedy
            else f"temperature {sampling.temperature}, top-p {sampling.top_p}, "
            f"top-k {sampling.top_k}, repetition penalty {sampling.repetition_penalty}, "
            f"seed {answer.seed}",
        ),
        ("Stop reason", answer.stop_reason.value),
    ]
    if timings is not None:
        prompt = "unknown" if timings.prompt_tokens is None else timings.prompt_tokens
        rows.append(("Tokens", f"{prompt} prompt, {timings.new_tokens} new"))
        if timings.ttft_ms is not None:
            rows.append(("Time to first token", f"{timings.ttft_ms:.1f} ms"))
        if timings.decode_tokens_per_s is not None:
            rows.append(("Decode", f"{timings.decode_tokens_per_s:.1f} tokens/s"))
    if facts is not None:
        rows.append(
            (
                "Memory",
                f"{facts.memory.private_bytes} bytes private, "
                f"{facts.memory.file_backed_bytes} bytes file-backed ({GROWTH_IN_PROCESS})",
            )
        )
    if answer.conditions is not None and answer.conditions.note is not None:
        rows.append(("Note", answer.conditions.note))
    if answer.contended:
        rows.append(("Measured while busy", "another generation was running at the same time"))
    if answer.error_sentence:
        rows.append(("Error", answer.error_sentence))
    sections = [f"## {entry.asked_at:%H:%M:%S} UTC", "**Instruction**"]
    sections.append(fenced(entry.request.instruction))
    if entry.request.context:
        sections += ["**Context**", fenced(entry.request.context)]
    sections += ["**Answer**", fenced(answer.text)]
    sections.append("\n".join(f"- {name}: {value}" for name, value in rows))
    return "\n\n".join(sections)
