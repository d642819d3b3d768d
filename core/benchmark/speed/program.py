"""Measures how much of the runtime's speed reaches a program through ``/v1``, streamed."""

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
from core.benchmark.speed.paired import Variant
from core.benchmark.speed.rows import Row, Threshold
from core.catalogue import DEFAULT_PRECISION
from core.errors import GenerationError
from core.runtimes.spec import ModelSpec
from core.settings import Settings

THRESHOLD = Threshold(limit=0.97)
ROUNDS = 5
_PROMPT = "the cat is playing in the garden and " * 4
"""About 32 tokens, as in the command to the runtime alone."""
_PATIENCE_S = 300.0


def program_rows(
    settings: Settings,
    embedded: Mapping[str, Path],
    middle: Path,
    alone: Alone,
    report: Callable[[str], None],
) -> Iterator[Row]:
    """Yield the rows of tokens/s through ``/v1`` relative to the runtime's, in answers of equal
    length.

    Args:
        settings: of the home folder with the tiny demo models.
        embedded: folders of the tiny demo models' IRs by key.
        middle: folder of the 410 M shape's IR.
        alone: starts the runtime without a server; it and the server run in turns.
    """
    places = [(middle.parent.name, "410 M shape", middle, middle.parents[2], MIDDLE_TOKENS)]
    places += [(key, key, ir, settings.home, FORCED_TOKENS) for key, ir in embedded.items()]
    for key, label, folder, home, tokens in places:
        report(f"{label}: tokens/s through /v1.")
        variant = Variant("paddock", folder, ModelSpec(key, DEFAULT_PRECISION, "CPU"))
        rates: list[float] = []
        by_itself: list[float] = []
        with alone(variant) as paired, serving(ENDLESS_APP, home) as served:
            for _ in range(ROUNDS + 1):
                answer = paired.only.run(do="answer", prompt_tokens=32, new_tokens=tokens)
                by_itself.append(answer["tokens_per_s"])
                rates.append(streamed_rate(served.url, f"{key}@CPU", tokens))
        got, runtime = median(rates[1:]), median(by_itself[1:])
        yield Row(
            name=f"tokens/s through /v1, {label}, relative to the runtime alone",
            bar=THRESHOLD,
            value=got / runtime,
            detail=f"{got:,.1f} and {runtime:,.1f} tokens/s",
        )


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
