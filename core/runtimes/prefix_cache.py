"""Counts the prompt tokens that OpenVINO GenAI takes from its prefix cache.

GenAI does not report the hits of its cache, so this class keeps the token ids of what is in it. The
cache has the size of the most tokens in use at a time, and overwrites the oldest first.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import takewhile

BLOCK_TOKENS = 32
"""Tokens of a block of the KV cache on a CPU."""


class PrefixCache:
    """The sequences in the cache of one model. Thread-safe."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, ...]] = []  # the newest last
        self._capacity = 0
        self._lock = threading.Lock()

    def cached_tokens(self, prompt_ids: Sequence[int]) -> int:
        """Return how many tokens at the beginning of a prompt are in the cache.

        GenAI takes whole blocks, and the last block of a sequence that the prompt continues. At
        least the last token of a prompt is always computed.
        """
        with self._lock:
            return max((_cached(kept, prompt_ids) for kept in self._kept), default=0)

    def keep(self, token_ids: Sequence[int]) -> None:
        """Note that prompt and answer of a request were computed."""
        with self._lock:
            self._capacity = max(self._capacity, len(token_ids))
            self._kept.append(tuple(token_ids[:-1]))  # the last token was not read by the model
            while sum(map(len, self._kept)) > self._capacity:
                del self._kept[0]


def _cached(kept: Sequence[int], prompt_ids: Sequence[int]) -> int:
    pairs = zip(kept, prompt_ids[:-1], strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return common if common == len(kept) else common // BLOCK_TOKENS * BLOCK_TOKENS
