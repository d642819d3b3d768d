"""Measures in Chromium how much of the runtime's speed reaches the user of a browser.

Without Playwright or Chromium these rows are not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from core.benchmark.speed import chromium
from core.benchmark.speed.app import (
    APP,
    ENDLESS_APP,
    Served,
    evict_libraries,
    free_port,
    generate_once,
    serving,
)
from core.benchmark.speed.chromium import BrowserAnswer, Chromium, CpuSeconds
from core.benchmark.speed.paired import PairedRun, Variant
from core.benchmark.speed.rows import Row, Threshold
from core.catalogue import DEFAULT_PRECISION, Precision
from core.runtimes.spec import ModelSpec
from core.settings import Settings

FORCED_TOKENS = 960
"""Fits the context length of the tiny demo models, together with a prompt."""
MIDDLE_TOKENS = 200
ROUNDS = 5
"""Answers of each kind, after a first one that is not counted."""
LENGTHS = (240, 480, 960)
"""Lengths in tokens of the answers whose bytes are compared."""
SEEDS = (1, 2)
"""One answer of each length per seed, because the lengths of paragraphs vary."""

_PLAIN = {"greedy": "true", "speculation": "off"}
"""As the runtime alone, which generates one token per step."""

Alone = Callable[[Variant], PairedRun]
"""Starts a paired run with a single variant."""


def page_rows(
    settings: Settings,
    embedded: Mapping[str, Path],
    middle: Path,
    alone: Alone,
    report: Callable[[str], None],
) -> Iterator[Row]:
    """Yield the rows of tokens/s in the browser relative to the runtime's, and of the bytes
    transferred.

    Args:
        embedded: folders of the tiny demo models' IRs by key.
        middle: folder of the 410 M shape's IR, which the store finds by its checkpoint.
        alone: starts the runtime without a page; it and the page run in turns.
    """
    names = {
        key: f"tokens/s in the browser, {key}, relative to the runtime alone" for key in embedded
    }
    middle_name = "tokens/s in the browser, 410 M shape, relative to the runtime alone"
    bytes_name = "bytes to the browser for 960 tokens, relative to the line through 240 and 480"
    bars = [
        Threshold(limit=0.95),
        *[Threshold(limit=0.8)] * len(embedded),
        Threshold(limit=1.1, at_most=True),
    ]
    if why := chromium.missing():
        every = [middle_name, *names.values(), bytes_name]
        yield from (
            Row(name=name, bar=bar, detail=why) for name, bar in zip(every, bars, strict=True)
        )
        return
    report("410 M shape: tokens/s in the browser.")
    spec = ModelSpec(middle.parent.name, Precision.INT8, "CPU")
    query = {
        "model": middle.parent.name,
        "precision": "int8",
        "format": "plain",
        "tokens": MIDDLE_TOKENS,
        **_PLAIN,
    }
    variant = Variant("paddock", middle, spec)
    with (
        alone(variant) as paired,
        serving(ENDLESS_APP, middle.parents[2]) as served,
        chromium.chromium() as browser,
    ):
        seen = _rate(browser, served, query, paired)
    yield _seen_row(middle_name, bars[0], seen)
    with serving(ENDLESS_APP, settings.home) as served, chromium.chromium() as browser:
        for key, name in names.items():
            report(f"{key}: tokens/s in the browser.")
            query = {"model": key, "precision": DEFAULT_PRECISION.value, **_PLAIN}
            forced = {**query, "tokens": FORCED_TOKENS}
            variant = Variant("paddock", embedded[key], ModelSpec(key, DEFAULT_PRECISION, "CPU"))
            with alone(variant) as paired:
                seen = _rate(browser, served, forced, paired)
            yield _seen_row(name, bars[1], seen)
        report("Bytes to the browser, at reading speed.")
        # Of an immediate answer hardly any intermediate state is drawn. At the speed of a large
        # model the bytes show how each update grows with the length.
        query = {"model": key, "precision": DEFAULT_PRECISION.value, "pace": "reading"}
        sent = [
            mean(
                browser.measure_answer(served, {**query, "tokens": length, "seed": seed}).received
                for seed in SEEDS
            )
            for length in LENGTHS
        ]
    yield _bytes_row(bytes_name, bars[-1], sent)


def _bytes_row(name: str, bar: Threshold, sent: Sequence[float]) -> Row:
    """Compare the bytes of the longest answers with a straight line through the shorter ones."""
    (low, middle, high), (few, some, many) = sent, LENGTHS
    detail = ", ".join(
        f"{each:,.0f} B for {length} tokens" for each, length in zip(sent, LENGTHS, strict=True)
    )
    return Row(
        name=name,
        bar=bar,
        value=high / (low + (many - few) * (middle - low) / (some - few)),
        detail=f"{detail}, at reading speed",
    )


def start_rows(settings: Settings, key: str, report: Callable[[str], None]) -> Sequence[Row]:
    """Return the rows of seconds from the start of the server to the first token of the last used
    model.

    Before the first start the libraries' files are removed from the system's cache, if the system
    allows it. The second start follows at once, on the same address, so that the browser has cached
    the page.
    """
    names = {
        "first": f"cold start to the first token of {key}, seconds",
        "second": f"second start to the first token of {key}, seconds",
    }
    bars = {"first": Threshold(limit=8, at_most=True), "second": Threshold(limit=6, at_most=True)}
    if why := chromium.missing():
        return [Row(name=names[which], bar=bars[which], detail=why) for which in names]
    generate_once(settings, key)
    rows = []
    port = free_port()
    with chromium.chromium() as browser:
        for which, name in names.items():
            report(f"{key}: {which} start.")
            evicted = evict_libraries() if which == "first" else 0
            began = time.perf_counter()
            with serving(APP, settings.home, port) as served:
                answered = time.perf_counter() - began
                query = {"model": key, "precision": DEFAULT_PRECISION.value}
                browser.wait_for_first_token(served, query)
                took = time.perf_counter() - began
            detail = f"the server responded after {answered:.1f} s"
            if evicted:
                detail += f"; {evicted:,} files were read from disk again"
            rows.append(Row(name=name, bar=bars[which], value=took, detail=detail))
    return rows


@dataclass(frozen=True)
class _Rate:
    """Tokens/s in the browser and of the runtime alone."""

    tokens_per_s: float
    alone: float
    cores: CpuSeconds
    """Cores in use while the page showed an answer."""


def _seen_row(name: str, bar: Threshold, seen: _Rate) -> Row:
    """Both answers are greedy: sampling from 50 000 tokens is not a cost of the page."""
    cores = seen.cores
    return Row(
        name=name,
        bar=bar,
        value=seen.tokens_per_s / seen.alone,
        detail=f"{seen.tokens_per_s:,.1f} and {seen.alone:,.1f} tokens/s; cores used by the model "
        f"{cores.model:.2f}, the server {cores.server:.2f}, Chromium {cores.browser:.2f}",
    )


def _rate(
    browser: Chromium, served: Served, query: Mapping[str, object], paired: PairedRun
) -> _Rate:
    """Measure tokens/s in the browser: additional tokens over additional seconds of long answers
    compared with short ones, from submitting to the end, so that the prompt and the page do not
    count.

    All run in turns, and medians count. The first answer of each kind, which loads files and warms
    up, is not counted.
    """
    tokens = int(str(query["tokens"]))
    short = tokens // 8
    seen: dict[int, list[BrowserAnswer]] = {short: [], tokens: []}
    alone: list[float] = []
    for number in range(ROUNDS + 1):
        by_itself = paired.only.run(do="answer", prompt_tokens=32, new_tokens=tokens)
        answers = {
            length: browser.measure_answer(served, {**query, "tokens": length}) for length in seen
        }
        if number:
            alone.append(by_itself["tokens_per_s"])
            for length, answer in answers.items():
                seen[length].append(answer)

    def further(figure: Callable[[BrowserAnswer], float]) -> float:
        return median(map(figure, seen[tokens])) - median(map(figure, seen[short]))

    seconds = further(lambda one: one.seconds)
    return _Rate(
        (tokens - short) / seconds,
        median(alone),
        CpuSeconds(
            further(lambda one: one.cpu.model) / seconds,
            further(lambda one: one.cpu.server) / seconds,
            further(lambda one: one.cpu.browser) / seconds,
        ),
    )
