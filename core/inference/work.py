"""Runs a request on a leased model: token ids for local models, text for remote ones."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

from core.catalogue.chat_template import without_oldest
from core.catalogue.prompts import Prompt, PromptFormat, StopRule, choose_format, prompt_format
from core.errors import BadRequestError, OptionError, PromptTooLongError
from core.inference.answer import StopReason
from core.inference.request import GenerationRequest
from core.inference.text import StopText, TextDecoder
from core.inference.thinking import (
    ALL_MARKERS,
    NO_MARKERS,
    MarkerIds,
    Split,
    ThoughtSplitter,
    opened_by,
)
from core.runtimes.base import Conditions, LoadedModel, StampedId
from core.runtimes.pool import Lease
from core.runtimes.remote import RemoteModel
from core.runtimes.spec import (
    GenAIOptions,
    SamplingSettings,
    Speculation,
    SpeculationMode,
    TextRequest,
    TokenRequest,
)
from core.store import StoredModel

if TYPE_CHECKING:
    from core.inference.token_probabilities import TokenProbability


class LogProbability(NamedTuple):
    """The log probability of a token of the answer."""

    text: str
    """Text that the token completes, empty for the first part of a character."""
    value: float
    """See :attr:`core.runtimes.base.StampedId.log_probability`."""
    token: TokenProbability | None = None
    """The token itself with its alternatives, if they were requested."""


class Piece(NamedTuple):
    """What one token (or one chunk of a remote server) adds."""

    text: str = ""
    """Text of the answer that it completes."""
    thoughts: str = ""
    """Text of the thoughts that it completes."""
    thinking: bool = False
    """Whether it belongs to the thoughts; their markers do."""
    undecided: bool = False
    """Whether the next pieces tell that: it may be the beginning of a marker."""
    log_probability: LogProbability | None = None
    """None for thoughts, and unless it was requested."""


OnPiece = Callable[[int | None, float, Piece], bool]
"""Called with a token id (None if unknown), its time (``time.perf_counter()`` in seconds), and what
it adds; returning False ends the answer."""

VERBATIM_FORMAT = "plain"
"""Prompt format recorded for a verbatim prompt."""
SERVERS_FORMAT = "chat"
"""Prompt format recorded for remote models, whose servers apply a chat template."""


class Work(ABC):
    """A request that is ready to run on a model."""

    prompt_format: str
    conditions: Conditions
    prompt_ids: tuple[int, ...] = ()
    """Empty for remote models."""
    prompt_tokens: int | None = None
    """None if it is not known (yet)."""
    new_tokens: int | None = None
    """None if it equals the number of pieces."""
    cached_tokens: int | None = None
    """Prompt tokens that were in the prefix cache; None without one."""
    draft_tokens: int | None = None
    """Tokens guessed by speculation so far; None if none were."""
    dropped: int = 0
    """Earlier messages that were left out."""

    @abstractmethod
    def run(self, on_piece: OnPiece) -> StopReason | None:
        """Generate; return None if neither the model nor the length ended it.

        Raises:
            InterruptedGeneration: :meth:`interrupt` ended it.
            PaddockError: the runtime or the server failed.
        """

    @abstractmethod
    def close(self) -> Piece:
        """Return the text that was held back; call once after the end, for any reason."""

    @abstractmethod
    def interrupt(self) -> None:
        """End it; can be called repeatedly and from any thread."""


def work_on(lease: Lease, request: GenerationRequest) -> Work:
    """Prepare a request for a leased model.

    Raises:
        PaddockError: the request does not fit the model.
    """
    if lease.stored is None:
        return _TextWork(cast(RemoteModel, lease.model), request)
    return _TokenWork(cast(LoadedModel, lease.model), lease.stored, request)


class EncodedPrompt(NamedTuple):
    """The prompt of a request."""

    prompt_format: PromptFormat
    prompt: Prompt
    ids: tuple[int, ...]
    """Token ids of the prompt, and of the beginning of the answer that the model continues."""
    dropped: int
    """Earlier messages that were left out."""


def encode_prompt(model: LoadedModel, key: str, request: GenerationRequest) -> EncodedPrompt:
    """Return the prompt that a model gets.

    Args:
        key: of the model.

    Raises:
        PaddockError: it has no prompt format for the request.
    """
    requested = VERBATIM_FORMAT if request.verbatim else request.prompt_format
    chosen = choose_format(key, requested, model.tokenizer)
    earlier = request.earlier
    while True:
        if request.verbatim:
            prompt = Prompt(request.instruction, add_special_tokens=True)
        else:
            prompt = chosen.build(
                model.tokenizer,
                request.instruction,
                request.context,
                earlier,
                request.chat_template_kwargs,
            )
        encoded = model.tokenizer(
            prompt.text + request.continues,
            add_special_tokens=prompt.add_special_tokens,
            verbose=False,
        )
        ids = tuple(encoded["input_ids"])
        length = len(ids) + request.sampling.max_new_tokens
        shorter = without_oldest(earlier) if request.drop_earlier else earlier
        if model.positions is None or length <= model.positions or shorter == earlier:
            return EncodedPrompt(chosen, prompt, ids, len(request.earlier) - len(earlier))
        earlier = shorter


class _TokenWork(Work):
    """Work of a local model, which generates token ids; they are formatted and decoded here."""

    def __init__(self, model: LoadedModel, stored: StoredModel, request: GenerationRequest) -> None:
        chosen, prompt, ids, self.dropped = encode_prompt(model, stored.key, request)
        options = request.options
        _check_options(options, request.speculation, model)
        sampling = _shortened(request.sampling, len(ids), model.positions, stored.title)
        self.prompt_format, self.conditions = chosen.name, model.conditions
        self.prompt_ids = ids
        self.prompt_tokens = len(ids)
        self._model = model
        if request.verbatim or options.structure is not None:
            self._markers, self._splitter = NO_MARKERS, ThoughtSplitter(ALL_MARKERS)
        else:
            self._markers = MarkerIds.of(model.tokenizer)
            opened = None if request.continues else opened_by(prompt.text)
            self._splitter = ThoughtSplitter(self._markers.texts.values(), opened=opened)
        rule = chosen.stop_rule(model.tokenizer, model.end_ids)
        if options.ignore_eos:
            rule = StopRule(frozenset(), frozenset(), (), ())
        elif options.structure is not None:  # it ends the answer, whose text may contain any marker
            rule = replace(rule, texts=(), lines=())
        self._rule = replace(
            rule,
            token_ids=(rule.token_ids - {self._markers.harmony_end}).union(options.stop_token_ids),
            texts=(*rule.texts, *request.stop),
        )
        self._request = TokenRequest(
            ids, sampling, self._rule.token_ids, options, speculation=request.speculation
        )
        self._decoder = TextDecoder(model.tokenizer)
        keep_space = request.verbatim or bool(request.continues) or options.structure is not None
        self._stop_text = StopText(self._rule, keep_space=keep_space)

    def run(self, on_piece: OnPiece) -> StopReason | None:
        rule, splitter, stop_text = self._rule, self._splitter, self._stop_text
        reason: StopReason | None = None
        count = 0

        def on_token(token_id: int) -> bool:
            nonlocal reason, count
            stamp = time.perf_counter()
            if isinstance(token_id, StampedId):
                stamp = token_id.stamp_s
                if token_id.cached_tokens is not None:
                    self.cached_tokens = token_id.cached_tokens
                if token_id.step_drafts:
                    self.draft_tokens = (self.draft_tokens or 0) + token_id.step_drafts
            count += 1
            if token_id in rule.token_ids:
                marker = token_id in rule.marker_ids
                reason = StopReason.STOP_MARKER if marker else StopReason.END_OF_TEXT
                on_piece(token_id, stamp, Piece())
                return False
            thinking = splitter.thinking
            answer, thoughts = self._split(token_id)
            thinking = thinking or splitter.thinking
            found = getattr(token_id, "log_probability", None)
            known = None if found is None or thinking else LogProbability(answer, found)
            piece = Piece(stop_text.feed(answer), thoughts, thinking, splitter.undecided, known)
            more = on_piece(token_id, stamp, piece)
            if stop_text.stopped or splitter.ended:
                reason = StopReason.STOP_MARKER
                return False
            return more

        try:
            self._model.generate(self._request, on_token)
        except BadRequestError as error:
            structure = self._request.options.structure
            if structure is None:
                raise
            raise OptionError(
                f"`{structure.field}` cannot be used: {str(error).rstrip('.')}. Correct it.",
                structure.field,
            ) from error
        if reason is None and count >= self._request.sampling.max_new_tokens:
            return StopReason.LENGTH
        return reason

    def _split(self, token_id: int) -> Split:
        marker = self._markers.texts.get(token_id)
        if marker is None:
            return self._splitter.feed(self._decoder.feed(token_id))
        before = self._splitter.feed(self._decoder.close())
        literal = token_id not in self._markers.special
        return before.then(self._splitter.marker(marker, literal=literal))

    def close(self) -> Piece:
        split = self._splitter.feed(self._decoder.close()).then(self._splitter.close())
        stop_text = self._stop_text
        return Piece(stop_text.feed(split.answer) + stop_text.close(), split.thoughts)

    def interrupt(self) -> None:
        self._model.interrupt(self._request)


class _TextWork(Work):
    """Work of a remote model, whose server formats, decodes, stops and counts."""

    prompt_format = SERVERS_FORMAT

    def __init__(self, model: RemoteModel, request: GenerationRequest) -> None:
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
        _refuse(request.options, request.speculation)
        if request.continues:
            raise BadRequestError("A remote server does not continue an answer. Generate it again.")
        content = prompt_format(SERVERS_FORMAT).content(request.instruction, request.context)
        turns = (*((turn.role.value, turn.text) for turn in request.earlier), ("user", content))
        self.conditions = model.conditions
        self._model = model
        self._request = TextRequest(
            turns, request.sampling, request.stop, request.chat_template_kwargs
        )
        self._splitter = ThoughtSplitter()

    def run(self, on_piece: OnPiece) -> StopReason | None:
        splitter = self._splitter

        def on_text(text: str, thoughts: str) -> bool:
            thinking = bool(thoughts) or splitter.thinking
            split = splitter.feed(text)
            thinking = thinking or splitter.thinking
            piece = Piece(split.answer, thoughts + split.thoughts, thinking, splitter.undecided)
            return on_piece(None, time.perf_counter(), piece)

        end = self._model.answer(self._request, on_text)
        self.prompt_tokens, self.new_tokens = end.prompt_tokens, end.new_tokens
        self.cached_tokens = end.cached_tokens
        self.conditions = end.conditions
        return StopReason.LENGTH if end.reached_length else StopReason.END_OF_TEXT

    def close(self) -> Piece:
        return Piece(*self._splitter.close())

    def interrupt(self) -> None:
        self._model.interrupt(self._request)


def _refuse(options: GenAIOptions, speculation: Speculation) -> None:
    asked = ["speculation"] if speculation.mode is SpeculationMode.ON else []
    for name in [*options.used, *asked]:
        raise OptionError(
            f"`{name}` is supported by OpenVINO GenAI only, and this model runs with another "
            "runtime. Remove it, or choose another model.",
            name,
        )


def _check_options(options: GenAIOptions, speculation: Speculation, model: LoadedModel) -> None:
    if not model.takes_options:
        _refuse(options, speculation)
    if options.stop_token_ids:  # others would be written outside GenAI's array of logits
        last = max(model.tokenizer.get_vocab().values())
        if max(options.stop_token_ids) > last:
            raise OptionError(
                f"`stop_token_ids` contains {max(options.stop_token_ids)}, but the largest token "
                f"id of this model is {last}.",
                "stop_token_ids",
            )


def _shortened(
    sampling: SamplingSettings, prompt: int, positions: int | None, name: str
) -> SamplingSettings:
    """Limit the new tokens to what the prompt leaves of the model's context length.

    Raises:
        PromptTooLongError: it leaves nothing.
    """
    if positions is None:
        return sampling
    if prompt >= positions:
        raise PromptTooLongError(
            f"The prompt has {prompt:,} tokens, but the context length of {name} is {positions:,}, "
            "prompt and answer together. Shorten the text."
        )
    return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, positions - prompt))
