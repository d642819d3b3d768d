"""Parse the messages of a chat completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from core.api.body import Fields, invalid, unsupported
from core.api.errors import ApiError, invalid_value
from core.catalogue.chat_template import Role, Turn
from core.errors import BadRequestError
from core.inference.request import check_text, readable

MAX_MESSAGES = 1000

_CONTENT = "a string or a list of text parts"
_TEXT_PARTS = ("text", "input_text", "output_text")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning", "reasoning_text")
"""Parts of an earlier answer that a model does not read again."""
_ROLES = ("system", "developer", "user", "assistant")


class Message(Fields):
    """A message of a conversation."""

    no_effect = frozenset(
        (
            *("annotations", "cache_control", "citations", "example", "id", "name", "parsed"),
            *("phase", "provider_specific_fields", "reasoning", "reasoning_content"),
            *("reasoning_details", "status", "stop_reason", "thinking", "thinking_blocks"),
            *("timestamp", "token_ids", "type"),
        )
    )
    """What clients send back with an earlier answer, and ``name``, which chat templates ignore."""

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="system, developer, user or assistant"
    )
    content: str | list[Any] | None = Field(None, description=_CONTENT)
    refusal: str | None = None
    """The text of an assistant message without ``content``."""
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None
    images: Any = None


class Part(Fields):
    """A part of a message's content, in the form of OpenAI's chat completions or responses."""

    no_effect = frozenset(("annotations", "cache_control", "id", "logprobs"))

    type: str
    text: str | None = None
    refusal: str | None = None


def parse_messages(values: Sequence[Any]) -> list[Turn]:
    """Parse messages; the last one has the role user.

    Raises:
        ApiError: a message is invalid or unsupported; the error names it and its role.
    """
    if len(values) > MAX_MESSAGES:
        raise invalid("messages", values, f"a list of at most {MAX_MESSAGES:,} messages")
    turns = [_turn(f"messages[{i}]", each) for i, each in enumerate(values)]
    path = f"messages[{len(turns) - 1}]"
    if turns[-1].role is not Role.USER:
        raise invalid_value(
            f"The last message (`{path}`) has the role {values[-1]['role']}. End the conversation "
            "with a message of the role user.",
            "messages",
        )
    if not turns[-1].text.strip():
        raise invalid_value(
            f"`{path}.content` (role user) is empty. Write an instruction.",
            f"{path}.content",
        )
    return turns


def _turn(path: str, value: Any) -> Turn:
    role_given = value.get("role") if isinstance(value, dict) else None
    if isinstance(role_given, str) and role_given not in _ROLES:
        raise invalid(f"{path}.role", role_given, Message.model_fields["role"].description or "")
    try:
        message = Message.parse(value, path)
    except ApiError as error:
        raise _of_role(error, role_given) from None
    for name in ("tool_calls", "function_call", "audio", "images"):
        if getattr(message, name):
            raise _of_role(
                unsupported(f"{path}.{name}", f"Remove messages with `{name}`."), message.role
            )
    role = Role("system" if message.role == "developer" else message.role)
    try:
        text = _text(f"{path}.content", message, role)
        if role is Role.ASSISTANT:  # a model may have written control characters
            text = readable(text)
        check_text(f"message `{path}` (role {message.role})", text)
    except ApiError as error:
        raise _of_role(error, message.role) from None
    except BadRequestError as error:
        raise invalid_value(str(error), f"{path}.content") from None
    return Turn(role, text)


def _of_role(error: ApiError, role: str | None) -> ApiError:
    """Return the error with the role of the message in its text, if it has one."""
    if role is None:
        return error
    named = f"`{error.param}`"
    text = error.message.replace(named, f"{named} (role {role})", 1)
    return ApiError(error.status, text, code=error.code, param=error.param)


def _text(path: str, message: Message, role: Role) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if not content:
        if role is Role.ASSISTANT:  # as clients send back a refusal, or an answer without text
            return message.refusal or ""
        raise invalid(path, content, _CONTENT)
    parts = [
        _part(f"{path}[{i}]", part)
        for i, part in enumerate(content)
        if not (role is Role.ASSISTANT and isinstance(part, dict) and _is_empty(part))
    ]
    return "\n".join(parts)


def _is_empty(part: dict[str, Any]) -> bool:
    """Return whether a part of the model's own message has nothing that is sent to it again."""
    return part.get("type") in _THOUGHTS or (
        part.get("type") == "text" and part.get("text") is None
    )


def _part(path: str, value: Any) -> str:
    """Return the text of one part of a message's content."""
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind not in (*_TEXT_PARTS, "refusal"):
        raise ApiError(
            400,
            f"`{path}.type` must be text. The models accept only text.",
            code="unsupported_parameter",
            param=f"{path}.type",
        )
    part = Part.parse(value, path)
    name = "refusal" if part.type == "refusal" else "text"
    if (text := getattr(part, name)) is None:
        raise invalid(f"{path}.{name}", None, "a string")
    return text
