"""Task accuracy of the tiny demo models in each precision.

Their texts and questions are held-out examples of their training corpus: general English is unknown
to models of a few million parameters, and no precision could make that worse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from core.benchmark.prompts import QualityTexts
from core.demo.corpus import CATEGORIES, Example
from core.demo.evaluate import MAX_NEW_TOKENS, Judged, accuracy, held_out
from core.demo.models import DEMO_MODELS, DemoModel, end_ids, prompt_text
from core.runtimes.base import LoadedModel
from core.runtimes.spec import SamplingSettings, TokenRequest

PER_CATEGORY = 25
"""Judged examples, 200 in all. The same ones are judged in every precision, so a difference of a
few per cent is significant."""

TEXTS_PER_CATEGORY = 4
"""Examples that are read with their correct answers, following those that are judged."""

QUESTIONS = 10
"""Examples that are answered greedily to compare the answers token by token."""

_QUESTIONS_PER_CATEGORY = -(-QUESTIONS // len(CATEGORIES))


def texts_of(key: str) -> QualityTexts | None:
    """Return the texts and instructions of a tiny demo model; None for other models."""
    model = DEMO_MODELS.get(key)
    if model is None:
        return None
    instructions = [
        (one.instruction, one.context)
        for place in range(_QUESTIONS_PER_CATEGORY)
        for category in CATEGORIES
        for one in held_out(category, _QUESTIONS_PER_CATEGORY)[place : place + 1]
    ]
    return QualityTexts(
        tuple(
            prompt_text(model, one.instruction, one.context) + one.answer
            for category in CATEGORIES
            for one in held_out(category, PER_CATEGORY + TEXTS_PER_CATEGORY)[PER_CATEGORY:]
        ),
        tuple(instructions[:QUESTIONS]),
    )


def count_of(key: str) -> int:
    """Return the number of tasks of :func:`accuracy_of`."""
    return len(_tasks()) if key in DEMO_MODELS else 0


def accuracy_of(
    key: str, model: LoadedModel, over: Callable[[Sequence[Example]], Iterable[Example]] = iter
) -> float | None:
    """Return the share of correct greedy answers to held-out instructions, 0 to 1; None for other
    models.

    Answers are judged by :mod:`core.demo.evaluate`, in the precision and with the hints of the
    loaded model.

    Args:
        over: iterates over the tasks, for progress.
    """
    demo = DEMO_MODELS.get(key)
    if demo is None:
        return None
    return accuracy([_judged(demo, model, task) for task in over(_tasks())])


def accuracy_at_once(key: str, model: LoadedModel, together: int) -> tuple[float, list[str]]:
    """Do the same with several tasks at a time; return the accuracy and the answers in order."""
    demo = DEMO_MODELS[key]
    with ThreadPoolExecutor(together) as pool:
        judged = list(pool.map(lambda task: _judged(demo, model, task), _tasks()))
    return accuracy(judged), [each.answer for each in judged]


@cache
def _tasks() -> tuple[Example, ...]:
    return tuple(one for category in CATEGORIES for one in held_out(category, PER_CATEGORY))


def _judged(demo: DemoModel, model: LoadedModel, task: Example) -> Judged:
    tokenizer = model.tokenizer
    prompt = prompt_text(demo, task.instruction, task.context)
    ends = frozenset(end_ids(demo, tokenizer))
    request = TokenRequest(
        tuple(tokenizer(prompt, add_special_tokens=False)["input_ids"]),
        SamplingSettings(max_new_tokens=MAX_NEW_TOKENS, greedy=True),
        ends,
    )
    ids: list[int] = []

    def take(token_id: int) -> bool:
        ids.append(token_id)
        return True

    model.generate(request, take)
    ended = bool(ids) and ids[-1] in ends
    text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
    return Judged(task, text, ended)
