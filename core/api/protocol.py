"""Parse and validate the bodies of ``/v1/chat/completions`` and ``/v1/completions``.

Each field is on one of three lists: supported (the fields of :class:`ChatBody` and
:class:`CompletionBody`), without effect on the answer and ignored (``user``, ``metadata`` …), or
rejected by name. A sampling setting that is left out has the value that the pages start with for
that model.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from core.api.body import REMOVE, Fields, Whole, invalid, number, unsupported, whole
from core.api.errors import ApiError, invalid_value
from core.api.messages import parse_messages
from core.api.structure import StructureFields
from core.errors import BadRequestError
from core.inference.request import (
    MAX_STOP_CHARACTERS,
    MAX_STOPS,
    GenerationRequest,
    check_text,
)
from core.runtimes.spec import (
    GUESSED_TOKENS_RANGE,
    MAX_NEW_TOKENS_RANGE,
    NGRAM_RANGE,
    REPETITION_PENALTY_RANGE,
    SEED_RANGE,
    TEMPERATURE_RANGE,
    TOP_K_RANGE,
    TOP_P_RANGE,
    GenAIOptions,
    SamplingSettings,
    Speculation,
    SpeculationMode,
)
from core.settings import Settings

MAX_CHOICES = 8
MAX_TOP_LOGPROBS = 20
MAX_STOP_IDS = 64
OPENAI_TEMPERATURES = (0.0, 2.0)
OPENAI_SEEDS = (-(2**63), 2**63 - 1)
"""64-bit integers; the runtimes' seeds have 32 bits, so larger ones are taken modulo 2^32."""

_NO_EFFECT = frozenset(
    (
        *("keep_alive", "metadata", "parallel_tool_calls", "priority", "prompt_cache_key"),
        *("prompt_cache_retention", "request_id", "safety_identifier", "service_tier", "store"),
        "user",
    )
)
"""Fields of OpenAI's and other servers' APIs that never change the answer."""

_NOTHING: tuple[Any, ...] = ([], {}, "", False)
_TEXT = "Answers are plain text."
_LENGTH = "Use `max_tokens` instead."
_FORMAT = "Use `response_format` instead."
_KWARGS = "Set the variable of the model's chat template in `chat_template_kwargs` instead."
_REMOVED: tuple[tuple[tuple[Any, ...], tuple[str, ...]], ...] = (
    (_NOTHING, ("bad_words", "functions", "logit_bias", "logits_processors", "lora", "plugins")),
    (_NOTHING, ("prediction", "suffix", "tools")),
    ((*_NOTHING, "none", "auto"), ("function_call", "tool_choice")),
    ((False,), ("add_special_tokens", "background", "continue_final_message", "early_stopping")),
    ((False,), ("echo", "include_stop_str_in_output", "prompt_logprobs", "raw")),
    ((False,), ("return_progress", "safe_prompt", "timings_per_token", "use_beam_search")),
    ((True,), ("add_generation_prompt", "include_reasoning", "separate_reasoning")),
    ((True,), ("skip_special_tokens", "spaces_between_special_tokens")),
    ((0,), ("dry_multiplier", "dynatemp_range", "min_keep", "mirostat", "n_keep", "n_probs")),
    ((0,), ("no_repeat_ngram_size", "top_a", "xtc_probability")),
    ((1,), ("best_of", "length_penalty", "num_beams", "tfs_z", "typical_p")),
    ((-1,), ("id_slot",)),
    (("auto", "deepseek"), ("reasoning_format",)),
    (("disabled",), ("truncation",)),
    (("medium",), ("verbosity",)),
    ((), ("web_search_options",)),
)
"""Fields to remove from a request, by their values that are accepted: they change nothing, and some
clients send them by default."""
_UNSUPPORTED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "audio": (_TEXT, _NOTHING),
    "cache_prompt": ("The prefix cache is always used.", (True,)),
    "do_sample": ("Use `temperature` instead; 0 is greedy.", ()),
    "documents": ("Use `context` instead.", _NOTHING),
    "format": (_FORMAT, _NOTHING),
    "grammar": ("Use `guided_grammar` instead.", _NOTHING),
    "guided_choice": ("Use `guided_regex` instead, such as left|right.", _NOTHING),
    "images": (_TEXT, _NOTHING),
    "json_schema": (_FORMAT, _NOTHING),
    "max_new_tokens": (_LENGTH, ()),
    "modalities": (_TEXT, (*_NOTHING, ["text"])),
    "n_predict": (_LENGTH, ()),
    "num_predict": (_LENGTH, ()),
    "options": ("Send its fields at the top level of the request.", _NOTHING),
    "repeat_penalty": ("Use `repetition_penalty` instead.", (1,)),
    "structured_outputs": (_FORMAT, _NOTHING),
    "top_logprobs": ("Use `logprobs` instead.", (0,)),
    **dict.fromkeys(
        ("enable_thinking", "reasoning", "reasoning_effort", "think", "thinking"), (_KWARGS, ())
    ),
    **{name: (REMOVE, neutral) for neutral, names in _REMOVED for name in names},
}
"""Unsupported fields of OpenAI's and other servers' APIs: what to do instead, and the values that
change nothing and are accepted."""


def _one_prompt(value: Any) -> Any:
    prompt = value[0] if isinstance(value, list) and len(value) == 1 else value
    if prompt == "":
        raise ValueError
    return prompt


def _without_empty(value: Any) -> Any:
    """Leave out empty stop texts, which never end an answer."""
    texts = [value] if isinstance(value, str) else value
    return [text for text in texts if text != ""] if isinstance(texts, list) else texts


Stop = Annotated[str, Field(max_length=MAX_STOP_CHARACTERS)]
Stops = Annotated[
    list[Stop],
    Field(max_length=MAX_STOPS, fail_fast=True),
    BeforeValidator(_without_empty),
]
NewTokens = Annotated[Whole, Field(ge=1)]
TokenIds = Annotated[
    list[Annotated[Whole, Field(ge=0, lt=2**31)]], Field(max_length=MAX_STOP_IDS, fail_fast=True)
]


class SpeculationFields(Fields):
    """The object ``speculation``, which switches prompt lookup on."""

    tokens: Whole = whole(*GUESSED_TOKENS_RANGE, default=Speculation.tokens)
    ngram: Whole = whole(*NGRAM_RANGE, default=Speculation.ngram)


class StreamOptions(Fields):
    """The object ``stream_options``."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Ignored; the chunks have no random padding."""


class Body(StructureFields):
    """Fields of both routes.

    In addition to OpenAI's: ``return_full_text``, which prepends the prompt to the answer, and
    fields of vLLM.
    """

    no_effect = _NO_EFFECT

    model: str = Field(min_length=1)
    max_completion_tokens: NewTokens | None = Field(None, description="an integer from 1")
    max_tokens: NewTokens | None = Field(None, description="an integer from 1")
    temperature: float | None = number(*OPENAI_TEMPERATURES)
    top_p: float | None = number(0.0, 1.0)
    top_k: Whole | None = whole(-1, TOP_K_RANGE[1])
    repetition_penalty: float | None = number(*REPETITION_PENALTY_RANGE)
    min_p: float = number(0.0, 1.0, default=0.0)
    presence_penalty: float = number(-2.0, 2.0, default=0.0)
    frequency_penalty: float = number(-2.0, 2.0, default=0.0)
    seed: Whole | None = whole(*OPENAI_SEEDS)
    n: Whole = whole(1, MAX_CHOICES, default=1)
    min_tokens: Whole = whole(0, MAX_NEW_TOKENS_RANGE[1], default=0)
    ignore_eos: bool = False
    speculation: Literal["off", "on", "auto"] | dict[str, Any] = Field(
        "auto", description='off, on, auto, or an object like {"tokens": 5, "ngram": 3}'
    )
    stop_token_ids: TokenIds = Field([], description=f"a list of up to {MAX_STOP_IDS} token ids")
    stop: Stops = Field(
        [],
        description=f"a string or a list of up to {MAX_STOPS} strings of at most "
        f"{MAX_STOP_CHARACTERS} characters",
    )
    stream: bool = False
    stream_options: dict[str, Any] | None = Field(
        None, description='an object like {"include_usage": true}'
    )
    return_full_text: bool = False
    return_token_ids: bool = False

    @classmethod
    def parse(cls, values: Any, path: str = "") -> Self:
        """See :meth:`core.api.body.Fields.parse`; unsupported fields may have neutral values."""
        return super().parse(_without_neutral(values, cls.model_fields), path)


class ChatBody(Body):
    """Body of ``/v1/chat/completions``.

    In addition to OpenAI's fields: ``context``, a context passage for the last message, and
    ``chat_template_kwargs``, as in vLLM and llama.cpp.
    """

    messages: list[Any] = Field(min_length=1, description="a list of messages")
    """Each a :class:`core.api.messages.Message`."""
    context: str = ""
    chat_template_kwargs: dict[str, Any] = Field({}, description="an object")
    """Variables of the model's chat template, such as ``enable_thinking``."""
    logprobs: bool = False
    top_logprobs: Whole = whole(0, MAX_TOP_LOGPROBS, default=0)


class CompletionBody(Body):
    """Body of ``/v1/completions``, whose prompt is passed to the model unchanged."""

    prompt: Annotated[str, BeforeValidator(_one_prompt)] = Field(
        description="a string or a list of one string, not token ids"
    )
    echo: bool = False
    """OpenAI's name of ``return_full_text``."""
    logprobs: Whole | None = whole(0, MAX_TOP_LOGPROBS)
    """How many of the likeliest tokens are returned beside the chosen one."""


@dataclass(frozen=True)
class ParsedRequest:
    """A validated request for one or several answers."""

    model: str
    """Model name as sent."""
    request: GenerationRequest
    choices: int
    """Number of answers; each is a request of its own."""
    stream: bool
    include_usage: bool
    prefix: str
    """The prompt, if the answer should start with it; else empty."""
    param: str
    """The field that contains the prompt."""
    token_ids: bool = False
    """Whether the response should have the token ids."""

    @property
    def requests(self) -> list[GenerationRequest]:
        """One request for each choice; a seed is increased from choice to choice."""
        sampling = self.request.sampling
        if sampling.seed is None:
            return [self.request] * self.choices
        seeds = [(sampling.seed + index) % (SEED_RANGE[1] + 1) for index in range(self.choices)]
        return [replace(self.request, sampling=replace(sampling, seed=seed)) for seed in seeds]


Defaults = Callable[[str], SamplingSettings]
"""Returns a model's default sampling settings, by the model's name."""


def parse_chat(
    body: Mapping[str, Any],
    settings: Settings,
    defaults: Defaults = lambda _: SamplingSettings(),
) -> ParsedRequest:
    """Parse the body of ``/v1/chat/completions``.

    Raises:
        ApiError: a field is invalid or unsupported; the error names it.
    """
    fields = ChatBody.parse(body)
    *earlier, last = parse_messages(fields.messages)
    _check_readable("context", fields.context)
    request = GenerationRequest(
        last.text,
        fields.context,
        earlier=tuple(earlier),
        chat_template_kwargs=fields.chat_template_kwargs,
    )
    prefix = f"{last.text.strip()}\n" if fields.return_full_text else ""
    return _parsed(fields, settings, defaults(fields.model), request, prefix, "messages")


def parse_completion(
    body: Mapping[str, Any],
    settings: Settings,
    defaults: Defaults = lambda _: SamplingSettings(),
) -> ParsedRequest:
    """Parse the body of ``/v1/completions``.

    Raises:
        ApiError: a field is invalid or unsupported; the error names it.
    """
    fields = CompletionBody.parse(body)
    for name in ("echo", "return_full_text"):
        if getattr(fields, name) and fields.logprobs is not None:
            raise unsupported(name, "`logprobs` has no values for the prompt. Remove one.")
    request = GenerationRequest(fields.prompt, verbatim=True)
    prefix = fields.prompt if fields.echo or fields.return_full_text else ""
    return _parsed(fields, settings, defaults(fields.model), request, prefix, "prompt")


def _parsed(
    fields: Body,
    settings: Settings,
    default: SamplingSettings,
    request: GenerationRequest,
    prefix: str,
    param: str,
) -> ParsedRequest:
    """Apply the fields of both routes."""
    for text in fields.stop:
        _check_readable("stop", text)
    sampling = _sampling(fields, settings, default)
    options = _options(fields, sampling)
    if isinstance(fields.speculation, str):
        speculation = Speculation(SpeculationMode(fields.speculation))
    else:
        guesses = SpeculationFields.parse(fields.speculation, "speculation")
        speculation = Speculation(SpeculationMode.ON, guesses.tokens, guesses.ngram)
    request = replace(
        request,
        sampling=sampling,
        stop=tuple(fields.stop),
        options=options,
        speculation=speculation,
    )
    if request.characters > settings.max_characters:
        raise ApiError(
            400,
            f"`{param}` has {request.characters:,} characters. Send at most "
            f"{settings.max_characters:,}.",
            code="string_above_max_length",
            param=param,
        )
    if fields.stream_options is not None and not fields.stream:
        raise invalid_value("`stream_options` requires `stream` to be true.", "stream_options")
    streaming = StreamOptions.parse(fields.stream_options or {}, "stream_options")
    return ParsedRequest(
        model=fields.model,
        request=request,
        choices=fields.n,
        stream=fields.stream,
        include_usage=bool(streaming.include_usage),
        prefix=prefix,
        param=param,
        token_ids=fields.return_token_ids,
    )


def _check_readable(name: str, text: str) -> None:
    try:
        check_text(f"field `{name}`", text)
    except BadRequestError as error:
        raise invalid_value(str(error), name) from None


def _options(fields: Body, sampling: SamplingSettings) -> GenAIOptions:
    options = GenAIOptions(
        min_p=fields.min_p,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        min_tokens=fields.min_tokens,
        ignore_eos=fields.ignore_eos,
        stop_token_ids=tuple(fields.stop_token_ids),
        logprobs=fields.logprobs is not None and fields.logprobs is not False,
        top_logprobs=_top_logprobs(fields),
        structure=fields.structure(),
    )
    if options.min_tokens > sampling.max_new_tokens:
        raise invalid("min_tokens", options.min_tokens, f"at most {sampling.max_new_tokens}")
    if options.structure is not None and (options.ignore_eos or options.stop_token_ids):
        name = "ignore_eos" if options.ignore_eos else "stop_token_ids"
        raise invalid_value(
            f"`{name}` and `{options.structure.field}` cannot be combined. Remove one.",
            name,
        )
    return options


def _top_logprobs(fields: Body) -> int:
    """Return how many alternatives of each token were requested.

    Raises:
        ApiError: without ``logprobs``, as OpenAI's API requires it.
    """
    if not isinstance(fields, ChatBody):
        return int(getattr(fields, "logprobs", None) or 0)
    if fields.top_logprobs and not fields.logprobs:
        raise invalid_value("`top_logprobs` requires `logprobs` to be true.", "top_logprobs")
    return fields.top_logprobs


def _without_neutral(body: Mapping[str, Any], done: Container[str]) -> dict[str, Any]:
    """Return the body without fields that are not ``done`` and whose value changes nothing.

    Raises:
        ApiError: an unsupported field would change the answer.
    """
    kept = {}
    for name, value in body.items():
        if name in done or name not in _UNSUPPORTED or value is None:
            kept[name] = value
            continue
        hint, neutral = _UNSUPPORTED[name]
        if not any(
            value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral
        ):
            raise unsupported(name, hint)
    return kept


def _sampling(fields: Body, settings: Settings, default: SamplingSettings) -> SamplingSettings:
    """Return the settings.

    Args:
        default: the model's settings, for fields that are left out.
    """
    given = [each for each in (fields.max_completion_tokens, fields.max_tokens) if each]
    wanted = min(given, default=default.max_new_tokens)
    temperature = default.temperature if fields.temperature is None else fields.temperature
    top_p = default.top_p if fields.top_p is None else fields.top_p
    top_k = default.top_k if fields.top_k is None else fields.top_k
    penalty, seed = fields.repetition_penalty, fields.seed
    # Below the runtimes' ranges the likeliest token is chosen nearly always, so decode greedily.
    greedy = (
        (default.greedy and fields.temperature is fields.top_p is fields.top_k is None)
        or temperature < TEMPERATURE_RANGE[0]
        or top_p < TOP_P_RANGE[0]
        or fields.top_k == 1
    )
    return SamplingSettings(
        max_new_tokens=min(wanted, settings.max_new_tokens or MAX_NEW_TOKENS_RANGE[1]),
        temperature=default.temperature if greedy else temperature,
        top_p=default.top_p if greedy else top_p,
        top_k=max(0, top_k),
        repetition_penalty=default.repetition_penalty if penalty is None else penalty,
        greedy=greedy,
        seed=None if greedy or seed is None else seed % (SEED_RANGE[1] + 1),
    )
