"""Parse and validate the bodies of ``/v1/chat/completions`` and ``/v1/completions``.

Unsupported fields are rejected by name; fields that do not change the answer (``user``,
``metadata``, ``store`` …) are ignored. A sampling setting that is left out has the value that the
pages start with for that model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.api.errors import ApiError
from core.api.fields import Fields, invalid, unsupported
from core.api.service import Limits
from core.catalogue.prompts import Role, Turn
from core.inference.request import MAX_STOP_CHARACTERS, MAX_STOPS, GenerationRequest
from core.runtimes.spec import (
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

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
}

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

    Fields in addition to OpenAI's: ``context``, a context passage for the last message, and
    ``return_full_text``, which prepends the last message to the answer.

    Raises:
        ApiError: a field is invalid or unsupported; the error names it.
    """
    fields = Fields(body)
    model = fields.text("model")
    turns = _turns(fields.get("messages"))
    if turns[-1].role is not Role.USER:
        raise invalid("messages", body["messages"], "a list that ends with a user message")
    context = fields.get("context")
    if context is not None and not isinstance(context, str):
        raise invalid("context", context, "a string")
    last = turns[-1].text
    full = fields.flag("return_full_text")
    request = _request(fields, limits, defaults(model), last, context or "", tuple(turns[:-1]))
    _check_length(request, limits, "messages")
    return ParsedRequest(
        model,
        request,
        *_stream(fields),
        prefix=f"{last.strip()}\n" if full else "",
        param="messages",
    )


def parse_completion(
    body: Mapping[str, Any], limits: Limits, defaults: Defaults = _dolly
) -> ParsedRequest:
    """Parse the body of ``/v1/completions``, whose prompt is passed to the model unchanged.

    Field in addition to OpenAI's: ``return_full_text``, an alias of ``echo``.

    Raises:
        ApiError: a field is invalid or unsupported; the error names it.
    """
    fields = Fields(body)
    model = fields.text("model")
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise invalid("prompt", prompt, "a string or a list of one string, not token ids")
    full = fields.flag("echo") or fields.flag("return_full_text")
    request = _request(fields, limits, defaults(model), prompt, verbatim=True)
    _check_length(request, limits, "prompt")
    prefix = prompt if full else ""
    return ParsedRequest(model, request, *_stream(fields), prefix=prefix, param="prompt")


def _request(
    fields: Fields,
    limits: Limits,
    default: SamplingSettings,
    instruction: str,
    context: str = "",
    earlier: tuple[Turn, ...] = (),
    *,
    verbatim: bool = False,
) -> GenerationRequest:
    _check_supported(fields)
    sampling, shorten = _sampling(fields, limits, default)
    return GenerationRequest(
        instruction,
        context,
        sampling,
        earlier=earlier,
        stop=_stops(fields.get("stop")),
        verbatim=verbatim,
        shorten=shorten,
    )


def _check_supported(fields: Fields) -> None:
    """Check that no unsupported field would change the answer.

    Raises:
        ApiError: one would.
    """
    for name, (hint, harmless) in _UNSUPPORTED.items():
        value = fields.get(name)
        if not any(value == each and type(value) is type(each) for each in harmless) and not (
            isinstance(value, float) and value in harmless
        ):
            raise unsupported(name, hint)


def _sampling(
    fields: Fields, limits: Limits, default: SamplingSettings
) -> tuple[SamplingSettings, bool]:
    """Return the settings, and whether the length was left out and may be shortened.

    Args:
        default: the model's settings, for fields that are left out.
    """
    most = limits.max_new_tokens
    wanted = fields.whole("max_completion_tokens", 1, most)
    if wanted is None:
        wanted = fields.whole("max_tokens", 1, most)
    temperature = fields.number("temperature", *OPENAI_TEMPERATURES)
    top_p = fields.number("top_p", 0.0, 1.0)
    top_k = fields.whole("top_k", -1, TOP_K_RANGE[1])
    penalty = fields.number("repetition_penalty", *REPETITION_PENALTY_RANGE)
    seed = fields.whole("seed", *OPENAI_SEEDS)
    greedy_by_default = default.greedy and temperature is None and top_p is None and top_k is None
    temperature = default.temperature if temperature is None else temperature
    top_p = default.top_p if top_p is None else top_p
    # Below the runtimes' ranges the likeliest token is chosen nearly always, so decode greedily.
    greedy = (
        greedy_by_default
        or temperature < TEMPERATURE_RANGE[0]
        or top_p < TOP_P_RANGE[0]
        or top_k == 1
    )
    return SamplingSettings(
        max_new_tokens=min(default.max_new_tokens, most) if wanted is None else wanted,
        temperature=default.temperature if greedy else temperature,
        top_p=default.top_p if greedy else top_p,
        top_k=max(0, default.top_k if top_k is None else top_k),
        repetition_penalty=default.repetition_penalty if penalty is None else penalty,
        greedy=greedy,
        seed=None if greedy or seed is None else seed % (SEED_RANGE[1] + 1),
    ), wanted is None


def _stops(value: Any) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    texts = [value] if isinstance(value, str) else value
    valid = (
        isinstance(texts, list)
        and len(texts) <= MAX_STOPS
        and all(isinstance(text, str) and 0 < len(text) <= MAX_STOP_CHARACTERS for text in texts)
    )
    if not valid:
        raise invalid(
            "stop",
            value,
            f"a string or a list of up to {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} "
            "characters",
        )
    return tuple(texts)


def _stream(fields: Fields) -> tuple[bool, bool]:
    """Return whether to stream, and whether the stream ends with the usage."""
    stream = fields.flag("stream")
    options = fields.get("stream_options")
    if options is None:
        return stream, False
    if not isinstance(options, dict):
        raise invalid("stream_options", options, "an object")
    if not stream:
        raise ApiError(
            400,
            "`stream_options` requires `stream` to be true.",
            code="invalid_value",
            param="stream_options",
        )
    return stream, Fields(options).flag("include_usage")


def _turns(value: Any) -> list[Turn]:
    if not isinstance(value, list) or not value:
        raise invalid("messages", value, "a list of messages")
    if len(value) > MAX_MESSAGES:
        raise ApiError(
            400,
            f"`messages` has {len(value):,} messages. Send at most {MAX_MESSAGES:,}.",
            code="invalid_value",
            param="messages",
        )
    return [_turn(f"messages[{number}]", each) for number, each in enumerate(value)]


def _turn(name: str, value: Any) -> Turn:
    if not isinstance(value, dict):
        raise invalid(name, value, "an object with role and content")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise invalid(f"{name}.role", role, "system, developer, user or assistant")
    if value.get("tool_calls") or value.get("function_call"):
        raise unsupported(f"{name}.tool_calls", "Remove messages with tool calls.")
    return Turn(_ROLES[role], _content(f"{name}.content", value.get("content")))


def _content(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise invalid(name, value, "a string or a list of text parts")
    texts = []
    for number, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise ApiError(
                400,
                f"`{name}[{number}].type` must be text. The models accept only text.",
                code="unsupported_parameter",
                param=f"{name}[{number}].type",
            )
        if kind is None or not isinstance(part.get("text"), str):
            raise invalid(f"{name}[{number}]", part, 'an object like {"type": "text", "text": …}')
        texts.append(part["text"])
    return "\n".join(texts)


def _check_length(request: GenerationRequest, limits: Limits, param: str) -> None:
    if request.characters > limits.max_characters:
        raise ApiError(
            400,
            f"`{param}` has {request.characters:,} characters. Send at most "
            f"{limits.max_characters:,}.",
            code="string_above_max_length",
            param=param,
        )
