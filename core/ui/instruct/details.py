"""Everything recorded about an answer, as labelled rows for the page and for exports."""

from __future__ import annotations

from core.hardware.devices import ProcessMemory
from core.inference.conversations import Exchange
from core.inference.timing import Timings
from core.runtimes.spec import SpeculationMode
from core.ui.instruct.stream_view import stop_text
from core.units import (
    bytes_text,
    counted,
    milliseconds_text,
    rate_text,
    speculation_text,
)


def detail_rows(exchange: Exchange) -> list[tuple[str, str]]:
    """Return labels and plain texts; figures that are unknown are left out."""
    answer, details = exchange.answer, exchange.details
    spec, sampling = details.spec, details.sampling
    weights, *place = spec.words
    if answer is None:
        return [("Time", _time(exchange)), ("Model", f"{details.title} · {weights}")]
    timings, facts, conditions = answer.timings, answer.facts, answer.conditions
    if conditions is not None and conditions.devices_used not in ((), (spec.device,)):
        place[0] += f" → {', '.join(conditions.devices_used)}"
    rows = [
        ("Time", _time(exchange)),
        ("Model", f"{details.title} · {answer.weights or weights}"),
        ("Device and runtime", " · ".join(place)),
    ]
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
        rows.append(("Memory", _memory(facts.memory)))
    if conditions is not None and conditions.note is not None:
        rows.append(("Note", conditions.note))
    if answer.contended:
        rows.append(("Measured while busy", "another generation was running at the same time"))
    if answer.error_sentence:
        rows.append(("Error", answer.error_sentence))
    return rows


def _time(exchange: Exchange) -> str:
    return f"{exchange.asked_at:%Y-%m-%d %H:%M:%S} UTC"


def _prompt(timings: Timings) -> str:
    text = counted(timings.prompt_tokens or 0, "token")
    if timings.cached_tokens is not None:
        text += f", {timings.cached_tokens:,} of them from the prefix cache"
    if timings.prefill_tokens_per_s is not None:
        text += f", {rate_text(timings.prefill_tokens_per_s)}"
    return text


def _memory(memory: ProcessMemory) -> str:
    return (
        f"{bytes_text(memory.private_bytes)} private + "
        f"{bytes_text(memory.file_backed_bytes)} file-backed, growth of the app's process over "
        "load and warm-up"
    )
