"""A request to a model, validated before the model is loaded, and the user who makes it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.catalogue.chat_template import RESERVED_KWARGS, Role, Turn, merge_conversation
from core.db import GUEST
from core.errors import BadRequestError, OptionError
from core.runtimes.spec import (
    NO_SPECULATION,
    SEED_RANGE,
    GenAIOptions,
    SamplingSettings,
    Speculation,
)

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 500
_UNREADABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters but for white space, and surrogates (Unicode's categories Cc and Cs)."""


@dataclass(frozen=True)
class User:
    """The person or program whose answers are started."""

    owner: str = GUEST
    """Account that the answers belong to."""
    lane: str | None = None
    """Key by which limits and turns apply: an account or a guest's page; None: no limits."""
    session: str | None = None
    """Session of the page."""
    browser: str | None = None
    """Id of a guest's browser: its answers end when it has had no open page for a minute."""


COMMAND_LINE = User()
"""A guest without limits."""


@dataclass(frozen=True)
class GenerationRequest:
    """An instruction, an optional context passage, and sampling settings."""

    instruction: str
    context: str = ""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    prompt_format: str | None = None
    """Name of a prompt format; None: the model's own."""
    earlier: tuple[Turn, ...] = ()
    """Messages before the instruction."""
    stop: tuple[str, ...] = ()
    """Additional stop texts; they are not shown."""
    verbatim: bool = False
    """Use the instruction as the prompt without a prompt format; only an end-of-text token and
    :attr:`stop` end the answer."""
    options: GenAIOptions = field(default_factory=GenAIOptions)
    speculation: Speculation = NO_SPECULATION
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Variables for the model's chat template, such as ``enable_thinking``."""
    continues: str = ""
    """Beginning of the answer, which the model continues; for local models only."""
    drop_earlier: bool = False
    """Leave out the oldest of :attr:`earlier` until the prompt fits into the context length."""

    @property
    def characters(self) -> int:
        """Number of characters of instruction, context and earlier messages."""
        earlier = sum(len(turn.text) for turn in self.earlier)
        return len(self.instruction) + len(self.context) + earlier + len(self.continues)

    @property
    def whole_context(self) -> str:
        """The context including the earlier messages, for the run table."""
        if not self.earlier:
            return self.context
        system = [f"System: {turn.text}" for turn in self.earlier if turn.role is Role.SYSTEM]
        _, rest = merge_conversation("", self.context, self.earlier)
        return "\n".join([*system, rest]) if system else rest

    def validated(self) -> GenerationRequest:
        """Return this request validated and with a seed, or without one if it is greedy.

        Raises:
            BadRequestError: the text is empty or invalid, or a setting is out of range.
        """
        if not (self.instruction if self.verbatim else self.instruction.strip()):
            raise BadRequestError("The instruction is empty. Type one or choose an example.")
        check_text("instruction", self.instruction)
        check_text("context", self.context)
        for turn in self.earlier:
            check_text("conversation", turn.text)
        check_text("answer to continue", self.continues)
        _check_stops(self.stop)
        if reserved := sorted(RESERVED_KWARGS & self.chat_template_kwargs.keys()):
            raise OptionError(
                f"{reserved[0]!r} is not a variable of a chat template. Remove it from "
                "chat_template_kwargs.",
                "chat_template_kwargs",
            )
        self.speculation.validated()
        sampling = self.sampling.validated()
        if sampling.greedy:
            sampling = replace(sampling, seed=None)
        elif sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbelow(SEED_RANGE[1] + 1))
        return replace(self, sampling=sampling)


def _check_stops(stops: tuple[str, ...]) -> None:
    if len(stops) > MAX_STOPS:
        raise BadRequestError(f"There are {len(stops)} stop texts. Use at most {MAX_STOPS}.")
    for text in stops:
        if not 0 < len(text) <= MAX_STOP_CHARACTERS:
            raise BadRequestError(
                f"A stop text has {len(text):,} characters. Use 1 to {MAX_STOP_CHARACTERS}."
            )
        check_text("stop text", text)


def check_text(name: str, text: str) -> None:
    """Check that a text has no characters that a model cannot read.

    Args:
        name: what the text is, for the error.

    Raises:
        BadRequestError: it contains an unpaired surrogate or a control character.
    """
    if (found := _UNREADABLE.search(text)) is None:
        return
    code = f"U+{ord(found[0]):04X}"
    if found[0] >= "\ud800":
        raise BadRequestError(
            f"The {name} contains an unpaired surrogate ({code}). Paste the text again or remove "
            "the character."
        )
    raise BadRequestError(f"The {name} contains a control character ({code}). Remove it.")


def readable(text: str) -> str:
    """Return a text without the characters that :func:`check_text` refuses.

    A model may write them, and its reader cannot remove them.
    """
    return _UNREADABLE.sub("", text)
