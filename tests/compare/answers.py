"""Sample answers and reports of comparisons."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.catalogue import Precision
from core.compare.divergence import compare, readable_diff
from core.compare.figures import deltas, side_figures
from core.compare.match import SideState
from core.compare.report import MatchReport, Pair, SideReport
from core.compare.setup import LETTERS, Mode
from core.compare.timed_answers import Timing, timeline
from core.hardware.devices import HostFacts, ProcessMemory
from core.inference.answer import Answer, StopReason
from core.inference.request import GenerationRequest
from core.inference.timing import measure
from core.runtimes.pool import LoadFacts
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.store import StoredModel
from tests.fakes import CONDITIONS, stored_model


def answer(
    text: str = "It is quiet.",
    ids: Sequence[int] = (1, 2, 3, 0),
    *,
    gap_s: float = 0.01,
    ttft_s: float = 0.1,
    private: int = 300 * 2**20,
    file_backed: int = 200 * 2**20,
    reason: StopReason = StopReason.END_OF_TEXT,
    **more: Any,
) -> Answer:
    """Return a finished answer with equal intervals between tokens."""
    stamps = [5.0 + ttft_s + gap_s * number for number in range(len(ids))]
    ended = stamps[-1] if stamps else 5.0 + ttft_s
    memory = ProcessMemory(private, file_backed, private + file_backed)
    made = Answer(
        text=text,
        token_ids=tuple(ids),
        token_times_ms=tuple(1000 * (stamp - 5.0) for stamp in stamps),
        stop_reason=reason,
        seed=7,
        prompt_format="dolly",
        timings=measure(4.9, 5.0, ended, 12, stamps),
        conditions=CONDITIONS,
        facts=LoadFacts(1.5, memory),
    )
    return replace(made, **more)


def stored(name: str, precision: Precision = Precision.INT8, *, disk: int = 1000) -> StoredModel:
    found = stored_model(ModelSpec(name, precision), weight_bytes=disk)
    return replace(found, folder=Path("nowhere"))


def report(
    answers: Sequence[Answer | None],
    *,
    titles: Sequence[str] = ("Paddock NeoX", "Paddock Llama", "Third", "Fourth"),
    instruction: str = "Why?",
    context: str = "",
    errors: Sequence[str | None] = (None,) * 4,
    mode: Mode = Mode.FAIR,
    verdict: str | None = None,
    apart: Collection[int] = (),
    again: int = 0,
) -> MatchReport:
    """Return a report with these answers and a made-up machine.

    Args:
        apart: sides whose cores were apart.
        again: number of repetitions for the timings.
    """
    sampling = SamplingSettings(seed=7)
    request = GenerationRequest(instruction, context, sampling)
    sides = tuple(
        SideReport(
            letter=LETTERS[index],
            title=titles[index],
            spec=ModelSpec(f"model-{index}", Precision.INT8, "AUTO"),
            state=SideState.DONE if found is not None else SideState.SKIPPED,
            request=request,
            text=found.text if found is not None else "",
            token_times_ms=found.token_times_ms if found is not None else (),
            error=errors[index],
            figures=side_figures(
                found,
                stored("x", disk=1000 * (index + 1)),
                Timing((found,) * (1 + again), cores_apart=index in apart),
            )
            if found
            else None,
            timeline=timeline(Timing((found,) * (1 + again), cores_apart=index in apart))
            if found
            else None,
            run_id=None,
        )
        for index, found in enumerate(answers)
    )
    return MatchReport(
        id="0" * 32,
        asked_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        mode=mode,
        request=request,
        sides=sides,
        rows=deltas([side.figures for side in sides]),
        pairs=_pairs(answers),
        verdict=verdict,
        versions={"openvino": "2026.4.1"},
        host=HostFacts("host", "an OS", "a processor", 2, 4, 8 * 2**30),
    )


def _pairs(answers: Sequence[Answer | None]) -> tuple[Pair, ...]:
    first = answers[0]
    return tuple(
        Pair(0, index, compare(first, other), tuple(readable_diff(first.text, other.text)))
        for index, other in enumerate(answers)
        if index and first is not None and other is not None
    )
