"""One question to one model, checked before anything is loaded for it."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass, field, replace

from core.catalogue.prompts import Role, Turn, merge_conversation
from core.errors import BadRequestError
from core.runtimes.spec import SEED_RANGE, SamplingSettings

MAX_CHARACTERS = 200_000
"""Instruction and context together; the longest prompt of the catalogue is 32 768 tokens."""
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 500
_ALLOWED_CONTROLS = frozenset("\n\r\t\f\v")


@dataclass(frozen=True)
class GenerationRequest:
    """An instruction, optionally about a passage, and how to sample its answer."""

    instruction: str
    context: str = ""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    prompt_format: str | None = None
    """Name of a prompt format; None takes the model's own."""
    earlier: tuple[Turn, ...] = ()
    """What was said before the instruction."""
    stop: tuple[str, ...] = ()
    """Further texts that end the answer; none of them is shown."""
    verbatim: bool = False
    """The instruction is the prompt, to the byte: nothing is put around it, and nothing but the
    end of the text and :attr:`stop` ends the answer."""
    shorten: bool = False
    """Where the model has not the positions for all new tokens, take as many as there are."""

    @property
    def characters(self) -> int:
        """Length of all that the model reads."""
        said = sum(len(turn.text) for turn in self.earlier)
        return len(self.instruction) + len(self.context) + said

    @property
    def whole_context(self) -> str:
        """The context, with what was said before the instruction; for the records."""
        if not self.earlier:
            return self.context
        system = [f"System: {turn.text}" for turn in self.earlier if turn.role is Role.SYSTEM]
        _, rest = merge_conversation("", self.context, self.earlier)
        return "\n".join([*system, rest]) if system else rest

    def validated(self) -> GenerationRequest:
        """This request, checked, trimmed of outer white space, and with a seed unless greedy.

        Raises:
            BadRequestError: empty, over-long or not proper text, or a setting out of range.
        """
        instruction, context = self.instruction, self.context.strip()
        if not self.verbatim:
            instruction = instruction.strip()
        if not instruction:
            raise BadRequestError("The instruction is empty; type one or pick an example.")
        length = self.characters
        if length > MAX_CHARACTERS:
            raise BadRequestError(
                f"Instruction and context have {length:,} characters together; "
                f"the most that is taken is {MAX_CHARACTERS:,}."
            )
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
        raise BadRequestError(f"There are {len(stops)} stop texts; name at most {MAX_STOPS}.")
    for text in stops:
        if not 0 < len(text) <= MAX_STOP_CHARACTERS:
            raise BadRequestError(
                f"A stop text has {len(text):,} characters; it needs 1 to {MAX_STOP_CHARACTERS}."
            )
        _check_text("stop text", text)


def _check_text(name: str, text: str) -> None:
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            raise BadRequestError(
                f"The {name} holds half of a character (U+{ord(character):04X}); "
                "paste it again or remove it."
            )
        if category == "Cc" and character not in _ALLOWED_CONTROLS:
            raise BadRequestError(
                f"The {name} holds a control character (U+{ord(character):04X}); remove it."
            )
