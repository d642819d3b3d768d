"""What a precision costs in quality, measured in a process of its own against a reference.

Perplexity is over fixed texts, in windows of :data:`core.benchmark.scoring.WINDOW` tokens.
Agreement is of the likeliest next token at every position of those texts and of the reference's
own greedy answers, both precisions reading the same tokens (teacher forcing). Divergence is between
greedy answers that each writes by itself, in the definitions of OpenVINO's who-what-benchmark
(``whowhatbench/whowhat_metrics.py``), on the token ids themselves.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from core.benchmark.worker_process import SILENCE_S, MemoryWatch, OnProgress, run_worker
from core.db.measurement_values import Quality
from core.errors import GenerationError
from core.runtimes.serialization import spec_to_json
from core.runtimes.spec import ModelSpec

Ids = tuple[tuple[int, ...], ...]
"""Token ids of several texts or answers."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What one precision gave; what others of the same model are compared with.

    Not the scores of all tokens, which are gigabytes: the likeliest ones alone.
    """

    precision: str
    nll: float
    """Sum over all positions of the negative logarithm of the right token's probability."""
    likeliest: Ids
    """At each position of each window of the texts."""
    answers: Ids
    """Greedy answers."""
    accuracy: float | None
    """Of an embedded model at its own tasks."""

    @property
    def positions(self) -> int:
        """Positions of the texts."""
        return sum(len(window) for window in self.likeliest)

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood."""
        return math.exp(self.nll / self.positions)


def quality_in_process(
    folder: Path,
    spec: ModelSpec,
    reference: Reference | None,
    *,
    on_progress: OnProgress,
    cancel: threading.Event,
    memory_limit_bytes: int | None = None,
    silence_s: float = SILENCE_S,
) -> tuple[Quality, Reference]:
    """Score one precision of a model in a fresh process. Blocks.

    Args:
        folder: of the OpenVINO IR, or of the checkpoint where ``spec`` names PyTorch.
        spec: its hints count as they do for speed.
        reference: of the same model; None makes this precision the reference.
        on_progress: called from this thread.
        cancel: when set, the process is killed.

    Returns:
        The quality, and what to compare the next precision with: ``reference``, or this one.

    Raises:
        StoppedError, NotEnoughMemoryError, PaddockError: see
            :func:`core.benchmark.child.measure_in_process`.
    """
    heard: list[dict[str, Any]] = []

    def hear(event: dict[str, Any], _watch: MemoryWatch) -> None:
        if event["event"] == "scores":
            heard.append(event)

    request = {
        "kind": "quality",
        "folder": str(folder),
        "spec": spec_to_json(spec),
        "forced": reference.answers if reference else None,
    }
    run_worker(
        request,
        hear,
        label=spec.label,
        on_progress=on_progress,
        cancel=cancel,
        memory_limit_bytes=memory_limit_bytes,
        silence_s=silence_s,
    )
    if not heard:
        raise GenerationError(
            f"The process that scored {spec.label} left its result out; measure it again."
        )
    scores = heard[0]
    own = Reference(
        precision=spec.precision.value,
        nll=scores["nll"],
        likeliest=_ids(scores["likeliest"]),
        answers=_ids(scores["answers"]),
        accuracy=scores["accuracy"],
    )
    if not math.isfinite(own.nll):
        raise GenerationError(
            f"{spec.label} gives no usable probabilities (not a number); choose another precision "
            "or other hints."
        )
    if reference is None:
        return compare(own, own, own.answers), own
    return compare(reference, own, _ids(scores["forced"])), reference


def compare(reference: Reference, own: Reference, forced: Ids) -> Quality:
    """The quality of a precision against a reference.

    Args:
        forced: the precision's likeliest tokens at each position of the reference's answers.

    Raises:
        GenerationError: the two read different texts, so they are of different models.
    """
    theirs = (*reference.likeliest, *reference.answers)
    ours = (*own.likeliest, *forced)
    if [len(ids) for ids in theirs] != [len(ids) for ids in ours]:
        raise GenerationError(
            f"The {own.precision} and {reference.precision} models read the texts as different "
            "tokens, so they are not the same model; convert both anew."
        )
    pairs = list(zip(chain.from_iterable(theirs), chain.from_iterable(ours), strict=True))
    divergence = [
        divergence_of(one, other) for one, other in zip(reference.answers, own.answers, strict=True)
    ]
    return Quality(
        reference=reference.precision,
        perplexity=own.perplexity,
        perplexity_ratio=math.exp((own.nll - reference.nll) / reference.positions),
        top1_agreement=sum(one == other for one, other in pairs) / len(pairs),
        first_divergent_token=fmean(first for first, _ in divergence),
        divergent_share=fmean(share for _, share in divergence),
        task_accuracy=own.accuracy,
        tokens=len(pairs),
    )


def divergence_of(reference: Sequence[int], own: Sequence[int]) -> tuple[int, float]:
    """Position of the first token that differs, and the share of tokens to correct, of one answer.

    As who-what-benchmark has them: FDT is the length of the common beginning, SDT (normalised) the
    share of the answer's own tokens that are in none of difflib's matching blocks. Where one answer
    is empty and the other is not, all of it is to be corrected.
    """
    if not reference or not own:
        return 0, 0.0 if len(reference) == len(own) else 1.0
    blocks = SequenceMatcher(None, reference, own, autojunk=False).get_matching_blocks()
    return _common(reference, own), 1.0 - sum(block.size for block in blocks) / len(own)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def _ids(lists: Sequence[Sequence[int]]) -> Ids:
    return tuple(tuple(ids) for ids in lists)
