"""Decides for each answer whether tokens are guessed (``speculation`` is *auto*).

A step that checks guessed tokens takes longer than a step that generates one token, so guessing
pays only where enough of the guesses are accepted: where the answer repeats what the prompt says.
It never pays while several answers share the steps, because the processor is busy then.
"""

from __future__ import annotations

from collections import deque
from statistics import fmean

from core.runtimes.spec import TokenRequest

PASSAGE_TOKENS = 96
"""From this prompt length on, the prompt contains a passage or earlier messages. Chat templates
with a system prompt take about 40 tokens, an instruction alone seldom more than 50."""

COST_OF_GUESS = 0.1
"""Time to check one guessed token, relative to a step without guesses. SmolLM2 in INT4 on two
cores: a step with one guess takes 1.05 to 1.1 times as long, with five 1.3 to 1.5."""

FIRST_STEPS = 8
"""Steps after which an answer is judged for the first time."""

STEADY_TEMPERATURE = 0.5
"""Up to this temperature answers are hardly random: one token is guessed for prompts without a
passage, because answers repeat themselves, and all that are asked for with one."""

SAMPLED_TOKENS = 2
"""Tokens guessed at a higher temperature, where a run of accepted guesses is short: SmolLM2 that
rewrites a passage at 0.8 generates 1.6 tokens per step with two guesses."""

MEMORY = 4
"""Earlier answers of the same kind that are considered."""

TRY_AGAIN = 8
"""Every so many answers, guess although it did not pay lately."""

LONGEST_MOVE = 1024
"""Tokens of prompt and answer up to which an answer is moved to the pipeline without guesses: they
have to be computed again."""


def break_even(drafts: int) -> float:
    """Return the tokens per step from which guessing ``drafts`` tokens saves time."""
    return 1 + COST_OF_GUESS * drafts


class AutoSpeculation:
    """The decisions for one model, with its memory of earlier answers."""

    def __init__(self) -> None:
        self._rates: dict[tuple[int, bool], deque[float]] = {}
        """Tokens per step of recent answers, by number of guesses and whether it was greedy."""
        self._skipped = 0

    def drafts_for(self, request: TokenRequest) -> int:
        """Return the number of tokens to guess in each step for an answer that runs alone."""
        options, sampling = request.options, request.sampling
        if (
            options.structure is not None
            or options.logprobs
            or options.presence_penalty
            or options.frequency_penalty
        ):
            return 0  # such an answer cannot be moved, or its result would differ
        steady = sampling.greedy or sampling.temperature <= STEADY_TEMPERATURE
        if len(request.prompt_ids) >= PASSAGE_TOKENS:
            tokens = request.speculation.tokens
            drafts = tokens if steady else min(tokens, SAMPLED_TOKENS)
        elif steady:
            drafts = 1
        else:
            return 0
        rates = self._rates.get((drafts, sampling.greedy), ())
        if len(rates) == MEMORY and fmean(rates) < break_even(drafts):
            self._skipped += 1
            if self._skipped % TRY_AGAIN:
                return 0
        return drafts

    def pays(self, drafts: int, steps: int, tokens: int, length: int) -> bool:
        """Return whether an answer should go on guessing.

        Args:
            drafts: tokens guessed in each step.
            steps: steps so far.
            tokens: tokens generated in these steps.
            length: tokens of the prompt and the answer.
        """
        if drafts == 1:  # computing the prompt again takes longer than checking one guess a step
            return True
        return steps < FIRST_STEPS or length > LONGEST_MOVE or tokens / steps >= break_even(drafts)

    def note(self, request: TokenRequest, drafts: int, steps: int, tokens: int) -> None:
        """Remember how many tokens per step an answer had."""
        if steps >= FIRST_STEPS:
            rates = self._rates.setdefault((drafts, request.sampling.greedy), deque(maxlen=MEMORY))
            rates.append(tokens / steps)
