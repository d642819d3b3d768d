"""Measures the quality of a precision in its own process, compared with a reference.

Perplexity is computed over fixed texts, in windows of :data:`core.benchmark.scoring.WINDOW` tokens.
Agreement is that of the most likely next token at every position of those texts and of the
reference's greedy answers, where both precisions read the same tokens (teacher forcing). Divergence
is between the greedy answers of both, as OpenVINO's who-what-benchmark defines it
(``whowhatbench/whowhat_metrics.py``), but on token ids.
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

from core.benchmark.child import OnProgress, run_worker
from core.db.measurement_values import Quality
from core.errors import GenerationError
from core.runtimes.spec import ModelSpec

Ids = tuple[tuple[int, ...], ...]
"""Token ids of several texts or answers."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Result of one precision, with which other precisions of the model are compared.

    It has only the most likely tokens: the logits of all tokens are gigabytes.
    """

    precision: str
    nll: float
    """Sum of the negative log-likelihoods over all positions."""
    likeliest: Ids
    """Token at each position of each window of the texts."""
    answers: Ids
    """Greedy answers."""
    accuracy: float | None
    """Of a tiny demo model on its own tasks; None for other models."""

    @property
    def positions(self) -> int:
        """Number of positions of the texts."""
        return sum(len(window) for window in self.likeliest)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood."""
        return math.exp(self.nll / self.positions)


def quality_in_process(
    folder: Path,
    spec: ModelSpec,
    reference: Reference | None,
    *,
    on_progress: OnProgress,
    cancel: threading.Event,
    memory_limit_bytes: int | None = None,
) -> tuple[Quality, Reference]:
    """Score one precision of a model in a new process. Blocks.

    Args:
        folder: of the OpenVINO IR, or of the checkpoint if ``spec`` names PyTorch.
        spec: its hints apply as they do to speed.
        reference: of the same model; None makes this precision the reference.

    Returns:
        The quality, and the reference for the next precision: ``reference``, or this one.

    Raises:
        StoppedError, NotEnoughMemoryError, PaddockError: see
            :func:`core.benchmark.child.measure_in_process`.
    """
    request = {
        "kind": "quality",
        "folder": str(folder),
        "spec": spec,
        "forced": reference.answers if reference else None,
    }
    scores = run_worker(
        request,
        lambda event: None,
        label=spec.label,
        on_progress=on_progress,
        cancel=cancel,
        memory_limit_bytes=memory_limit_bytes,
    )
    own = Reference(
        likeliest=_ids(scores["likeliest"]),
        answers=_ids(scores["answers"]),
        **{name: scores[name] for name in ("precision", "nll", "accuracy")},
    )
    if not math.isfinite(own.nll):
        raise GenerationError(
            f"The logits of {spec.label} are not finite, so it has no perplexity. Choose another "
            "precision or other hints."
        )
    if reference is None:
        return compare(own, own, own.answers), own
    return compare(reference, own, _ids(scores["forced"])), reference


def compare(reference: Reference, own: Reference, forced: Ids) -> Quality:
    """Return the quality of a precision compared with a reference.

    Args:
        forced: the precision's most likely tokens at each position of the reference's answers.

    Raises:
        GenerationError: the token ids of the texts differ, so these are different models.
    """
    theirs = (*reference.likeliest, *reference.answers)
    ours = (*own.likeliest, *forced)
    if [len(ids) for ids in theirs] != [len(ids) for ids in ours]:
        raise GenerationError(
            f"The {own.precision} and {reference.precision} models tokenize the texts differently, "
            "so they are not the same model. Convert both again."
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
    """Return the position of the first divergent token and the share of divergent tokens of an
    answer.

    As in who-what-benchmark: FDT is the length of the common prefix, SDT (normalised) the share of
    the answer's tokens that are in none of difflib's matching blocks. If only one answer is empty,
    the share is 1.
    """
    if not reference or not own:
        return 0, 0.0 if len(reference) == len(own) else 1.0
    blocks = SequenceMatcher(None, reference, own, autojunk=False).get_matching_blocks()
    shorter = min(len(reference), len(own))
    first = next((at for at in range(shorter) if reference[at] != own[at]), shorter)
    return first, 1.0 - sum(block.size for block in blocks) / len(own)


def _ids(lists: Sequence[Sequence[int]]) -> Ids:
    return tuple(tuple(ids) for ids in lists)
