"""A request to a model, validated before the model is loaded."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass, field, replace

from core.catalogue.prompts import Role, Turn, merge_conversation
from core.errors import BadRequestError
from core.runtimes.spec import SEED_RANGE, SamplingSettings

MAX_STOPS = 4
MAX_STOP_CHARACTERS = 500
_ALLOWED_CONTROLS = frozenset("\n\r\t\f\v")


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
    shorten: bool = False
    """Reduce the maximum of new tokens to what is left of the model's context length."""

    @property
    def characters(self) -> int:
        """Number of characters of instruction, context and earlier messages."""
        earlier = sum(len(turn.text) for turn in self.earlier)
        return len(self.instruction) + len(self.context) + earlier

    @property
    def whole_context(self) -> str:
        """The context including the earlier messages, for the run table."""
        if not self.earlier:
            return self.context
        system = [f"System: {turn.text}" for turn in self.earlier if turn.role is Role.SYSTEM]
        _, rest = merge_conversation("", self.context, self.earlier)
        return "\n".join([*system, rest]) if system else rest

    def validated(self) -> GenerationRequest:
        """Return this request validated, stripped of outer white space, and with a seed.

        Greedy requests get no seed.

        Raises:
            BadRequestError: the text is empty or invalid, or a setting is out of range.
        """
        instruction, context = self.instruction, self.context.strip()
        if not self.verbatim:
            instruction = instruction.strip()
        if not instruction:
            raise BadRequestError("The instruction is empty. Type one or choose an example.")
        _check_text("instruction", instruction)
        _check_text("context", context)
        for turn in self.earlier:
            _check_text("conversation", turn.text)
        _check_stops(self.stop)
        sampling = self.sampling.validated()
        if sampling.greedy:
            sampling = replace(sampling, seed=None)
        elif sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbelow(SEED_RANGE[1] + 1))
        return replace(self, instruction=instruction, context=context, sampling=sampling)


def _check_stops(stops: tuple[str, ...]) -> None:
    if len(stops) > MAX_STOPS:
        raise BadRequestError(f"There are {len(stops)} stop texts. Use at most {MAX_STOPS}.")
    for text in stops:
        if not 0 < len(text) <= MAX_STOP_CHARACTERS:
            raise BadRequestError(
                f"A stop text has {len(text):,} characters. Use 1 to {MAX_STOP_CHARACTERS}."
            )
        _check_text("stop text", text)


def _check_text(name: str, text: str) -> None:
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            raise BadRequestError(
                f"The {name} contains an unpaired surrogate (U+{ord(character):04X}). "
                "Paste the text again or remove the character."
            )
        if category == "Cc" and character not in _ALLOWED_CONTROLS:
            raise BadRequestError(
                f"The {name} contains a control character (U+{ord(character):04X}). Remove it."
            )
