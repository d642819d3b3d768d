"""What the worker does to score one precision: read texts, answer instructions, solve own tasks.

The embedded models are compared on held-out examples of their own training corpus: general English
text is unfamiliar to models of a few million parameters, and no precision could make that worse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from core.benchmark.prompts import QualityTexts, quality_texts
from core.benchmark.worker import load
from core.catalogue import catalogue
from core.catalogue.prompts import PromptFormat, choose_format, prompt_format
from core.embedded.tasks import (
    CATEGORIES,
    MAX_NEW_TOKENS,
    ScoredAnswer,
    Task,
    accuracy,
    held_out_tasks,
    held_out_texts,
)
from core.errors import BadRequestError, PromptFormatError
from core.runtimes.base import LoadedModel, Runtime
from core.runtimes.spec import ModelSpec, SamplingSettings, TokenRequest
from core.runtimes.transformers_generate import TransformersModel
from core.workers.child import Channel

T = TypeVar("T")

WINDOW = 256
"""Tokens of a text that are read at once: with a vocabulary of 128 256 they have 131 MB of
logits."""

ANSWER_TOKENS = 64
"""Length of each greedy answer, unless it ends before."""

QUESTIONS = 10
"""Own tasks of an embedded model whose answers are compared token by token."""

_ROWS = 32
"""Positions whose logits are converted to probabilities at once, in float64."""


def score(
    runtime: Runtime,
    folder: Path,
    spec: ModelSpec,
    *,
    forced: Sequence[Sequence[int]] | None,
    channel: Channel,
) -> dict[str, Any]:
    """Score the model in ``folder``.

    Args:
        forced: greedy answers of the reference, to be read under teacher forcing; None for the
            reference itself.

    Returns:
        As JSON, the fields of :class:`core.benchmark.quality.Reference` and ``forced``.

    Raises:
        PaddockError: the device is missing, the files are damaged, the runtime failed …
    """
    model, _ = load(runtime, folder, spec, channel)
    texts = texts_of(spec.model, model.tokenizer)
    windows = [window for text in texts.texts for window in _windows(model, text)]
    prompts = [_prompt(model, spec.model, *pair) for pair in texts.instructions]

    def over(items: Iterable[T], message: str) -> Iterator[T]:
        """Yield the items, with a progress event before each."""
        for item in items:
            channel.say(event="progress", message=message)
            yield item

    reads = [_read(model, window) for window in over(windows, "Reading texts.")]
    answers = [_answer(model, one) for one in over(prompts, "Answering instructions.")]
    return {
        "precision": spec.precision.value,
        "nll": sum(nll for nll, _ in reads),
        "likeliest": [likeliest for _, likeliest in reads],
        "answers": answers,
        "forced": _forced(model, prompts, forced) if forced is not None else None,
        "accuracy": accuracy_of(
            spec.model, model, lambda tasks: over(tasks, "Solving the model's own tasks.")
        ),
    }


def negative_log_likelihood(model: Any, key: str) -> dict[str, float]:
    """Return how unlikely a loaded model finds the texts on which precisions are compared.

    Returns:
        ``nll``, summed over all positions, and ``tokens``, their number.
    """
    texts = texts_of(key, model.tokenizer)
    windows = [window for text in texts.texts for window in _windows(model, text)]
    if hasattr(model, "log_probabilities"):  # GenAI returns these instead of logits
        nll = -sum(sum(model.log_probabilities(window)) for window in windows)
    else:
        nll = sum(_read(model, window)[0] for window in windows)
    return {"nll": nll, "tokens": sum(len(window) - 1 for window in windows)}


def texts_of(key: str, tokenizer: Any) -> QualityTexts:
    """Return the texts and instructions for a model; an embedded model has its own."""
    tasks = own_tasks(key)
    if not tasks:
        return quality_texts()
    texts = [
        choose_format(key, None, tokenizer).build(tokenizer, one.instruction, one.context).text
        + one.answer
        for one in held_out_texts()
    ]
    by_category = [[task for task in tasks if task.category == each] for each in CATEGORIES]
    questions = [task for row in zip(*by_category, strict=True) for task in row][:QUESTIONS]
    return QualityTexts(tuple(texts), tuple((task.instruction, task.context) for task in questions))


def own_tasks(key: str) -> tuple[Task, ...]:
    """Return the held-out tasks of an embedded model; none for any other model."""
    row = catalogue().get(key)
    return held_out_tasks() if row is not None and row.embedded else ()


def accuracy_of(
    key: str, model: LoadedModel, over: Callable[[Sequence[Task]], Iterable[Task]] = iter
) -> float | None:
    """Return the share of correct greedy answers to the model's own tasks, 0 to 1.

    None for models without own tasks.

    Args:
        over: yields the tasks one by one, to report progress.
    """
    tasks = own_tasks(key)
    return accuracy([_solved(key, model, task) for task in over(tasks)]) if tasks else None


def accuracy_at_once(key: str, model: LoadedModel, together: int) -> tuple[float, list[str]]:
    """Return the accuracy with ``together`` concurrent tasks, and the answers in task order."""
    with ThreadPoolExecutor(together) as threads:
        scored = list(threads.map(lambda task: _solved(key, model, task), own_tasks(key)))
    return accuracy(scored), [each.answer for each in scored]


def _solved(key: str, model: LoadedModel, task: Task) -> ScoredAnswer:
    request = _prompt(model, key, task.instruction, task.context, MAX_NEW_TOKENS)
    ids = _answer(model, request)
    ended = bool(ids) and ids[-1] in request.stop_ids
    text = model.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
    return ScoredAnswer(task, text, ended)


def _windows(model: LoadedModel, text: str) -> list[list[int]]:
    """Split the text's token ids into pieces that fit the context length."""
    length = min(WINDOW, model.positions or WINDOW)
    ids: list[int] = model.tokenizer(text, verbose=False)["input_ids"]
    pieces = [ids[start : start + length] for start in range(0, len(ids), length)]
    return [piece for piece in pieces if len(piece) > 1]


def _read(model: TransformersModel, ids: list[int]) -> tuple[float, list[int]]:
    """Read a window of a text.

    Returns:
        Sum of the negative log-likelihoods of all its tokens except the first, and the most likely
        next token at each position except the last.
    """
    import numpy as np

    scores = model.scores(ids)
    nll = 0.0
    for start in range(0, len(ids) - 1, _ROWS):
        rows = scores[start : min(start + _ROWS, len(ids) - 1)].astype(np.float64)
        following = ids[start + 1 : start + 1 + len(rows)]
        highest = rows.max(axis=-1)
        log_sums = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=-1))
        nll += float(np.sum(log_sums - rows[np.arange(len(rows)), following]))
    return nll, scores[:-1].argmax(axis=-1).tolist()


def _prompt(
    model: LoadedModel, key: str, instruction: str, context: str, longest: int = ANSWER_TOKENS
) -> TokenRequest:
    chosen = format_of(key, model.tokenizer)
    stop_ids = chosen.stop_rule(model.tokenizer, model.end_ids).token_ids
    ids = tokenized(model.tokenizer, chosen, instruction, context)
    room = longest if model.positions is None else model.positions - len(ids)
    if room < 1:
        raise BadRequestError(
            f"{key} has a context length of {model.positions} tokens, too short for the "
            "instructions of the quality comparison. Measure it without quality."
        )
    sampling = SamplingSettings(max_new_tokens=min(longest, room), greedy=True)
    return TokenRequest(ids, sampling, stop_ids)


def format_of(key: str, tokenizer: Any) -> PromptFormat:
    """Return the model's prompt format, or plain text if it has neither a row in the catalogue nor
    a chat template."""
    try:
        return choose_format(key, None, tokenizer)
    except PromptFormatError:
        return prompt_format("plain")


def tokenized(
    tokenizer: Any, chosen: PromptFormat, instruction: str, context: str
) -> tuple[int, ...]:
    """Return the token ids of an instruction in a prompt format."""
    prompt = chosen.build(tokenizer, instruction, context)
    found = tokenizer(prompt.text, add_special_tokens=prompt.add_special_tokens, verbose=False)
    return tuple(found["input_ids"])


def _answer(model: LoadedModel, request: TokenRequest) -> list[int]:
    ids: list[int] = []

    def take(token_id: int) -> bool:
        ids.append(token_id)
        return True

    model.generate(request, take)
    return ids


def _forced(
    model: TransformersModel, prompts: Sequence[TokenRequest], answers: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Return the most likely token at each position of another precision's answers to the same
    prompts."""
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        start = len(prompt.prompt_ids) - 1
        scores = model.scores([*prompt.prompt_ids, *answer[:-1]])
        found.append(scores[start:].argmax(axis=-1).tolist())
    return found
