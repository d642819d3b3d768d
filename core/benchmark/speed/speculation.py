"""Speculation *auto* against *off*, by instructions of several kinds, and against other programs.

A pair is two answers of the same prompt right after each other, in changing order; a figure is the
median of the ratios of all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from core.benchmark.speed.paired import Variant, VariantProcess, in_turns, median_ratio
from core.benchmark.speed.paired_worker import OPEN, PASSAGE
from core.benchmark.speed.peer_runtimes import LLAMA_CPP, NGRAM_KINDS, PYTORCH
from core.benchmark.speed.rows import Row
from core.catalogue import Precision, catalogue
from core.errors import GenerationError
from core.runtimes.spec import AUTO_SPECULATION, NO_SPECULATION, Speculation, SpeculationMode
from core.store.resolver import package_file
from core.workers.process import Event

if TYPE_CHECKING:
    from core.benchmark.speed.suite import Suite

MODEL = "smollm2-135m-instruct"
NEW_TOKENS = 100
USERS = 8

_OFF, _AUTO = asdict(NO_SPECULATION), asdict(AUTO_SPECULATION)
_ON = asdict(Speculation(SpeculationMode.ON))


def auto_rows(suite: Suite) -> Iterator[Row]:
    """Yield auto against off in one process."""
    title = "speculation auto against off"
    with suite.paired(suite.ours(suite.stored(MODEL, Precision.INT4), Precision.INT4)) as run:
        process = run.only
        _ask(process, "summary", 160, 8, _ON)  # loads the second pipeline
        for kinds, tokens, temperature, limit, how in (
            (PASSAGE, 160, 0, 1.8, "160-token prompts, greedy"),
            (PASSAGE, 430, 0, 1.3, "430-token prompts, greedy"),
            (PASSAGE, 160, 0.8, 1.2, "160-token prompts, temperature 0.8"),
            (OPEN, 0, 0, 0.95, "without a passage"),
        ):
            ratios, texts = [], []
            for kind in kinds:
                suite.report(f"{title}, {how}: {kind}.")
                ratio, text = _auto_against_off(
                    process, kind, tokens, suite.sizes.pairs, temperature
                )
                ratios.append(ratio)
                texts.append(text)
            name = f"{title}, {how}"
            yield Row(name=name, limit=limit, value=median(ratios), detail="; ".join(texts))
        suite.report(f"{title}: eight at once.")
        command = {"count": USERS, "prompt_tokens": 160, "new_tokens": NEW_TOKENS // 2}
        found = in_turns(
            suite.sizes.pairs,
            {
                "auto": lambda _: process.run(do="together", speculation=_AUTO, **command),
                "off": lambda _: process.run(do="together", speculation=_OFF, **command),
            },
        )
        yield Row(
            name=f"{title}, eight at once",
            limit=0.97,
            value=median_ratio(found["auto"], found["off"], "tokens_per_s"),
            detail=f"{suite.sizes.pairs} pairs",
        )


def _auto_against_off(
    process: VariantProcess, kind: str, tokens: int, pairs: int, temperature: float
) -> tuple[float, str]:
    """Return the median ratio of the times per token, and what it was computed from."""

    def asked(speculation: Mapping[str, Any], number: int) -> Event:
        return _ask(process, kind, tokens, NEW_TOKENS, speculation, temperature, number)

    found = in_turns(pairs, {"auto": partial(asked, _AUTO), "off": partial(asked, _OFF)})
    ratio = median_ratio(found["off"], found["auto"], "ms_per_token")
    steps = median(each["tokens_per_step"] for each in found["auto"])
    off_ms = median(each["ms_per_token"] for each in found["off"])
    return ratio, (
        f"{kind} {ratio:.2f} ({steps:.1f} tokens per step, {off_ms:.1f} ms per token without)"
    )


def peer_rows(suite: Suite) -> Iterator[Row]:
    """Yield Paddock against llama.cpp and PyTorch on the same GGUF file.

    Raises:
        GenerationError: the file or one of the programs is not installed.
    """
    ours, pairs = suite.ours(suite.stored(MODEL, Precision.INT4), Precision.INT4), suite.sizes.pairs
    gguf = package_file(catalogue()[MODEL])
    if gguf is None:
        raise GenerationError(
            "SmolLM2's GGUF file is not installed. Install requirements-models.txt."
        )

    def peer(variant: str, speculation: str | None = None, slots: int = 1) -> Variant:
        request = {"variant": variant, "gguf": str(gguf), "speculation": speculation}
        name = " ".join(filter(None, (variant, speculation)))
        return Variant(name, ours.folder, peer=request | {"slots": slots})

    suite.report("Against llama.cpp and PyTorch: plain decoding and prompts.")
    with suite.paired(ours, peer(LLAMA_CPP), peer(PYTORCH)) as run:
        short = run.turns(pairs, do="answer", prompt_tokens=32, new_tokens=64)
        long = run.turns(pairs, do="answer", prompt_tokens=512, new_tokens=2)
        memory = {name: each.run(do="memory") for name, each in run.processes.items()}
        yield _against("plain decode", short, LLAMA_CPP, "tokens_per_s", 0.8)
        yield _against("plain decode", short, PYTORCH, "tokens_per_s", 1.0)
        yield _against("prompt of 32 tokens", short, LLAMA_CPP, "ttft_ms", 1.0)
        yield _against("prompt of 512 tokens", long, LLAMA_CPP, "ttft_ms", 2.0)
        yield _against("prompt of 512 tokens", long, PYTORCH, "ttft_ms", 1.0)
        private = {name: each["private_bytes"] / 1e6 for name, each in memory.items()}
        yield Row(
            name="private memory relative to llama.cpp",
            limit=10,
            at_most=True,
            value=private["paddock"] / private[LLAMA_CPP],
            detail=", ".join(f"{name} {value:,.0f} MB" for name, value in private.items()),
        )
    suite.report("Against llama.cpp and PyTorch: answers to passages with speculation.")
    guessing = [peer(LLAMA_CPP, kind) for kind in NGRAM_KINDS]
    kinds = list(PASSAGE)
    with suite.paired(ours, peer(LLAMA_CPP), *guessing, peer(PYTORCH, "lookup")) as run:
        _ask(run.processes["paddock"], "summary", 430, 8, _ON)
        found = in_turns(
            pairs,
            {
                name: lambda number, process=process: _ask(
                    process, kinds[number % len(kinds)], 430, NEW_TOKENS, _AUTO
                )
                for name, process in run.processes.items()
            },
        )
        times = {name: median(each["total_ms"] for each in found[name]) for name in found}
        best = min((each.name for each in guessing), key=times.__getitem__)
        title = "end to end, 430 prompt and 100 new tokens with auto, against"
        for name, limit in ((LLAMA_CPP, 2.0), (best, 1.8), (f"{PYTORCH} lookup", 1.0)):
            yield Row(
                name=f"{title} {name}",
                limit=limit,
                value=median_ratio(found[name], found["paddock"], "total_ms"),
                detail=f"{times['paddock']:,.0f} and {times[name]:,.0f} ms",
            )
    suite.report("Against llama.cpp: eight at once.")
    with suite.paired(ours, peer(LLAMA_CPP, slots=USERS)) as run:
        eight = run.turns(
            pairs, do="together", count=USERS, prompt_tokens=32, new_tokens=NEW_TOKENS // 2
        )
        yield _against("eight at once, total", eight, LLAMA_CPP, "tokens_per_s", 2.0)


def _against(
    what: str, found: Mapping[str, Sequence[Event]], name: str, figure: str, limit: float
) -> Row:
    """Return how many times as fast Paddock is, from the pairs of a figure."""
    slow = figure.endswith("_ms")
    ours, theirs = found["paddock"], found[name]
    middles = [median(each[figure] for each in answers) for answers in (ours, theirs)]
    return Row(
        name=f"{what}, against {name}",
        limit=limit,
        value=median_ratio(*((theirs, ours) if slow else (ours, theirs)), figure),
        detail=f"{middles[0]:,.1f} and {middles[1]:,.1f} "
        f"{'ms' if slow else 'tokens/s'}, {len(ours)} pairs",
    )


def _ask(
    process: VariantProcess,
    kind: str,
    tokens: int,
    new_tokens: int,
    speculation: Mapping[str, Any],
    temperature: float = 0,
    seed: int = 0,
) -> Event:
    return process.run(
        do="answer",
        model=MODEL,
        kind=kind,
        prompt_tokens=tokens,
        new_tokens=new_tokens,
        temperature=temperature,
        seed=seed,
        speculation=speculation,
    )
