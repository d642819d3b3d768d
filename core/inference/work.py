"""The work of one answer on a leased model: with token ids here, or with text from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from core.catalogue.prompts import Prompt, choose_format, prompt_format
from core.errors import BadRequestError, PromptTooLongError
from core.inference.answer import StopReason
from core.inference.request import GenerationRequest
from core.inference.text import StopText, TextDecoder
from core.runtimes.base import Conditions, StampedId, TextModel
from core.runtimes.pool import Lease
from core.runtimes.remote import RemoteLease
from core.runtimes.spec import SamplingSettings, TextRequest, TokenRequest

OnPiece = Callable[[int | None, float, str], bool]
"""Receives the id of a token (None where it is unknown), its stamp in seconds of the performance
counter, and the text that it completed; returning False ends the answer."""

VERBATIM_FORMAT = "plain"
"""The prompt format that a prompt is recorded under which was taken as it is."""
SERVERS_FORMAT = "chat"
"""The prompt format that a server elsewhere puts around what it is sent."""


class Work(Protocol):
    """One request that is ready to run on one model."""

    prompt_format: str
    prompt_tokens: int | None
    """None where nobody has counted them (yet)."""
    new_tokens: int | None
    """None where they are as many as the pieces."""
    conditions: Conditions

    def run(self, on_piece: OnPiece) -> StopReason | None:
        """Answer; None where neither the model nor the length ended it.

        Raises:
            InterruptedGeneration: :meth:`interrupt` ended it.
            PaddockError: the runtime or the server failed.
        """
        ...

    def close(self) -> str:
        """Text that was held back; to be asked for once, however the answer ended."""
        ...

    def interrupt(self) -> None:
        """End it; callable from any thread, again and again."""
        ...


def work_on(lease: Lease | RemoteLease, request: GenerationRequest) -> Work:
    """The work that a request makes on a leased model.

    Raises:
        PaddockError: the request does not fit the model.
    """
    if isinstance(lease, RemoteLease):
        return _TextWork(lease.model, request)
    return _TokenWork(lease, request)


class _TokenWork:
    """The model gives token ids; formatting, decoding and stopping are done here."""

    new_tokens = None

    def __init__(self, lease: Lease, request: GenerationRequest) -> None:
        model = lease.model
        wanted = VERBATIM_FORMAT if request.verbatim else request.prompt_format
        chosen = choose_format(lease.stored.key, wanted, model.tokenizer)
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
        _check_room(len(ids), sampling.max_new_tokens, model.positions, lease.stored.title)
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
            wanted = on_piece(token_id, stamp, stop_text.feed(decoder.feed(token_id)))
            if stop_text.stopped:
                reason = StopReason.STOP_MARKER
                return False
            return wanted

        self._model.generate(self._request, on_token)
        if reason is None and count >= self._request.sampling.max_new_tokens:
            return StopReason.LENGTH
        return reason

    def close(self) -> str:
        return self._stop_text.feed(self._decoder.close()) + self._stop_text.close()

    def interrupt(self) -> None:
        self._model.interrupt(self._request)


class _TextWork:
    """A server elsewhere gives text; it formats, decodes, stops and counts."""

    prompt_format = SERVERS_FORMAT

    def __init__(self, model: TextModel, request: GenerationRequest) -> None:
        if request.prompt_format not in (None, SERVERS_FORMAT):
            raise BadRequestError(
                "A remote server puts its model's own format around the instruction; leave the "
                "prompt format out."
            )
        if request.verbatim:
            raise BadRequestError(
                "A remote server puts its model's own format around what it is sent; ask it by "
                "messages."
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
    """As many new tokens as there is room for, one at least."""
    room = sampling.max_new_tokens if positions is None else max(1, positions - prompt)
    return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))


def _check_room(prompt: int, wanted: int, positions: int | None, name: str) -> None:
    """
    Raises:
        PromptTooLongError: with the new tokens asked for the prompt exceeds the model's positions.
    """
    if positions is None or prompt + wanted <= positions:
        return
    room = positions - prompt
    remedy = (
        f"ask for at most {room:,} new tokens or shorten the text"
        if room > 0
        else "shorten the text"
    )
    raise PromptTooLongError(
        f"The prompt has {prompt:,} tokens and {wanted:,} new ones were asked for, together "
        f"{prompt + wanted:,}, but {name} has positions for {positions:,}; {remedy}."
    )
