"""Texts of the exports and the result page. They are plain text, not escaped."""

from __future__ import annotations

from core.compare.match import SideState
from core.compare.report import MatchReport, SideReport
from core.inference.answer import StopReason
from core.inference.request import GenerationRequest
from core.units import bytes_text, listed, milliseconds_text, rate_text, speculation_text


def status(side: SideReport) -> str:
    """Return how a side ended, as a sentence."""
    if side.error is not None:
        return side.error
    if side.figures is not None:
        return StopReason(side.figures.stop_reason).sentence
    match side.state:
        case SideState.SKIPPED:
            return "Not started."
        case SideState.RUNNING:
            return "Still generating."
        case _:
            return "Not started yet."


def sampling_text(request: GenerationRequest) -> str:
    """Return the sampling settings as text."""
    sampling = request.sampling
    penalty = f"repetition penalty {sampling.repetition_penalty}"
    length = f"at most {sampling.max_new_tokens} new tokens"
    if sampling.greedy:
        return f"greedy, {penalty}, {length}"
    return (
        f"temperature {sampling.temperature}, top-p {sampling.top_p}, top-k {sampling.top_k}, "
        f"{penalty}, seed {sampling.seed}, {length}"
    )


def figures_line(side: SideReport) -> str:
    """Return the figures of one side in one line; empty if there are none."""
    figures = side.figures
    if figures is None:
        return ""
    parts = []
    if figures.ttft_ms is not None:
        parts.append(f"TTFT {milliseconds_text(figures.ttft_ms)}")
    if figures.decode_tokens_per_s is not None:
        parts.append(rate_text(figures.decode_tokens_per_s))
    if figures.tokens_per_step is not None:
        parts.append(speculation_text(figures.tokens_per_step, figures.acceptance_rate))
    if (figures.timed_answers or 0) > 1:
        parts.append(f"medians of {figures.timed_answers}")
    if figures.new_tokens is not None:
        noun = "token" if figures.new_tokens == 1 else "tokens"
        parts.append(f"{figures.new_tokens} new {noun}")
    if figures.memory_private_bytes is not None and figures.memory_file_backed_bytes is not None:
        parts.append(
            f"memory {bytes_text(figures.memory_private_bytes)} private + "
            f"{bytes_text(figures.memory_file_backed_bytes)} file-backed"
        )
    if figures.seed is not None:
        parts.append(f"seed {figures.seed}")
    if figures.contended:
        parts.append("measured while busy")
    if figures.cores_apart:
        parts.append("cores apart")
    return " · ".join(parts)


def caution(report: MatchReport) -> str | None:
    """Return a warning if some timings or answers are not comparable, else None."""
    known = [(side.letter, side.figures) for side in report.sides if side.figures is not None]
    sentences = []
    if any(figures.contended for _, figures in known):
        sentences.append(
            "Measured while busy: other work ran at the same time, so these timings are not "
            "comparable with others."
        )
    if apart := [letter for letter, figures in known if figures.cores_apart]:
        sentences.append(
            f"Measured while busy: during the answers of {listed(apart)}, this machine's host had "
            "moved its cores apart, which can make a small model a third slower. Run it again."
        )
    if continued := [side.letter for side in report.sides if side.request.continues]:
        sentences.append(
            f"The answer of {listed(continued)} was continued from another token than the model's "
            "own choice; the figures are those of the rest, and the prompt includes the beginning."
        )
    return " ".join(sentences) or None


def medians(report: MatchReport) -> str | None:
    """Return a note on timings that are medians; None if each is of one answer."""
    several = [
        f"{side.figures.timed_answers} of {side.letter}"
        for side in report.sides
        if side.figures is not None and (side.figures.timed_answers or 0) > 1
    ]
    if not several:
        return None
    return (
        f"Times and rates are medians of several answers ({', '.join(several)}): one was too short "
        "to time, so it was repeated without being shown. Sides whose single answers overlap count "
        "as equal."
    )


def conditions(report: MatchReport) -> list[tuple[str, str]]:
    """Return the conditions of the measurement, as (name, value)."""
    rows = [(f"Side {side.letter}", _side_conditions(side)) for side in report.sides]
    scopes = {
        side.figures.memory_scope
        for side in report.sides
        if side.figures is not None and side.figures.memory_scope is not None
    }
    rows += [("Memory figures", scope) for scope in sorted(scopes)]
    host = report.host
    cores = host.physical_cores or host.logical_cores
    memory = bytes_text(host.memory_bytes)
    rows.append(("Machine", f"{host.cpu}, {cores} cores, {memory} of memory, {host.os}"))
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return [*rows, ("Versions", versions)]


def _side_conditions(side: SideReport) -> str:
    figures, spec = side.figures, side.spec
    parts = [side.title]
    if spec.remote:
        parts.append(spec.variant)
    else:
        parts += [f"{side.weights} weights", f"{spec.runtime.value} runtime"]
        parts.append(f"requested device {spec.device}")
    if figures is not None:
        if figures.devices_used:
            parts.append(f"ran on {', '.join(figures.devices_used)}")
        parts += _known(
            ("executed in {}", figures.execution_precision),
            ("KV cache in {}", figures.kv_precision),
            ("{} threads", figures.threads),
            ("prompt format {}", figures.prompt_format),
            ("{} prompt tokens", figures.prompt_tokens),
        )
        if figures.tokens_per_step is not None:
            found = speculation_text(figures.tokens_per_step, figures.acceptance_rate)
            parts.append(f"speculation {side.request.speculation.text}: {found}")
        parts += _known(("loaded in {:.1f} s", figures.load_s), ("{}", figures.note))
        parts.append("measured while busy" if figures.contended else "no other work")
        if figures.cores_apart:
            parts.append("cores apart")
    return ", ".join(parts)


def _known(*texts: tuple[str, object]) -> list[str]:
    """Return the texts whose value is known."""
    return [text.format(value) for text, value in texts if value is not None]
