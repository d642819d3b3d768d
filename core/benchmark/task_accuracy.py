"""Accuracy of the embedded models on their held-out tasks, and the texts for their perplexity.

The embedded models are compared on held-out examples of their own training corpus: general English
text is unfamiliar to models of a few million parameters, and no precision could make that worse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from core.benchmark.prompts import QualityTexts
from core.embedded.models import EMBEDDED_MODELS, EmbeddedModel, end_ids, prompt_text
from core.embedded.tasks import (
    CATEGORIES,
    MAX_NEW_TOKENS,
    ScoredAnswer,
    Task,
    accuracy,
    held_out_tasks,
    held_out_texts,
)
from core.runtimes.base import LoadedModel
from core.runtimes.spec import SamplingSettings, TokenRequest

QUESTIONS = 10
"""Tasks that are answered greedily to compare answers token by token."""

_QUESTIONS_PER_CATEGORY = -(-QUESTIONS // len(CATEGORIES))


def texts_of(key: str) -> QualityTexts | None:
    """Return the texts and instructions for an embedded model, None for any other model."""
    model = EMBEDDED_MODELS.get(key)
    if model is None:
        return None
    by_category = [
        [task for task in held_out_tasks() if task.category == category] for category in CATEGORIES
    ]
    questions = [
        (tasks[index].instruction, tasks[index].context)
        for index in range(_QUESTIONS_PER_CATEGORY)
        for tasks in by_category
    ]
    return QualityTexts(
        tuple(
            prompt_text(model, text.instruction, text.context) + text.answer
            for text in held_out_texts()
        ),
        tuple(questions[:QUESTIONS]),
    )


def count_of(key: str) -> int:
    """Return the number of tasks that :func:`accuracy_of` scores."""
    return len(held_out_tasks()) if key in EMBEDDED_MODELS else 0


def accuracy_of(
    key: str, model: LoadedModel, over: Callable[[Sequence[Task]], Iterable[Task]] = iter
) -> float | None:
    """Return the share of correct greedy answers to the held-out tasks, 0 to 1.

    None for models that are not embedded. The model keeps the precision and hints that it was
    loaded with.

    Args:
        over: yields the tasks one by one, to report progress.
    """
    embedded = EMBEDDED_MODELS.get(key)
    if embedded is None:
        return None
    return accuracy([_scored(embedded, model, task) for task in over(held_out_tasks())])


def accuracy_at_once(key: str, model: LoadedModel, together: int) -> tuple[float, list[str]]:
    """Return the accuracy with ``together`` concurrent tasks, and the answers in task order."""
    embedded = EMBEDDED_MODELS[key]
    with ThreadPoolExecutor(together) as threads:
        scored = list(threads.map(lambda task: _scored(embedded, model, task), held_out_tasks()))
    return accuracy(scored), [each.answer for each in scored]


def _scored(embedded: EmbeddedModel, model: LoadedModel, task: Task) -> ScoredAnswer:
    tokenizer = model.tokenizer
    prompt = prompt_text(embedded, task.instruction, task.context)
    ends = frozenset(end_ids(embedded, tokenizer))
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
    return ScoredAnswer(task, text, ended)
