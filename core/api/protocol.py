"""Parse and validate the bodies of ``/v1/chat/completions`` and ``/v1/completions``.

Unsupported fields are rejected by name; fields that do not change the answer (``user``,
``metadata``, ``store`` …) are ignored. A sampling setting that is left out has the value that the
pages start with for that model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from core.api.errors import ApiError
from core.api.fields import Fields, Whole, invalid, number, unsupported, whole
from core.api.service import Limits
from core.catalogue.prompts import Role, Turn
from core.inference.request import MAX_STOP_CHARACTERS, MAX_STOPS, GenerationRequest
from core.runtimes.spec import (
    MAX_NEW_TOKENS_RANGE,
    REPETITION_PENALTY_RANGE,
    SEED_RANGE,
    TEMPERATURE_RANGE,
    TOP_K_RANGE,
    TOP_P_RANGE,
    SamplingSettings,
)

MAX_MESSAGES = 1000
OPENAI_TEMPERATURES = (0.0, 2.0)
OPENAI_SEEDS = (-(2**63), 2**63 - 1)
"""64-bit integers; the runtimes' seeds have 32 bits, so larger ones are taken modulo 2^32."""

_NOTHING: tuple[Any, ...] = (None, [], {}, "", False)
_REMOVE = "Remove it from the request."
_USE_PENALTY = "Use `repetition_penalty` instead."
_UNSUPPORTED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tools": (_REMOVE, _NOTHING),
    "functions": (_REMOVE, _NOTHING),
    "tool_choice": (_REMOVE, (*_NOTHING, "none", "auto")),
    "function_call": (_REMOVE, (*_NOTHING, "none", "auto")),
    "n": ("Send several requests instead.", (None, 1)),
    "best_of": (_REMOVE, (None, 1)),
    "logprobs": (_REMOVE, (None, False)),
    "top_logprobs": (_REMOVE, (None, 0)),
    "logit_bias": (_REMOVE, _NOTHING),
    "presence_penalty": (_USE_PENALTY, (None, 0)),
    "frequency_penalty": (_USE_PENALTY, (None, 0)),
    "response_format": ("Answers are plain text.", (*_NOTHING, {"type": "text"})),
    "modalities": ("Answers are plain text.", (*_NOTHING, ["text"])),
    "audio": ("Answers are plain text.", _NOTHING),
    "prediction": (_REMOVE, _NOTHING),
    "web_search_options": (_REMOVE, _NOTHING),
    "suffix": (_REMOVE, _NOTHING),
}
"""Unsupported fields of OpenAI's API that would change the answer: what to do instead, and the
values that change nothing and are accepted."""


_CONTENT = "a string or a list of text parts"


def _one_prompt(value: Any) -> Any:
    prompt = value[0] if isinstance(value, list) and len(value) == 1 else value
    if prompt == "":
        raise ValueError
    return prompt


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS, fail_fast=True)]


class StreamOptions(Fields):
    """The object ``stream_options``."""

    include_usage: bool | None = None


class Body(Fields):
    """Fields of both routes.

    In addition to OpenAI's: ``return_full_text``, which prepends the prompt to the answer.
    """

    model: str = Field(min_length=1)
    max_completion_tokens: Whole | None = whole(1, MAX_NEW_TOKENS_RANGE[1])
    max_tokens: Whole | None = whole(1, MAX_NEW_TOKENS_RANGE[1])
    temperature: float | None = number(*OPENAI_TEMPERATURES)
    top_p: float | None = number(0.0, 1.0)
    top_k: Whole | None = whole(-1, TOP_K_RANGE[1])
    repetition_penalty: float | None = number(*REPETITION_PENALTY_RANGE)
    seed: Whole | None = whole(*OPENAI_SEEDS)
    stop: Stop | Stops = Field(
        [],
        description=f"a string or a list of up to {MAX_STOPS} strings of 1 to "
        f"{MAX_STOP_CHARACTERS} characters",
    )
    stream: bool = False
    stream_options: StreamOptions | None = Field(
        None, description='an object like {"include_usage": true}'
    )
    return_full_text: bool = False


class ChatBody(Body):
    """Body of ``/v1/chat/completions``.

    In addition to OpenAI's fields: ``context``, a context passage for the last message.
    """

    messages: list[Any] = Field(min_length=1, description="a list of messages")
    """Each a :class:`Message`."""
    context: str = ""


class Message(Fields):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="system, developer, user or assistant"
    )
    content: str | list[Any] | None = Field(None, description=_CONTENT)
    tool_calls: Any = None
    function_call: Any = None


class CompletionBody(Body):
    """Body of ``/v1/completions``, whose prompt is passed to the model unchanged."""

    prompt: Annotated[str, BeforeValidator(_one_prompt)] = Field(
        description="a string or a list of one string, not token ids"
    )
    echo: bool = False
    """OpenAI's name of ``return_full_text``."""


@dataclass(frozen=True)
class ParsedRequest:
    """A validated request for one answer."""

    model: str
    """Model name as sent."""
    request: GenerationRequest
    stream: bool
    include_usage: bool
    prefix: str
    """The prompt, if the answer should start with it; else empty."""
    param: str
    """The field that contains the prompt."""


Defaults = Callable[[str], SamplingSettings]
"""Returns a model's default sampling settings, by the model's name."""


def _dolly(name: str) -> SamplingSettings:
    return SamplingSettings()


def parse_chat(
    body: Mapping[str, Any], limits: Limits, defaults: Defaults = _dolly
) -> ParsedRequest:
    """Parse the body of ``/v1/chat/completions``.

    Raises:
        ApiError: a field is invalid or unsupported; the error names it.
    """
    _check_supported(body)
    fields = ChatBody.parse(body)
    if len(fields.messages) > MAX_MESSAGES:
        raise invalid("messages", fields.messages, f"a list of at most {MAX_MESSAGES:,} messages")
    *earlier, last = [_turn(f"messages[{i}]", each) for i, each in enumerate(fields.messages)]
    if last.role is not Role.USER:
        raise invalid("messages", fields.messages, "a list that ends with a user message")
    request = GenerationRequest(last.text, fields.context, earlier=tuple(earlier))
    prefix = f"{last.text.strip()}\n" if fields.return_full_text else ""
    return _parsed(fields, limits, defaults(fields.model), request, prefix, "messages")


def parse_completion(
    body: Mapping[str, Any], limits: Limits, defaults: Defaults = _dolly
) -> ParsedRequest:
    """Parse the body of ``/v1/completions``.

    Raises:
        ApiError: a field is invalid or unsupported; the error names it.
    """
    _check_supported(body)
    fields = CompletionBody.parse(body)
    request = GenerationRequest(fields.prompt, verbatim=True)
    prefix = fields.prompt if fields.echo or fields.return_full_text else ""
    return _parsed(fields, limits, defaults(fields.model), request, prefix, "prompt")


def _parsed(
    fields: Body,
    limits: Limits,
    default: SamplingSettings,
    request: GenerationRequest,
    prefix: str,
    param: str,
) -> ParsedRequest:
    """Apply the fields of both routes."""
    sampling, shorten = _sampling(fields, limits, default)
    stop = [fields.stop] if isinstance(fields.stop, str) else fields.stop
    request = replace(request, sampling=sampling, stop=tuple(stop), shorten=shorten)
    if request.characters > limits.max_characters:
        raise ApiError(
            400,
            f"`{param}` has {request.characters:,} characters. Send at most "
            f"{limits.max_characters:,}.",
            code="string_above_max_length",
            param=param,
        )
    options = fields.stream_options
    if options is not None and not fields.stream:
        raise ApiError(
            400,
            "`stream_options` requires `stream` to be true.",
            code="invalid_value",
            param="stream_options",
        )
    usage = options is not None and bool(options.include_usage)
    return ParsedRequest(fields.model, request, fields.stream, usage, prefix, param)


def _check_supported(body: Mapping[str, Any]) -> None:
    """Check that no unsupported field would change the answer.

    Raises:
        ApiError: one would.
    """
    for name, (hint, harmless) in _UNSUPPORTED.items():
        value = body.get(name)
        if not any(
            value == each and isinstance(value, bool) == isinstance(each, bool) for each in harmless
        ):
            raise unsupported(name, hint)


def _sampling(
    fields: Body, limits: Limits, default: SamplingSettings
) -> tuple[SamplingSettings, bool]:
    """Return the settings, and whether the length was left out and may be shortened.

    Args:
        default: the model's settings, for fields that are left out.
    """
    most = limits.max_new_tokens
    name = "max_tokens" if fields.max_completion_tokens is None else "max_completion_tokens"
    wanted = getattr(fields, name)
    if wanted is not None and wanted > most:
        raise invalid(name, wanted, f"an integer from 1 to {most}")
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
        max_new_tokens=min(default.max_new_tokens, most) if wanted is None else wanted,
        temperature=default.temperature if greedy else temperature,
        top_p=default.top_p if greedy else top_p,
        top_k=max(0, top_k),
        repetition_penalty=default.repetition_penalty if penalty is None else penalty,
        greedy=greedy,
        seed=None if greedy or seed is None else seed % (SEED_RANGE[1] + 1),
    ), wanted is None


def _turn(path: str, value: Any) -> Turn:
    message = Message.parse(value, path)
    if message.tool_calls or message.function_call:
        raise unsupported(f"{path}.tool_calls", "Remove messages with tool calls.")
    role = "system" if message.role == "developer" else message.role
    return Turn(Role(role), _text(f"{path}.content", message.content))


def _text(path: str, content: str | list[Any] | None) -> str:
    if isinstance(content, str):
        return content
    if not content:
        raise invalid(path, content, _CONTENT)
    texts = []
    for index, part in enumerate(content):
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": str(kind)} if kind != "text":
                raise ApiError(
                    400,
                    f"`{path}[{index}].type` must be text. The models accept only text.",
                    code="unsupported_parameter",
                    param=f"{path}[{index}].type",
                )
            case _:
                wanted = 'an object like {"type": "text", "text": …}'
                raise invalid(f"{path}[{index}]", part, wanted)
    return "\n".join(texts)
