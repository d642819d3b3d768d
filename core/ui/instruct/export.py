"""Everything recorded about an answer: rows for the page, Markdown to read, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from core.hardware.devices import host_facts, library_versions
from core.inference.conversations import Exchange
from core.inference.recorder import run_result
from core.inference.timing import Timings
from core.markdown import fenced
from core.runtimes.spec import SpeculationMode
from core.ui.instruct.conversation import words_of
from core.ui.instruct.stream_view import stop_text
from core.units import bytes_text, counted, milliseconds_text, rate_text, speculation_text


def detail_rows(exchange: Exchange) -> list[tuple[str, str]]:
    """Return labels and plain texts; figures that are unknown are left out."""
    answer, details = exchange.answer, exchange.details
    sampling = details.sampling
    weights, *place = words_of(details.spec, answer)
    rows = [
        ("Time", f"{exchange.asked_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("Model", f"{details.title} · {weights}"),
    ]
    if answer is None:
        return rows
    timings, facts, conditions = answer.timings, answer.facts, answer.conditions
    rows.append(("Device and runtime", " · ".join(place)))
    if timings is not None:
        if timings.prompt_tokens is not None:
            rows.append(("Prompt", _prompt(timings)))
        if timings.ttft_ms is not None:
            rows.append(("Time to first token", milliseconds_text(timings.ttft_ms)))
        if timings.decode_tokens_per_s is not None:
            rows.append(("Decode", rate_text(timings.decode_tokens_per_s)))
        if timings.tokens_per_step is not None:
            found = speculation_text(timings.tokens_per_step, timings.acceptance_rate)
            rows.append(("Speculation", f"{details.speculation.text}: {found}"))
        elif details.speculation.mode is not SpeculationMode.OFF:
            rows.append(("Speculation", f"{details.speculation.text}, nothing guessed"))
        rows.append(("New tokens", f"{timings.new_tokens:,}"))
        if (thinking := answer.thinking) is not None:
            thoughts = f"{counted(thinking.tokens, 'token')}, {thinking.duration}"
            rows.append(("Of them thoughts", thoughts))
        rows.append(("Total time", milliseconds_text(timings.total_ms)))
        if timings.queue_ms >= 1:
            rows.append(("Waited", milliseconds_text(timings.queue_ms)))
    new_tokens = None if timings is None else timings.new_tokens
    rows.append(("Ended", stop_text(answer.stop_reason, new_tokens).removeprefix("ended: ")))
    rows.append(
        (
            "Sampling",
            "greedy"
            if sampling.greedy
            else f"temperature {sampling.temperature}, top-p {sampling.top_p}, "
            f"top-k {sampling.top_k}, repetition penalty {sampling.repetition_penalty}",
        )
    )
    if answer.seed is not None:
        rows.append(("Seed", str(answer.seed)))
    if facts is not None:
        rows.append(
            (
                "Memory",
                f"{bytes_text(facts.memory.private_bytes)} private + "
                f"{bytes_text(facts.memory.file_backed_bytes)} file-backed, growth of the app's "
                "process over load and warm-up",
            )
        )
    if conditions is not None and conditions.note is not None:
        rows.append(("Note", conditions.note))
    if answer.contended:
        rows.append(("Measured while busy", "another generation was running at the same time"))
    if answer.error_sentence:
        rows.append(("Error", answer.error_sentence))
    return rows


def _prompt(timings: Timings) -> str:
    text = counted(timings.prompt_tokens or 0, "token")
    if timings.cached_tokens is not None:
        text += f", {timings.cached_tokens:,} of them from the prefix cache"
    if timings.prefill_tokens_per_s is not None:
        text += f", {rate_text(timings.prefill_tokens_per_s)}"
    return text


# Files


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
    result = conditions = None
    if answer is not None:
        result = asdict(run_result(answer)) | {"text": exchange.text}
        del result["ended_at"]
        if (known := answer.conditions) is not None:  # ``host`` only of a remote server
            conditions = {"host": known.host, "hints": dict(known.hints), "note": known.note}
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
        "answer": result,
        "thinking": asdict(answer.thinking) if answer is not None and answer.thinking else None,
        "conditions": conditions,
        "versions": library_versions(),
        "host": asdict(host_facts()),
    }


def _as_markdown(exchange: Exchange) -> str:
    sections = [f"## {exchange.asked_at:%H:%M:%S} UTC", "**Instruction**"]
    sections.append(fenced(exchange.instruction))
    if exchange.context:
        sections += ["**Context**", fenced(exchange.context)]
    sections += ["**Answer**", fenced(exchange.text)]
    sections.append("\n".join(f"- {name}: {value}" for name, value in detail_rows(exchange)))
    return "\n\n".join(sections)
