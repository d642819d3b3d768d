"""One question to one model, checked before anything is loaded for it."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass, field, replace

from core.errors import BadRequestError
from core.runtimes.spec import SEED_RANGE, SamplingSettings

MAX_CHARACTERS = 200_000
"""Instruction and context together; the longest prompt of the catalogue is 32 768 tokens."""
_ALLOWED_CONTROLS = frozenset("\n\r\t\f\v")


@dataclass(frozen=True)
class GenerationRequest:
    """An instruction, optionally about a passage, and how to sample its answer."""

    instruction: str
    context: str = ""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    prompt_format: str | None = None
    """Name of a prompt format; None takes the model's own."""

    def validated(self) -> GenerationRequest:
        """This request, checked, trimmed of outer white space, and with a seed unless greedy.

        Raises:
            BadRequestError: empty, over-long or not proper text, or a setting out of range.
        """
        instruction, context = self.instruction.strip(), self.context.strip()
        if not instruction:
            raise BadRequestError("The instruction is empty; type one or pick an example.")
        length = len(instruction) + len(context)
        if length > MAX_CHARACTERS:
            raise BadRequestError(
                f"Instruction and context have {length:,} characters together; "
                f"the most that is taken is {MAX_CHARACTERS:,}."
            )
        _check_text("instruction", instruction)
        _check_text("context", context)
        sampling = self.sampling.validated()
        if sampling.greedy:
            sampling = replace(sampling, seed=None)
        elif sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbelow(SEED_RANGE[1] + 1))
        return replace(self, instruction=instruction, context=context, sampling=sampling)


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
