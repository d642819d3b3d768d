"""What a program asks, checked: the bodies of ``/v1/chat/completions`` and ``/v1/completions``.

What cannot be done is refused by name, what changes nothing (``user``, ``metadata``, ``store`` …)
is passed over. A sampling setting that is not named is what the pages begin with for that model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.api.errors import ApiError
from core.api.fields import Fields, unsupported, wrong
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

MOST_MESSAGES = 1000
OPENAI_TEMPERATURES = (0.0, 2.0)
OPENAI_SEEDS = (-(2**63), 2**63 - 1)
"""Whole numbers of 64 bits; the runtimes' seeds have 32, so that the rest is taken modulo that."""

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
}

_NOTHING: tuple[Any, ...] = (None, [], {}, "", False)
_NOT_DONE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tools": ("These models call no tools; leave tools out.", _NOTHING),
    "functions": ("These models call no functions; leave functions out.", _NOTHING),
    "tool_choice": (
        "These models call no tools; leave tool_choice out.",
        (*_NOTHING, "none", "auto"),
    ),
    "function_call": ("These models call no functions; leave it out.", (*_NOTHING, "none", "auto")),
    "n": ("One answer is given to a request; ask several times instead of n.", (None, 1)),
    "best_of": ("One answer is given to a request; leave best_of out.", (None, 1)),
    "logprobs": ("Probabilities of tokens are not told; leave logprobs out.", (None, False)),
    "top_logprobs": ("Probabilities of tokens are not told; leave top_logprobs out.", (None, 0)),
    "logit_bias": ("Tokens cannot be favoured; leave logit_bias out.", _NOTHING),
    "presence_penalty": ("Use repetition_penalty instead of presence_penalty.", (None, 0)),
    "frequency_penalty": ("Use repetition_penalty instead of frequency_penalty.", (None, 0)),
    "response_format": (
        "Answers are plain text; leave response_format out.",
        (*_NOTHING, {"type": "text"}),
    ),
    "modalities": ("Answers are text; leave modalities out.", (*_NOTHING, ["text"])),
    "audio": ("Answers are text; leave audio out.", _NOTHING),
    "prediction": ("Predicted output is not used; leave prediction out.", _NOTHING),
    "web_search_options": ("Nothing is looked up; leave web_search_options out.", _NOTHING),
    "suffix": ("Nothing is put between two texts; leave suffix out.", _NOTHING),
}
"""Fields that would change the answer and do not here; with the values that ask for nothing."""


@dataclass(frozen=True)
class Asked:
    """One answer that a program asks for."""

    model: str
    """As it named it."""
    request: GenerationRequest
    stream: bool
    include_usage: bool
    prefix: str
    """Put before the answer: what was asked, where the program wants that too."""
    param: str
    """The field that holds what the model is to read."""


Defaults = Callable[[str], SamplingSettings]
"""The settings that a model of a name answers with where a request leaves them out."""


def _dolly(name: str) -> SamplingSettings:
    return SamplingSettings()


def parse_chat(body: Mapping[str, Any], limits: Limits, defaults: Defaults = _dolly) -> Asked:
    """The body of ``/v1/chat/completions``.

    Beside OpenAI's fields: ``context``, a passage that the last message is about, and
    ``return_full_text``, which has the last message stand before the answer.

    Raises:
        ApiError: it cannot be answered; the field is named.
    """
    fields = Fields(body)
    model = fields.text("model")
    turns = _turns(fields.get("messages"))
    if turns[-1].role is not Role.USER:
        raise wrong("messages", body["messages"], "a list that ends with a message of the user")
    context = fields.get("context")
    if context is not None and not isinstance(context, str):
        raise wrong("context", context, "a text")
    last = turns[-1].text
    full = fields.flag("return_full_text")
    usual = defaults(model)
    request = _request(fields, limits, usual, last, context or "", tuple(turns[:-1]))
    _check_length(request, limits, "messages")
    return Asked(
        model,
        request,
        *_stream(fields),
        prefix=f"{last.strip()}\n" if full else "",
        param="messages",
    )


def parse_completion(body: Mapping[str, Any], limits: Limits, defaults: Defaults = _dolly) -> Asked:
    """The body of ``/v1/completions``: the prompt is what the model reads, to the byte.

    Beside OpenAI's fields: ``return_full_text``, another name of ``echo``.

    Raises:
        ApiError: it cannot be answered; the field is named.
    """
    fields = Fields(body)
    model = fields.text("model")
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise wrong("prompt", prompt, "a text, or a list of a single one; token ids are not taken")
    full = fields.flag("echo") or fields.flag("return_full_text")
    request = _request(fields, limits, defaults(model), prompt, verbatim=True)
    _check_length(request, limits, "prompt")
    return Asked(model, request, *_stream(fields), prefix=prompt if full else "", param="prompt")


def _request(
    fields: Fields,
    limits: Limits,
    usual: SamplingSettings,
    instruction: str,
    context: str = "",
    earlier: tuple[Turn, ...] = (),
    *,
    verbatim: bool = False,
) -> GenerationRequest:
    _check_done(fields)
    sampling, shorten = _sampling(fields, limits, usual)
    return GenerationRequest(
        instruction,
        context,
        sampling,
        earlier=earlier,
        stop=_stops(fields.get("stop")),
        verbatim=verbatim,
        shorten=shorten,
    )


def _check_done(fields: Fields) -> None:
    """
    Raises:
        ApiError: something is asked for that is not done here.
    """
    for name, (why, harmless) in _NOT_DONE.items():
        value = fields.get(name)
        if not any(value == each and type(value) is type(each) for each in harmless) and not (
            isinstance(value, float) and value in harmless
        ):
            raise unsupported(name, why)


def _sampling(
    fields: Fields, limits: Limits, usual: SamplingSettings
) -> tuple[SamplingSettings, bool]:
    """The settings, and whether the length is nobody's wish and may be shorter.

    Args:
        usual: those of the model, where a field is left out.
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
    usually_greedy = usual.greedy and temperature is None and top_p is None and top_k is None
    temperature = usual.temperature if temperature is None else temperature
    top_p = usual.top_p if top_p is None else top_p
    # Below what can be set here the likeliest token is taken nearly always: then always.
    greedy = (
        usually_greedy or temperature < TEMPERATURE_RANGE[0] or top_p < TOP_P_RANGE[0] or top_k == 1
    )
    return SamplingSettings(
        max_new_tokens=min(usual.max_new_tokens, most) if wanted is None else wanted,
        temperature=usual.temperature if greedy else temperature,
        top_p=usual.top_p if greedy else top_p,
        top_k=max(0, usual.top_k if top_k is None else top_k),
        repetition_penalty=usual.repetition_penalty if penalty is None else penalty,
        greedy=greedy,
        seed=None if greedy or seed is None else seed % (SEED_RANGE[1] + 1),
    ), wanted is None


def _stops(value: Any) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    texts = [value] if isinstance(value, str) else value
    good = (
        isinstance(texts, list)
        and len(texts) <= MAX_STOPS
        and all(isinstance(text, str) and 0 < len(text) <= MAX_STOP_CHARACTERS for text in texts)
    )
    if not good:
        raise wrong(
            "stop",
            value,
            f"a text or a list of up to {MAX_STOPS}, each of 1 to {MAX_STOP_CHARACTERS} characters",
        )
    return tuple(texts)


def _stream(fields: Fields) -> tuple[bool, bool]:
    """Whether to stream, and whether to end the stream with the usage."""
    stream = fields.flag("stream")
    options = fields.get("stream_options")
    if options is None:
        return stream, False
    if not isinstance(options, dict):
        raise wrong("stream_options", options, "an object")
    if not stream:
        raise ApiError(
            400,
            "stream_options goes with stream: true only.",
            code="invalid_value",
            param="stream_options",
        )
    return stream, Fields(options).flag("include_usage")


def _turns(value: Any) -> list[Turn]:
    if not isinstance(value, list) or not value:
        raise wrong("messages", value, "a list of messages")
    if len(value) > MOST_MESSAGES:
        raise ApiError(
            400,
            f"There are {len(value):,} messages; send at most {MOST_MESSAGES:,}.",
            code="invalid_value",
            param="messages",
        )
    return [_turn(f"messages[{number}]", each) for number, each in enumerate(value)]


def _turn(name: str, value: Any) -> Turn:
    if not isinstance(value, dict):
        raise wrong(name, value, "an object with role and content")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{name}.role", role, "system, developer, user or assistant")
    if value.get("tool_calls") or value.get("function_call"):
        raise unsupported(f"{name}.tool_calls", "These models call no tools.")
    return Turn(_ROLES[role], _content(f"{name}.content", value.get("content")))


def _content(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise wrong(name, value, "a text or a list of text parts")
    texts = []
    for number, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise unsupported(f"{name}[{number}].type", "These models read nothing but text.")
        if kind is None or not isinstance(part.get("text"), str):
            raise wrong(f"{name}[{number}]", part, 'an object like {"type": "text", "text": …}')
        texts.append(part["text"])
    return "\n".join(texts)


def _check_length(request: GenerationRequest, limits: Limits, param: str) -> None:
    if request.characters > limits.max_characters:
        raise ApiError(
            400,
            f"{param} has {request.characters:,} characters; the most that is taken here is "
            f"{limits.max_characters:,}.",
            code="string_above_max_length",
            param=param,
        )
