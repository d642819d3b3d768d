"""From token ids to the text a person reads: decoding and stop texts, both incremental."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from core.catalogue.prompts import StopRule

_LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, and so the most tokens that it can be spread over."""
_CONTEXT = 8
"""Tokens kept of a window that holds nothing but broken characters."""
_WINDOW = 32
"""Tokens after which such a window is cut; bounds the work of each step."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class TextDecoder:
    """Turns token ids into text as they come; linear in the answer's length.

    A character spread over several tokens appears with its last one. Special tokens leave no
    text. All pieces together are what ``tokenizer.decode`` makes of all ids.
    """

    def __init__(self, tokenizer: Any) -> None:
        """
        Args:
            tokenizer: see :class:`core.runtimes.base.LoadedModel`.
        """
        self._decode = _decode_of(tokenizer)
        self._special = frozenset(tokenizer.all_special_ids)
        # The window holds the tokens of the last whole characters, since some decoders treat the
        # first token of a text apart, and after them those that may be part of a character.
        self._window: list[int] = []
        self._given = 0  # characters of the window's text that were handed out
        self._pending = 0  # tokens since the last whole character

    def feed(self, token_id: int) -> str:
        """Text that this token completed; often one word, sometimes nothing."""
        if token_id in self._special:
            return ""
        self._window.append(token_id)
        self._pending += 1
        text = self._decode(self._window)
        if text.endswith(_BROKEN) and self._pending <= _LONGEST_CHARACTER:
            return ""
        end = _end_of_settled(text)
        new, self._given = text[self._given : end], max(self._given, end)
        if end == len(text):
            self._cut(self._pending)
            self._pending = 0
        if len(self._window) >= _WINDOW:
            self._cut(_CONTEXT)
        return new

    def close(self) -> str:
        """What was held back as the beginning of a character that never came."""
        text = self._decode(self._window)
        new, self._given = text[self._given :], len(text)
        return new

    def _cut(self, keep: int) -> None:
        text = self._decode(self._window[-keep:])
        if text:
            del self._window[:-keep]
            self._given = _end_of_settled(text)


def _decode_of(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """How ids become text: the library beneath is asked directly where that is the same.

    What transformers does around it takes ten times as long, several hundredths of the time that
    a small model takes for a token.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    own = getattr(type(tokenizer), "_decode", None)
    if backend is not None and (own is None or own.__qualname__ == "TokenizersBackend._decode"):
        return partial(backend.decode, skip_special_tokens=True)
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _end_of_settled(text: str) -> int:
    """Length of the part of ``text`` that later tokens do not change."""
    broken = len(text) - len(text.rstrip(_BROKEN))
    return len(text) - min(broken, _LONGEST_CHARACTER - 1)


class StopText:
    """Lets an answer through up to the first stop text and never shows a part of one."""

    def __init__(self, rule: StopRule, *, keep_space: bool = False) -> None:
        """
        Args:
            rule: its texts and lines end the answer.
            keep_space: let white space at the answer's start through.
        """
        # A line of the answer begins at its start or after a newline. The text before the
        # answer ends in a newline or a colon, so its start counts as a line's beginning.
        self._markers = (*rule.texts, *(f"\n{line}" for line in rule.lines))
        self._at_start = rule.lines
        self._held = ""
        self._started = keep_space and not rule.lines
        self.stopped = False
        """Whether a stop text was seen; nothing is let through after it."""

    def feed(self, text: str) -> str:
        """The part of the text so far that is safe to show and was not shown yet."""
        if self.stopped:
            return ""
        held = self._held + text
        if not self._started:
            held = held.lstrip()
            if any(held.startswith(marker) for marker in self._at_start):
                self.stopped, self._held = True, ""
                return ""
            if not held or any(marker.startswith(held) for marker in self._at_start):
                self._held = held
                return ""
        found = [at for marker in self._markers if (at := held.find(marker)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)]
        keep = self._length_to_hold(held)
        self._held = held[len(held) - keep :]
        shown = held[: len(held) - keep]
        self._started = self._started or bool(shown)
        return shown

    def close(self) -> str:
        """What was held back and turned out to be no stop text."""
        held, self._held = self._held, ""
        return "" if self.stopped else held

    def _length_to_hold(self, text: str) -> int:
        """Length of the longest end of ``text`` that may be the beginning of a marker."""
        for length in range(min(len(text), self._longest), 0, -1):
            tail = text[-length:]
            if any(marker.startswith(tail) for marker in self._markers):
                return length
        return 0

    @property
    def _longest(self) -> int:
        return max((len(marker) for marker in self._markers), default=0)
