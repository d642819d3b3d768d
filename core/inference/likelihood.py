"""Likelihood of a given answer: teacher forcing, one forward pass over prompt and answer."""

from __future__ import annotations

import threading
from statistics import fmean
from typing import cast

from core.errors import BadRequestError, OptionError, PromptTooLongError
from core.inference.request import GenerationRequest
from core.inference.scheduler import Scheduler
from core.inference.work import encode_prompt
from core.runtimes.base import LoadedModel
from core.runtimes.pool import ModelHandle


def mean_log_probability(
    handle: ModelHandle, request: GenerationRequest, answer: str, scheduler: Scheduler
) -> float:
    """Return the mean natural log probability per token of an answer, after the request's prompt.

    Raises:
        OptionError: a remote model, or a runtime without log probabilities.
        PaddockError: the model cannot be loaded, the prompt is too long …
    """
    never = threading.Event()
    with handle.lease(lambda message, fraction: None, never) as lease:
        assert lease is not None, "it was not cancelled"
        if lease.stored is None:
            raise OptionError(
                "A remote server does not return the likelihood of a given answer. Remove the "
                "check, or choose a local model."
            )
        model = cast(LoadedModel, lease.model)
        prompt = encode_prompt(model, lease.stored.key, request).ids
        given = model.tokenizer(answer, add_special_tokens=False, verbose=False)["input_ids"]
        if not given:
            raise BadRequestError("The expected answer has no token. Correct it.")
        ids, positions = [*prompt, *given], model.positions
        if positions is not None and len(ids) >= positions:
            raise PromptTooLongError(
                f"Prompt and expected answer have {len(ids):,} tokens, but the context length of "
                f"{lease.stored.title} is {positions:,}. Shorten the text."
            )
        ticket = scheduler.enter_model(lease.queue, model.at_once, "")
        with scheduler.turn(ticket, never):
            found = _log_probabilities(model, ids)
    return fmean(found[len(prompt) - 1 :])


def _log_probabilities(model: LoadedModel, ids: list[int]) -> list[float]:
    """Return the log probability of each token but the first."""
    if hasattr(model, "log_probabilities"):
        return model.log_probabilities(ids)
    if not hasattr(model, "scores"):
        raise OptionError(
            "This runtime does not return the likelihood of a given answer. Choose another."
        )
    import numpy as np

    from core.inference.distribution import log_softmax

    found = log_softmax(model.scores(ids)[:-1].astype(np.float64))
    return list(found[np.arange(len(ids) - 1), ids[1:]])
