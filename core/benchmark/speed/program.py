"""Measures how much of the runtime's speed reaches a program through ``/v1``, streamed."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from core.benchmark.speed.app import FORCED_TOKENS, MIDDLE_TOKENS, ROUNDS, serving
from core.benchmark.speed.rows import Row, rate_row
from core.catalogue import DEFAULT_PRECISION, Precision
from core.errors import GenerationError

if TYPE_CHECKING:
    from core.benchmark.speed.suite import Suite

_PROMPT = "the cat is playing in the garden and " * 4
"""About 32 tokens, as in the command to the runtime alone."""
_PATIENCE_S = 300.0


def program_rows(suite: Suite) -> Iterator[Row]:
    """Yield the rows of tokens/s through ``/v1`` relative to the runtime's, in answers of equal
    length. The runtime alone and the server run in turns."""
    middle = suite.middle(Precision.INT8)
    places = [(middle.parent.name, "410 M shape", middle, middle.parents[2], MIDDLE_TOKENS)]
    places += [
        (key, key, folder, suite.settings.home, FORCED_TOKENS)
        for key, folder in suite.embedded().items()
    ]
    for key, label, folder, home, tokens in places:
        suite.report(f"{label}: tokens/s through /v1.")
        ours, rates = suite.ours(folder, DEFAULT_PRECISION), []
        alone = []
        with suite.paired(ours) as paired, serving(home, endless=True) as served:
            for _ in range(ROUNDS + 1):
                answer = paired.only.run(do="answer", prompt_tokens=32, new_tokens=tokens)
                alone.append(answer["tokens_per_s"])
                rates.append(streamed_rate(served.url, f"{key}@CPU", tokens))
        name = f"tokens/s through /v1, {label}, relative to the runtime alone"
        yield rate_row(name, median(rates[1:]), median(alone[1:]), 0.97)


def streamed_rate(url: str, model: str, tokens: int) -> float:
    """Return the tokens/s of a streamed answer: additional tokens over additional seconds of a long
    answer compared with a short one, so that the prompt and the request do not count.

    Chunks are not timed, because random weights generate tokens without text, for which there is
    none.

    Raises:
        GenerationError: the server returned an error, or fewer tokens.
    """
    short = max(1, tokens // 8)
    return (tokens - short) / (_streamed_s(url, model, tokens) - _streamed_s(url, model, short))


def _streamed_s(url: str, model: str, tokens: int) -> float:
    """Return the seconds from the request to the end of a streamed answer with this many tokens."""
    body = {
        "model": model,
        "prompt": _PROMPT,
        "max_tokens": tokens,
        "temperature": 0,
        "speculation": "off",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE_S)
    began = time.perf_counter()
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise GenerationError(f"The server returned an error: {answer.read(500).decode()}")
        last = b"{}"
        for line in answer:
            if line.startswith(b'data: {"id"'):
                last = line.removeprefix(b"data: ")
        took = time.perf_counter() - began
    finally:
        connection.close()
    usage: dict[str, Any] = json.loads(last).get("usage") or {}
    if usage.get("completion_tokens") != tokens:
        raise GenerationError(f"The server returned {usage} instead of {tokens} tokens.")
    return took
