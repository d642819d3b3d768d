"""Incremental decoding of token ids, and incremental stop texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from core.catalogue.prompts import StopRule

_LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, and so the maximum number of tokens of one character."""
_CONTEXT = 8
"""Tokens kept of a window that contains only incomplete characters."""
_WINDOW = 32
"""Tokens after which such a window is cut, to limit the work of each step."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class TextDecoder:
    """Decodes token ids one at a time, in linear time.

    A character of several tokens is returned with its last token. Special tokens have no text.
    The concatenation of all pieces equals ``tokenizer.decode`` of all ids.
    """

    def __init__(self, tokenizer: Any) -> None:
        """
        Args:
            tokenizer: see :class:`core.runtimes.base.LoadedModel`.
        """
        self._decode = _decode_of(tokenizer)
        self._special = frozenset(tokenizer.all_special_ids)
        # The window has the tokens of the last complete characters, since some decoders treat the
        # first token of a text differently, followed by tokens that may be part of a character.
        self._window: list[int] = []
        self._returned = 0  # characters of the window's text that were returned
        self._pending = 0  # tokens since the last complete character

    def feed(self, token_id: int) -> str:
        """Return the text that this token completes; it may be empty."""
        if token_id in self._special:
            return ""
        self._window.append(token_id)
        self._pending += 1
        text = self._decode(self._window)
        if text.endswith(_BROKEN) and self._pending <= _LONGEST_CHARACTER:
            return ""
        end = _complete_length(text)
        new, self._returned = text[self._returned : end], max(self._returned, end)
        if end == len(text):
            self._cut(self._pending)
            self._pending = 0
        if len(self._window) >= _WINDOW:
            self._cut(_CONTEXT)
        return new

    def close(self) -> str:
        """Return the text of an incomplete character at the end."""
        text = self._decode(self._window)
        new, self._returned = text[self._returned :], len(text)
        return new

    def _cut(self, keep: int) -> None:
        text = self._decode(self._window[-keep:])
        if text:
            del self._window[:-keep]
            self._returned = _complete_length(text)


def _decode_of(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Return the decode function: the ``tokenizers`` library's own, if the result is the same.

    The wrapper of transformers takes ten times as long, several hundredths of the time that a
    small model needs per token.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    own = getattr(type(tokenizer), "_decode", None)
    if backend is not None and (own is None or own.__qualname__ == "TokenizersBackend._decode"):
        return partial(backend.decode, skip_special_tokens=True)
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _complete_length(text: str) -> int:
    """Return the length of the part of ``text`` that later tokens do not change."""
    broken = len(text) - len(text.rstrip(_BROKEN))
    return len(text) - min(broken, _LONGEST_CHARACTER - 1)


class StopText:
    """Passes an answer on up to the first stop text, and no part of a stop text."""

    def __init__(self, rule: StopRule, *, keep_space: bool = False) -> None:
        """
        Args:
            rule: its texts and lines end the answer.
            keep_space: keep white space at the start of the answer.
        """
        # A line begins at the start of the answer or after a newline. The prompt ends in a newline
        # or a colon, so the start of the answer counts as the start of a line.
        self._markers = (*rule.texts, *(f"\n{line}" for line in rule.lines))
        self._at_start = rule.lines
        self._held = ""
        self._started = keep_space and not rule.lines
        self.stopped = False
        """Whether a stop text was found; no text is returned after it."""

    def feed(self, text: str) -> str:
        """Return the text that can be shown now: neither shown before nor part of a stop text."""
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
        keep = held_length(held, self._markers)
        self._held = held[len(held) - keep :]
        shown = held[: len(held) - keep]
        self._started = self._started or bool(shown)
        return shown

    def close(self) -> str:
        """Return the text held back that is not a stop text."""
        held, self._held = self._held, ""
        return "" if self.stopped else held


def held_length(text: str, markers: Iterable[str]) -> int:
    """Return the length of the longest suffix of ``text`` that is a prefix of a marker."""
    markers = tuple(markers)
    longest = max((len(marker) for marker in markers), default=0)
    for length in range(min(len(text), longest), 0, -1):
        tail = text[-length:]
        if any(marker.startswith(tail) for marker in markers):
            return length
    return 0
