"""What a program gets of the runtime's speed by way of ``/v1``, streamed."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from core.benchmark.speed.app import ENDLESS_APP, serving
from core.benchmark.speed.browser import FORCED_TOKENS, MIDDLE_TOKENS, Alone
from core.benchmark.speed.paired import Way
from core.benchmark.speed.rows import Bar, Row
from core.catalogue import DEFAULT_PRECISION
from core.errors import GenerationError
from core.runtimes.spec import ModelSpec
from core.settings import Settings

BAR = Bar(limit=0.97)
ROUNDS = 5
_PROMPT = "the cat is playing in the garden and " * 4
"""Some 32 tokens, as the runtime alone is asked with."""
_PATIENCE_S = 300.0


def program_rows(
    settings: Settings,
    embedded: Mapping[str, Path],
    middle: Path,
    alone: Alone,
    tell: Callable[[str], None],
) -> Iterator[Row]:
    """Tokens/s that arrive through ``/v1`` against the runtime's alone, in answers of one length.

    Args:
        settings: of the home in which the embedded models are.
        embedded: folders of the embedded models' IRs by key.
        middle: folder of the 410 M shape's IR.
        alone: the runtime by itself, asked by turns with the server.
    """
    places = [(middle.parent.name, "410 M shape", middle, middle.parents[2], MIDDLE_TOKENS)]
    places += [(key, key, ir, settings.home, FORCED_TOKENS) for key, ir in embedded.items()]
    for key, label, folder, home, tokens in places:
        tell(f"{label}: what a program gets.")
        way = Way("paddock", folder, ModelSpec(key, DEFAULT_PRECISION, "CPU"))
        rates: list[float] = []
        by_itself: list[float] = []
        with alone(way) as duel, serving(ENDLESS_APP, home) as served:
            for _ in range(ROUNDS + 1):
                answer = duel.one.ask(do="answer", prompt_tokens=32, new_tokens=tokens)
                by_itself.append(answer["tokens_per_s"])
                rates.append(streamed_rate(served.url, f"{key}@CPU", tokens))
        got, runtime = median(rates[1:]), median(by_itself[1:])
        yield Row(
            name=f"tokens/s through /v1, {label}, against the runtime alone",
            bar=BAR,
            value=got / runtime,
            detail=f"{got:,.1f} against {runtime:,.1f} tokens/s",
        )


def streamed_rate(url: str, model: str, tokens: int) -> float:
    """Tokens/s of a streamed answer: further tokens over further seconds of a long answer against
    a short one, so that the prompt and the request count for nothing.

    Random weights make tokens without text, of which no piece arrives: so it is not the pieces
    that are timed.

    Raises:
        GenerationError: the server refused, or gave fewer tokens.
    """
    short = max(1, tokens // 8)
    return (tokens - short) / (_streamed_s(url, model, tokens) - _streamed_s(url, model, short))


def _streamed_s(url: str, model: str, tokens: int) -> float:
    """Seconds from asking to the end of a streamed answer of so many tokens."""
    body = {
        "model": model,
        "prompt": _PROMPT,
        "max_tokens": tokens,
        "temperature": 0,
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
            raise GenerationError(f"The server refused: {answer.read(500).decode()}")
        last = b"{}"
        for line in answer:
            if line.startswith(b'data: {"id"'):
                last = line.removeprefix(b"data: ")
        took = time.perf_counter() - began
    finally:
        connection.close()
    usage: dict[str, Any] = json.loads(last).get("usage") or {}
    if usage.get("completion_tokens") != tokens:
        raise GenerationError(f"The server gave {usage}, where {tokens} tokens were asked for.")
    return took
