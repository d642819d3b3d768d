"""What a person in front of a browser gets of the runtime's speed, measured in Chromium.

Without Playwright or a Chromium these rows are not measured.
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
    forget_libraries,
    free_port,
    serving,
    use_once,
)
from core.benchmark.speed.chromium import Chromium, CpuSeconds, Seen
from core.benchmark.speed.paired import Duel, Way
from core.benchmark.speed.rows import Bar, Row
from core.catalogue import DEFAULT_PRECISION, Precision
from core.runtimes.spec import ModelSpec
from core.settings import Settings

FORCED_TOKENS = 960
"""What the embedded models have positions for, beside a prompt."""
MIDDLE_TOKENS = 200
ROUNDS = 5
"""Answers of each kind, after a first one that is not counted."""
LENGTHS = (240, 480, 960)
"""Tokens of the answers whose bytes are compared."""
SEEDS = (1, 2)
"""Answers of each length: how long its paragraphs are differs from one to another."""

Alone = Callable[[Way], Duel]
"""A way of answering by itself, in a process of its own."""


def page_rows(
    settings: Settings,
    embedded: Mapping[str, Path],
    middle: Path,
    alone: Alone,
    tell: Callable[[str], None],
) -> Iterator[Row]:
    """Tokens/s seen in the browser against the runtime's, and the bytes it takes.

    Args:
        embedded: folders of the embedded models' IRs by key.
        middle: folder of the 410 M shape's IR, which the store finds by its checkpoint.
        alone: the runtime by itself, asked by turns with the page.
    """
    names = {key: f"tokens/s in the browser, {key}, against the runtime alone" for key in embedded}
    middle_name = "tokens/s in the browser, 410 M shape, against the runtime alone"
    bytes_name = "bytes to the browser of 960 tokens, against the line through 240 and 480"
    bars = [Bar(limit=0.95), *[Bar(limit=0.8)] * len(embedded), Bar(limit=1.1, at_most=True)]
    if why := chromium.missing():
        every = [middle_name, *names.values(), bytes_name]
        yield from (
            Row(name=name, bar=bar, detail=why) for name, bar in zip(every, bars, strict=True)
        )
        return
    tell("410 M shape: what the browser sees.")
    spec = ModelSpec(middle.parent.name, Precision.INT8, "CPU")
    query = {
        "model": middle.parent.name,
        "precision": "int8",
        "format": "plain",
        "tokens": MIDDLE_TOKENS,
        "greedy": "true",
    }
    way = Way("paddock", middle, spec)
    with (
        alone(way) as duel,
        serving(ENDLESS_APP, middle.parents[2]) as served,
        chromium.chromium() as browser,
    ):
        seen = _rate(browser, served, query, duel)
    yield _seen_row(middle_name, bars[0], seen)
    with serving(ENDLESS_APP, settings.home) as served, chromium.chromium() as browser:
        for key, name in names.items():
            tell(f"{key}: what the browser sees.")
            query = {"model": key, "precision": DEFAULT_PRECISION.value, "greedy": "true"}
            forced = {**query, "tokens": FORCED_TOKENS}
            way = Way("paddock", embedded[key], ModelSpec(key, DEFAULT_PRECISION, "CPU"))
            with alone(way) as duel:
                seen = _rate(browser, served, forced, duel)
            yield _seen_row(name, bars[1], seen)
        tell("Bytes to the browser, at reading pace.")
        # Of an answer that comes at once hardly anything is drawn on the way: at the pace of a
        # large model its bytes tell how each drawing grows with the length.
        query = {"model": key, "precision": DEFAULT_PRECISION.value, "pace": "reading"}
        sent = [
            mean(
                browser.answered(served, {**query, "tokens": length, "seed": seed}).received
                for seed in SEEDS
            )
            for length in LENGTHS
        ]
    yield _bytes_row(bytes_name, bars[-1], sent)


def _bytes_row(name: str, bar: Bar, sent: Sequence[float]) -> Row:
    """Bytes of the longest answers against what the shorter ones let expect of a straight line."""
    (low, middle, high), (few, some, many) = sent, LENGTHS
    detail = ", ".join(
        f"{each:,.0f} B for {length} tokens" for each, length in zip(sent, LENGTHS, strict=True)
    )
    return Row(
        name=name,
        bar=bar,
        value=high / (low + (many - few) * (middle - low) / (some - few)),
        detail=f"{detail}, shown at reading pace",
    )


def start_rows(settings: Settings, key: str, tell: Callable[[str], None]) -> Sequence[Row]:
    """Seconds from starting the server to the first token of the last used model.

    Before the first start the files of the libraries are put out of the system's cache where the
    system lets us; the second follows at once, at the same address, so that the browser has kept
    what it loaded of the page.
    """
    names = {
        "first": f"cold start to the first token of {key}, seconds",
        "second": f"second start to the first token of {key}, seconds",
    }
    bars = {"first": Bar(limit=8, at_most=True), "second": Bar(limit=6, at_most=True)}
    if why := chromium.missing():
        return [Row(name=names[which], bar=bars[which], detail=why) for which in names]
    use_once(settings, key)
    rows = []
    port = free_port()
    with chromium.chromium() as browser:
        for which, name in names.items():
            tell(f"{key}: {which} start.")
            forgotten = forget_libraries() if which == "first" else 0
            began = time.perf_counter()
            with serving(APP, settings.home, port) as served:
                answered = time.perf_counter() - began
                query = {"model": key, "precision": DEFAULT_PRECISION.value}
                browser.await_first_letter(served, query)
                took = time.perf_counter() - began
            detail = f"the server answered after {answered:.1f} s"
            if forgotten:
                detail += f"; {forgotten:,} files were read from the disk again"
            rows.append(Row(name=name, bar=bars[which], value=took, detail=detail))
    return rows


@dataclass(frozen=True)
class _Rate:
    """What a person sees, and what the runtime gave by itself meanwhile."""

    tokens_per_s: float
    alone: float
    cores: CpuSeconds
    """Cores that each was using while the page showed an answer."""


def _seen_row(name: str, bar: Bar, seen: _Rate) -> Row:
    """Answers alike in both, greedy: what drawing from 50 000 tokens costs is not the page's."""
    cores = seen.cores
    return Row(
        name=name,
        bar=bar,
        value=seen.tokens_per_s / seen.alone,
        detail=f"{seen.tokens_per_s:,.1f} against {seen.alone:,.1f} tokens/s; cores used by the "
        f"model {cores.model:.2f}, the server {cores.server:.2f}, Chromium {cores.browser:.2f}",
    )


def _rate(browser: Chromium, served: Served, query: Mapping[str, object], duel: Duel) -> _Rate:
    """Tokens/s as a person sees them: further tokens over further seconds of long answers against
    short ones, from the click to the end, so that the prompt and the page count for nothing.

    All by turns, the median of each; a first answer of each kind, for which everybody loads what
    they need, is not counted.
    """
    tokens = int(str(query["tokens"]))
    short = tokens // 8
    seen: dict[int, list[Seen]] = {short: [], tokens: []}
    alone: list[float] = []
    for number in range(ROUNDS + 1):
        by_itself = duel.one.ask(do="answer", prompt_tokens=32, new_tokens=tokens)
        answers = {length: browser.answered(served, {**query, "tokens": length}) for length in seen}
        if number:
            alone.append(by_itself["tokens_per_s"])
            for length, answer in answers.items():
                seen[length].append(answer)

    def further(figure: Callable[[Seen], float]) -> float:
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
