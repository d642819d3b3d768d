"""``generate``: answer one instruction in the terminal."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from core.cli.terminal import Line, say
from core.errors import PaddockError
from core.settings import Settings
from core.units import speculation_text

if TYPE_CHECKING:
    from core.inference.answer import Answer
    from core.inference.job import Job
    from core.runtimes.spec import SamplingSettings

_UPDATE_INTERVAL_S = 0.02
"""Interval at which new text is printed."""


def generate(options: argparse.Namespace, settings: Settings) -> int:
    """Generate an answer to one instruction and stream it to the terminal."""
    from core.db import Origin
    from core.inference.answer import StopReason
    from core.inference.engine import Engine
    from core.inference.request import GenerationRequest
    from core.remotes import is_remote
    from core.runtimes.sampling import default_sampling
    from core.runtimes.spec import NO_SPECULATION, ModelSpec
    from core.store import ModelStore

    if is_remote(options.model):
        spec = ModelSpec.of_remote(options.model)
    else:
        precision = options.precision or ModelStore(settings).default_precision(
            options.model, ask_hub=True
        )
        spec = ModelSpec(options.model, precision, options.device, options.runtime)
    with closing(Engine(settings)) as engine:
        sampling = _sampling(options, default_sampling(engine.store, spec.model))
        request = GenerationRequest(
            options.instruction.strip(),
            options.context.strip(),
            sampling,
            options.prompt_format,
            speculation=options.speculation or NO_SPECULATION,
        ).validated()
        job = engine.answer(engine.handle(spec), request, origin=Origin.CLI)
        answer = _stream(job, quiet=options.json)
    if job.text and not options.json:
        print()
    if answer.error is not None:
        raise answer.error
    if answer.thinking and not answer.text:
        say(answer.sentence)
    if options.json:
        print(json.dumps(_as_json(job, answer), indent=2))
    else:
        say(_summary(answer))
    stopped = answer.stop_reason is StopReason.CANCELLED
    return PaddockError.exit_code if stopped else 0


def _sampling(options: argparse.Namespace, defaults: SamplingSettings) -> SamplingSettings:
    """Return the given sampling settings, completed with the model's defaults."""
    chosen = {"temperature": options.temperature, "top_p": options.top_p, "top_k": options.top_k}
    given = {name: value for name, value in chosen.items() if value is not None}
    greedy = options.greedy or given.get("temperature") == 0 or (defaults.greedy and not given)
    return replace(
        defaults,
        max_new_tokens=options.max_new_tokens,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
        greedy=greedy,
        **given,
    )


def _stream(job: Job, *, quiet: bool) -> Answer:
    """Print an answer as it is generated, unless ``quiet``. Ctrl-C stops it and keeps the text."""
    line = Line()
    read = 0
    try:
        while not job.wait(_UPDATE_INTERVAL_S):
            read = _print_new(job, read, line, quiet=quiet)
    except KeyboardInterrupt:
        line.clear()
    finally:  # also after any other exception; no effect on a finished job
        job.cancel()
        job.wait()
    _print_new(job, read, line, quiet=quiet)
    line.clear()
    assert job.answer is not None, "the job has ended"
    return job.answer


def _as_json(job: Job, answer: Answer) -> dict[str, Any]:
    from core.hardware.devices import host_facts, library_versions
    from core.inference.recorder import run_result

    spec, conditions = job.spec, answer.conditions
    result, host = run_result(answer), host_facts()
    return {
        "text": answer.text,
        "thinking": asdict(answer.thinking) if answer.thinking else None,
        "tokens": answer.timings.new_tokens if answer.timings else len(answer.token_ids),
        "prompt_tokens": result.prompt_tokens,
        "ttft_ms": result.ttft_ms,
        "tpot_ms": result.tpot_ms,
        "tokens_per_s": result.decode_tokens_per_s,
        "draft_tokens": result.draft_tokens,
        "accepted_tokens": result.accepted_tokens,
        "stop_reason": result.stop_reason,
        "load_s": result.load_s,
        "memory": {
            "private_bytes": result.memory_private_bytes,
            "file_backed_bytes": result.memory_file_backed_bytes,
            "scope": result.memory_scope,
        }
        if answer.facts
        else None,
        "conditions": {
            "model": spec.model,
            "precision": spec.precision_name,
            "execution_precision": result.execution_precision,
            "kv_cache_precision": result.kv_precision,
            "device": spec.device,
            "devices_used": list(result.devices_used),
            "runtime": (conditions and conditions.runtime) or spec.runtime.value,
            "threads": result.threads,
            "hints": dict(conditions.hints) if conditions else {},
            "prompt_format": answer.prompt_format,
            "speculation": job.request.speculation.text,
            "seed": answer.seed,
            "greedy": job.request.sampling.greedy,
            "contended": answer.contended,
            "versions": library_versions(),
            "note": conditions.note if conditions else None,
            "server": conditions.host if conditions else None,
            "host": {"name": host.name, "cpu": host.cpu, "os": host.os},
        },
    }


def _summary(answer: Answer) -> str:
    timings = answer.timings
    parts = [answer.stop_reason.value]
    if timings is not None:
        thinking = answer.thinking
        thought = f", {thinking.tokens} of them for thinking" if thinking else ""
        parts.insert(0, f"{timings.new_tokens} tokens{thought}")
        if timings.decode_tokens_per_s:
            parts.insert(0, f"{timings.decode_tokens_per_s:.1f} tokens/s")
        if timings.tokens_per_step is not None:
            parts.append(speculation_text(timings.tokens_per_step, timings.acceptance_rate))
        if timings.ttft_ms is not None:
            parts.insert(0, f"first token after {timings.ttft_ms:.0f} ms")
    if answer.seed is not None:
        parts.append(f"seed {answer.seed}")
    if answer.conditions is not None and answer.conditions.note is not None:
        parts.append(answer.conditions.note)
    return " · ".join(parts)


def _print_new(job: Job, read: int, line: Line, *, quiet: bool) -> int:
    from core.inference.job import Phase

    snapshot = job.snapshot()
    if snapshot.phase in (Phase.PREPARING, Phase.QUEUED) or snapshot.thinking:
        line.show(snapshot.message)
    pieces, read = job.read(read)
    text = "".join(pieces)
    if text and not quiet:
        line.clear()
        print(text, end="", flush=True)
    return read
