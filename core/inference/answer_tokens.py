"""The tokens of an answer with their probabilities, and the prompt that the model got."""

from __future__ import annotations

from dataclasses import dataclass

from core.inference.answer import Answer
from core.inference.engine import Engine, find_stored
from core.inference.request import GenerationRequest
from core.inference.token_probabilities import TokenProbability, probabilities
from core.inference.work import encode_prompt
from core.runtimes.logits import logits_spec
from core.runtimes.spec import ModelSpec
from core.runtimes.token_text import TokenText

ALTERNATIVES = 5


@dataclass(frozen=True)
class AnswerTokens:
    """An answer by its tokens."""

    prompt: tuple[TokenText, ...]
    """Special tokens and those of the chat template included."""
    tokens: tuple[TokenProbability, ...]
    """Of the whole answer: thoughts, a continued beginning and an end-of-text token included."""

    @property
    def prompt_text(self) -> str:
        """The prompt with the names of its special tokens."""
        return text_of(self.prompt)


def text_of(tokens: tuple[TokenText, ...]) -> str:
    """Return the text of several tokens, with the names of special ones."""
    parts = (each.text.encode() if each.bytes is None else each.bytes for each in tokens)
    return b"".join(parts).decode("utf-8", "replace")


def answer_tokens(
    engine: Engine, spec: ModelSpec, request: GenerationRequest, answer: Answer
) -> AnswerTokens:
    """Return the tokens of an answer, from one forward pass over prompt and answer.

    Raises:
        PaddockError: see :meth:`core.inference.engine.Engine.logits`.
    """
    with engine.logits(spec) as model:
        assert model is not None, "it was not cancelled"
        stored = find_stored(engine.store, logits_spec(spec))
        assert stored is not None, "it is loaded"
        prompt = encode_prompt(model, stored.key, request)

        def encode(text: str) -> list[int]:
            special = prompt.prompt.add_special_tokens
            return model.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]

        start = len(prompt.ids)
        if request.continues:
            start = _common(prompt.ids, encode(prompt.prompt.text))
        ids = (*prompt.ids, *answer.token_ids)
        if not answer.token_ids:  # of an answer that was stored without them
            ids = tuple(encode(prompt.prompt.text + request.continues + answer.text))
            start = _common(prompt.ids[:start], ids)
        found = probabilities(model, ids, max(1, start), ALTERNATIVES)
        return AnswerTokens(tuple(map(model.texts.text, ids[:start])), tuple(found))


def _common(one: tuple[int, ...], other: list[int] | tuple[int, ...]) -> int:
    """Return the length of the common beginning."""
    pairs = zip(one, other, strict=False)
    shorter = min(len(one), len(other))
    return next((at for at, (a, b) in enumerate(pairs) if a != b), shorter)
