"""Separates a model's thoughts from its answer while it generates.

Reasoning models write their thoughts between tags (``<think>…</think>``) at the start of an
answer, or in channels of the harmony format (gpt-oss). Where the tokenizer has a marker as one
token, the token's id counts, not its text: an answer may quote the text.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from core.inference.text import held_length

CLOSING = {
    "<think>": ("</think>",),  # DeepSeek-R1, Qwen3, SmolLM3, Phi-4-reasoning, Granite 3.3
    "<thinking>": ("</thinking>",),
    "<thought>": ("</thought>",),  # EXAONE Deep, Marco-o1
    "<reasoning>": ("</reasoning>",),
    "<seed:think>": ("</seed:think>",),  # Seed-OSS
    "[THINK]": ("[/THINK]",),  # Magistral
    "<|START_THINKING|>": ("<|END_THINKING|>",),  # Command A Reasoning
    "<|inner_prefix|>": ("<|inner_suffix|>",),  # Apertus
    "◁think▷": ("◁/think▷",),  # Kimi
    "<|begin_of_thought|>": ("<|end_of_thought|>",),  # OpenThinker
    "<longcat_think>": ("</longcat_think>",),
    "<unused94>": ("<unused95>",),  # MedGemma; the first line is "thought"
    "<|channel>": ("<channel|>",),  # Gemma 4; the name of the channel is the first line
    "Here is my thought process:": ("Here is my response:", "Here's my response:"),  # Granite 3.2
    "Here's my thought process:": ("Here is my response:", "Here's my response:"),
}
"""Opening marker of thoughts, and the markers that close them."""

WRAPPERS = {
    "<response>": "</response>",
    "<answer>": "</answer>",
    "<output>": "</output>",
    "<solution>": "</solution>",
    "<|begin_of_solution|>": "<|end_of_solution|>",
}
"""Tags around the answer that follows thoughts (Granite 3.3, Hunyuan, Marco-o1, OpenThinker); not
part of its text."""

_NAMED = ("<|channel>", "<unused94>")

_START, _CHANNEL, _MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>")
_HARMONY = (_START, _CHANNEL, _MESSAGE, *_ENDS)
_ANSWER_CHANNEL = "final"

_CLOSERS = frozenset(text for texts in CLOSING.values() for text in texts)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""Unlike ``str.lower``, it keeps the length of every text."""
ALL_MARKERS = (*CLOSING, *_CLOSERS, *WRAPPERS, *WRAPPERS.values(), *_HARMONY)


class Split(NamedTuple):
    """Text that can be shown now."""

    answer: str = ""
    thoughts: str = ""

    def then(self, other: Split) -> Split:
        """Return both, one after the other."""
        return Split(self.answer + other.answer, self.thoughts + other.thoughts)


@dataclass(frozen=True)
class MarkerIds:
    """Markers that a tokenizer has as one token each."""

    texts: dict[int, str]
    """Text of each marker by id."""
    special: frozenset[int]
    """Ids whose text a decoder drops."""
    harmony_end: int | None
    """Id of ``<|end|>`` if there are channels: it ends a message, and not always the answer."""

    @classmethod
    def of(cls, tokenizer: Any) -> MarkerIds:
        """Look the markers up."""
        texts = {}
        for text in ALL_MARKERS:
            token_id = tokenizer.convert_tokens_to_ids(text)
            if token_id is not None and tokenizer.decode([token_id]) == text:
                texts[token_id] = text
        if _CHANNEL not in texts.values():  # other models use the texts of the harmony format, too
            texts = {key: text for key, text in texts.items() if text not in _HARMONY}
        special = (key for key in texts if not tokenizer.decode([key], skip_special_tokens=True))
        ends = [key for key, text in texts.items() if text == _ENDS[0]]
        return cls(texts, frozenset(special), ends[0] if ends else None)


NO_MARKERS = MarkerIds({}, frozenset(), None)


class ThoughtSplitter:
    """Splits generated text into thoughts and answer; a small state machine.

    Thoughts in tags begin only where the answer has not begun yet, unless their marker is a
    special token, which cannot be part of a text.
    """

    def __init__(self, by_id: Iterable[str] = (), *, opened: str | None = None) -> None:
        """
        Args:
            by_id: markers that come through :meth:`marker`, and are not looked for in the text.
            opened: the marker of thoughts that the prompt has opened.
        """
        by_id = frozenset(by_id)
        self._by_text = tuple(text for text in ALL_MARKERS if text not in by_id)
        self._closing: tuple[str, ...] = CLOSING[opened] if opened else ()
        self._header: str | None = None  # of a channel, being read
        self._in_channel = False  # other than the final one
        self._channels = False  # whether there was a channel
        self._wrapper: str | None = None
        self._begun = False  # whether the answer has begun
        self._thoughts = False  # whether there are thoughts
        self._closed = False  # whether thoughts, which may be empty, have ended
        self._space = ""  # white space before the answer
        self._in_name = opened in _NAMED  # of Gemma's channel
        self._gap = ""  # what separates the next text of the thoughts from the former ones
        self._held = ""
        self.ended = False
        """Whether the final channel has ended, and with it the answer."""

    @property
    def thinking(self) -> bool:
        """Whether the next token belongs to the thoughts, as far as is known."""
        return bool(self._closing) or self._in_channel or self._header is not None

    @property
    def undecided(self) -> bool:
        """Whether the latest text may be the beginning of a marker that opens thoughts."""
        return bool(self._held) and not self._begun and not self.thinking

    def feed(self, text: str) -> Split:
        """Take text in which markers, in any case, may stand; return what can be shown."""
        if self._begun and not (self._held or self.thinking or self._wrapper or self._channels):
            return self._text(text)  # of every token, but few
        held, self._held = self._held + text, ""
        split, keep = Split(), 0
        while wanted := {text.lower(): text for text in self._wanted()}:
            lower = held.translate(_LOWER)
            found = min(
                ((at, marker) for marker in wanted if (at := lower.find(marker)) >= 0), default=None
            )
            if found is None:
                keep = held_length(lower, wanted)
                begins = keep < len(lower.lstrip())
                if begins and not (self._begun or self._channels or self.thinking):
                    keep = 0  # the answer begins before it, and no marker within an answer counts
                break
            at, marker = found
            split = split.then(self._text(held[:at])).then(
                self._marker(wanted[marker], literal=True)
            )
            held = held[at + len(marker) :]
        self._held = held[len(held) - keep :]
        return split.then(self._text(held[: len(held) - keep]))

    def marker(self, text: str, *, literal: bool) -> Split:
        """Take a marker that is one token.

        Args:
            literal: whether it is an ordinary token, which can also be part of a text.
        """
        return self.close().then(self._marker(text, literal=literal))

    def close(self) -> Split:
        """Return the text held back; call it at the end."""
        held, self._held = self._held, ""
        return self._text(held)

    def _wanted(self) -> tuple[str, ...]:
        """Return the markers that have a meaning now."""
        if self._header is not None or self._channels:
            wanted: Iterable[str] = _HARMONY
        elif self._closing:
            wanted = self._closing
        elif not self._begun:
            wanted = (*CLOSING, *_CLOSERS, *(WRAPPERS if self._thoughts else ()), _START, _CHANNEL)
        else:
            wanted = (self._wrapper,) if self._wrapper else ()
        return tuple(marker for marker in wanted if marker in self._by_text)

    def _text(self, text: str) -> Split:
        if self.ended:
            return Split()
        if self._header is not None:
            self._header += text
            return Split()
        if self._in_name and self._closing:
            _, newline, text = text.partition("\n")
            self._in_name = not newline
        if self._closing or self._in_channel:
            if not self._thoughts or self._gap:
                text = text.lstrip()
            if not text:
                return Split()
            text, self._gap, self._thoughts = self._gap + text, "", True
            return Split(thoughts=text)
        if not self._begun:
            text, self._space = self._space + text, ""
            self._begun = bool(text.strip())
            if not self._begun:
                self._space = text
                return Split()
            if self._thoughts or self._closed:
                text = text.lstrip()
        return Split(answer=text)

    def _marker(self, text: str, *, literal: bool) -> Split:
        if text in _HARMONY:
            return self._harmony(text, literal=literal)
        if self._closing:
            if text in self._closing:
                self._closing, self._closed = (), True
                return Split()
        elif text in CLOSING and not (literal and self._begun):
            self._closing = CLOSING[text]
            self._in_name = text in _NAMED
            self._gap = "\n\n" if self._thoughts else ""
            return Split()
        elif text in WRAPPERS and self._thoughts and not self._begun:
            self._wrapper = WRAPPERS[text]
            return Split()
        elif text == self._wrapper or (text in _CLOSERS and not self._begun):
            return Split()
        return self._text(text) if literal else Split()

    def _harmony(self, text: str, *, literal: bool) -> Split:
        """Read ``<|channel|>NAME<|message|>TEXT<|end|><|start|>assistant<|channel|>…``."""
        if text in (_START, _CHANNEL):
            if literal and self._begun and not self._channels:
                return self._text(text)
            self._channels = self._channels or text == _CHANNEL
            self._header = "" if text == _START else f"{_CHANNEL} "
            self._in_channel = False
        elif text == _MESSAGE and self._header is not None:
            name = self._header.removeprefix(_CHANNEL).split()
            channel = self._header.startswith(_CHANNEL)
            self._header = None
            self._in_channel = channel and name[:1] != [_ANSWER_CHANNEL]
            self._gap = "\n\n" if self._thoughts else ""
        elif text in _ENDS:
            self.ended = self._begun and not self._in_channel and self._header is None
            self._in_channel = False
        elif literal:
            return self._text(text)
        return Split()


def opened_by(prompt: str) -> str | None:
    """Return the marker of thoughts with which a prompt ends."""
    end = prompt.rstrip()
    return next((marker for marker in CLOSING if end.endswith(marker)), None)
