"""Runs a request on a leased model: token ids for local models, text for remote ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, cast

from core.catalogue.prompts import Prompt, choose_format, prompt_format
from core.errors import BadRequestError, PromptTooLongError
from core.inference.answer import StopReason
from core.inference.request import GenerationRequest
from core.inference.text import StopText, TextDecoder
from core.runtimes.base import Conditions, LoadedModel, StampedId, TextModel
from core.runtimes.pool import Lease
from core.runtimes.spec import SamplingSettings, TextRequest, TokenRequest
from core.store import StoredModel

OnPiece = Callable[[int | None, float, str], bool]
"""Called with a token id (None if unknown), its time (``time.perf_counter()`` in seconds), and the
text that it completes; returning False ends the answer."""

VERBATIM_FORMAT = "plain"
"""Prompt format recorded for a verbatim prompt."""
SERVERS_FORMAT = "chat"
"""Prompt format recorded for remote models, whose servers apply a chat template."""


class Work(Protocol):
    """A request that is ready to run on a model."""

    prompt_format: str
    prompt_tokens: int | None
    """None if it is not known (yet)."""
    new_tokens: int | None
    """None if it equals the number of pieces."""
    conditions: Conditions

    def run(self, on_piece: OnPiece) -> StopReason | None:
        """Generate; return None if neither the model nor the length ended it.

        Raises:
            InterruptedGeneration: :meth:`interrupt` ended it.
            PaddockError: the runtime or the server failed.
        """
        ...

    def close(self) -> str:
        """Return the text that was held back; call once after the end, for any reason."""
        ...

    def interrupt(self) -> None:
        """End it; can be called repeatedly and from any thread."""
        ...


def work_on(lease: Lease, request: GenerationRequest) -> Work:
    """Prepare a request for a leased model.

    Raises:
        PaddockError: the request does not fit the model.
    """
    if lease.stored is None:
        return _TextWork(cast(TextModel, lease.model), request)
    return _TokenWork(cast(LoadedModel, lease.model), lease.stored, request)


class _TokenWork:
    """Work of a local model, which generates token ids; they are formatted and decoded here."""

    new_tokens = None

    def __init__(self, model: LoadedModel, stored: StoredModel, request: GenerationRequest) -> None:
        requested = VERBATIM_FORMAT if request.verbatim else request.prompt_format
        chosen = choose_format(stored.key, requested, model.tokenizer)
        if request.verbatim:
            prompt = Prompt(request.instruction, add_special_tokens=True)
        else:
            prompt = chosen.build(
                model.tokenizer, request.instruction, request.context, request.earlier
            )
        encoded = model.tokenizer(
            prompt.text, add_special_tokens=prompt.add_special_tokens, verbose=False
        )
        ids = tuple(encoded["input_ids"])
        sampling = request.sampling
        if request.shorten:
            sampling = _shortened(sampling, len(ids), model.positions)
        _check_length(len(ids), sampling.max_new_tokens, model.positions, stored.title)
        self.prompt_format = chosen.name
        self.prompt_tokens = len(ids)
        self._model = model
        rule = chosen.stop_rule(model.tokenizer, model.end_ids)
        self._rule = replace(rule, texts=(*rule.texts, *request.stop))
        self._request = TokenRequest(ids, sampling, self._rule.token_ids)
        self._decoder = TextDecoder(model.tokenizer)
        self._stop_text = StopText(self._rule, keep_space=request.verbatim)

    @property
    def conditions(self) -> Conditions:
        return self._model.conditions

    def run(self, on_piece: OnPiece) -> StopReason | None:
        rule, decoder, stop_text = self._rule, self._decoder, self._stop_text
        reason: StopReason | None = None
        count = 0

        def on_token(token_id: int) -> bool:
            nonlocal reason, count
            stamp = token_id.stamp_s if isinstance(token_id, StampedId) else time.perf_counter()
            count += 1
            if token_id in rule.token_ids:
                marker = token_id in rule.marker_ids
                reason = StopReason.STOP_MARKER if marker else StopReason.END_OF_TEXT
                on_piece(token_id, stamp, "")
                return False
            more = on_piece(token_id, stamp, stop_text.feed(decoder.feed(token_id)))
            if stop_text.stopped:
                reason = StopReason.STOP_MARKER
                return False
            return more

        self._model.generate(self._request, on_token)
        if reason is None and count >= self._request.sampling.max_new_tokens:
            return StopReason.LENGTH
        return reason

    def close(self) -> str:
        return self._stop_text.feed(self._decoder.close()) + self._stop_text.close()

    def interrupt(self) -> None:
        self._model.interrupt(self._request)


class _TextWork:
    """Work of a remote model, whose server formats, decodes, stops and counts."""

    prompt_format = SERVERS_FORMAT

    def __init__(self, model: TextModel, request: GenerationRequest) -> None:
        if request.prompt_format not in (None, SERVERS_FORMAT):
            raise BadRequestError(
                "A remote server applies its model's own prompt format. Do not choose a prompt "
                "format."
            )
        if request.verbatim:
            raise BadRequestError(
                "A remote server applies its model's own prompt format. Use chat completions "
                "instead of a raw prompt."
            )
        content = prompt_format(SERVERS_FORMAT).content(request.instruction, request.context)
        turns = (*((turn.role.value, turn.text) for turn in request.earlier), ("user", content))
        self.prompt_tokens: int | None = None
        self.new_tokens: int | None = None
        self.conditions = model.conditions
        self._model = model
        self._request = TextRequest(turns, request.sampling, request.stop)

    def run(self, on_piece: OnPiece) -> StopReason | None:
        end = self._model.answer(
            self._request, lambda text: on_piece(None, time.perf_counter(), text)
        )
        self.prompt_tokens, self.new_tokens = end.prompt_tokens, end.new_tokens
        self.conditions = end.conditions
        return StopReason.LENGTH if end.length else StopReason.END_OF_TEXT

    def close(self) -> str:
        return ""

    def interrupt(self) -> None:
        self._model.interrupt(self._request)


def _shortened(sampling: SamplingSettings, prompt: int, positions: int | None) -> SamplingSettings:
    """Limit the new tokens to the rest of the context length, but to at least one."""
    rest = sampling.max_new_tokens if positions is None else max(1, positions - prompt)
    return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, rest))


def _check_length(prompt: int, requested: int, positions: int | None, name: str) -> None:
    """
    Raises:
        PromptTooLongError: prompt and requested new tokens exceed the context length.
    """
    if positions is None or prompt + requested <= positions:
        return
    rest = positions - prompt
    remedy = (
        f"Request at most {rest:,} new tokens or shorten the text"
        if rest > 0
        else "Shorten the text"
    )
    raise PromptTooLongError(
        f"The prompt has {prompt:,} tokens and {requested:,} new tokens were requested, together "
        f"{prompt + requested:,}, but the context length of {name} is {positions:,}. {remedy}."
    )
