"""Speculation *auto* against *off*, by instructions of several kinds, and against other programs.

A pair is two answers of the same prompt right after each other, in changing order; a figure is the
median of the ratios of all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from core.benchmark.speed.instructions import OPEN, PASSAGE
from core.benchmark.speed.paired import PairedRun, Variant, VariantProcess
from core.benchmark.speed.peer_runtimes import LLAMA_CPP, NGRAM_KINDS, PYTORCH
from core.benchmark.speed.rows import Row, Threshold
from core.runtimes.spec import AUTO_SPECULATION, NO_SPECULATION, Speculation, SpeculationMode

MODEL = "smollm2-135m-instruct"
NEW_TOKENS = 100
USERS = 8

Paired = Callable[[Sequence[Variant]], PairedRun]
Report = Callable[[str], None]

_OFF, _AUTO = asdict(NO_SPECULATION), asdict(AUTO_SPECULATION)
_ON = asdict(Speculation(SpeculationMode.ON))


def auto_rows(ours: Variant, paired: Paired, pairs: int, report: Report) -> Iterator[Row]:
    """Yield auto against off in one process."""
    with paired([ours]) as run:
        process = run.only
        _ask(process, "summary", 160, 8, _ON)  # loads the second pipeline
        for tokens, temperature, bar in ((160, 0, 1.8), (430, 0, 1.3), (160, 0.8, 1.2)):
            how = f"temperature {temperature}" if temperature else "greedy"
            name = f"speculation auto against off, {tokens}-token prompts, {how}"
            kinds = {}
            for kind in PASSAGE:
                report(f"{name}: {kind}.")
                kinds[kind] = _auto_against_off(process, kind, tokens, pairs, temperature)
            yield _of_kinds(name, bar, kinds)
        kinds = {}
        for kind in OPEN:
            report(f"Speculation auto against off: {kind}.")
            kinds[kind] = _auto_against_off(process, kind, 0, pairs)
        yield _of_kinds("speculation auto against off, without a passage", 0.95, kinds)
        report("Speculation auto against off: eight at once.")
        yield _eight_at_once(process, pairs)


def _eight_at_once(process: VariantProcess, pairs: int) -> Row:
    ratios = []
    for number in range(pairs + 1):
        rates = {}
        for name in _alternating(["auto", "off"], number):
            rates[name] = process.run(
                do="together",
                count=USERS,
                prompt_tokens=160,
                new_tokens=NEW_TOKENS // 2,
                speculation=_AUTO if name == "auto" else _OFF,
            )["tokens_per_s"]
        if number:
            ratios.append(rates["auto"] / rates["off"])
    return Row(
        name="speculation auto against off, eight at once",
        bar=Threshold(limit=0.97),
        value=median(ratios),
        detail=f"{pairs} pairs",
    )


def _auto_against_off(
    process: VariantProcess, kind: str, tokens: int, pairs: int, temperature: float = 0
) -> tuple[float, str]:
    """Return the median ratio of the times per token, and what it was computed from."""
    ratios, steps, off_ms = [], [], []
    for number in range(pairs + 1):
        found: dict[str, Any] = {}
        for name in _alternating(["auto", "off"], number):
            speculation = _AUTO if name == "auto" else _OFF
            found[name] = _ask(process, kind, tokens, NEW_TOKENS, speculation, temperature, number)
        if number:
            ratios.append(found["off"]["ms_per_token"] / found["auto"]["ms_per_token"])
            steps.append(found["auto"]["tokens_per_step"])
            off_ms.append(found["off"]["ms_per_token"])
    text = f"{kind} {median(ratios):.2f} ({median(steps):.1f} tokens per step, "
    return median(ratios), f"{text}{median(off_ms):.1f} ms per token without)"


def peer_rows(
    ours: Variant, gguf: Path, paired: Paired, pairs: int, report: Report
) -> Iterator[Row]:
    """Yield Paddock against llama.cpp and PyTorch on the same GGUF file."""

    def peer(variant: str, speculation: str | None = None, slots: int = 1) -> Variant:
        request = {"variant": variant, "gguf": str(gguf), "speculation": speculation}
        name = " ".join(filter(None, (variant, speculation)))
        return Variant(name, ours.folder, peer=request | {"slots": slots})

    report("Against llama.cpp and PyTorch: plain decoding and prompts.")
    plain = [ours, peer(LLAMA_CPP), peer(PYTORCH)]
    with paired(plain) as run:
        short = _turns(run, pairs, do="answer", prompt_tokens=32, new_tokens=64)
        long = _turns(run, pairs, do="answer", prompt_tokens=512, new_tokens=2)
        memory = {name: each.run(do="memory") for name, each in run.processes.items()}
        yield _against("plain decode", short, LLAMA_CPP, "tokens_per_s", 0.8)
        yield _against("plain decode", short, PYTORCH, "tokens_per_s", 1.0)
        yield _against("prompt of 32 tokens", short, LLAMA_CPP, "ttft_ms", 1.0)
        yield _against("prompt of 512 tokens", long, LLAMA_CPP, "ttft_ms", 2.0)
        yield _against("prompt of 512 tokens", long, PYTORCH, "ttft_ms", 1.0)
        private = {name: each["private_bytes"] / 1e6 for name, each in memory.items()}
        yield Row(
            name="private memory relative to llama.cpp",
            bar=Threshold(limit=10, at_most=True),
            value=private["paddock"] / private[LLAMA_CPP],
            detail=", ".join(f"{name} {value:,.0f} MB" for name, value in private.items()),
        )
    report("Against llama.cpp and PyTorch: answers to passages with speculation.")
    guessing = [peer(LLAMA_CPP, kind) for kind in NGRAM_KINDS]
    with paired([ours, peer(LLAMA_CPP), *guessing, peer(PYTORCH, "lookup")]) as run:
        _ask(run.processes["paddock"], "summary", 430, 8, _ON)
        found: dict[str, list[float]] = {name: [] for name in run.processes}
        for number in range(pairs + 1):
            kind = list(PASSAGE)[number % len(PASSAGE)]
            for name in _alternating(list(run.processes), number):
                answer = _ask(run.processes[name], kind, 430, NEW_TOKENS, _AUTO)
                if number:
                    found[name].append(answer["total_ms"])
        best = min((each.name for each in guessing), key=lambda name: median(found[name]))
        title = "end to end, 430 prompt and 100 new tokens with auto, against"
        for name, bar in ((LLAMA_CPP, 2.0), (best, 1.8), (f"{PYTORCH} lookup", 1.0)):
            ratios = [b / a for a, b in zip(found["paddock"], found[name], strict=True)]
            times = f"{median(found['paddock']):,.0f} and {median(found[name]):,.0f} ms"
            yield Row(
                name=f"{title} {name}",
                bar=Threshold(limit=bar),
                value=median(ratios),
                detail=times,
            )
    report("Against llama.cpp: eight at once.")
    with paired([ours, peer(LLAMA_CPP, slots=USERS)]) as run:
        eight = _turns(
            run, pairs, do="together", count=USERS, prompt_tokens=32, new_tokens=NEW_TOKENS // 2
        )
        yield _against("eight at once, total", eight, LLAMA_CPP, "tokens_per_s", 2.0)


Turns = Mapping[str, Sequence[Mapping[str, float]]]


def _turns(run: PairedRun, pairs: int, **command: Any) -> Turns:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in run.processes}
    for number in range(pairs + 1):
        for name in _alternating(list(run.processes), number):
            answer = run.processes[name].run(**command)
            if number:
                found[name].append(answer)
    return found


def _against(what: str, found: Turns, name: str, figure: str, bar: float) -> Row:
    """Return how many times as fast Paddock is, from the pairs of a figure."""
    ours = [each[figure] for each in found["paddock"]]
    theirs = [each[figure] for each in found[name]]
    pairs = zip(ours, theirs, strict=True)
    slow = figure.endswith("_ms")
    return Row(
        name=f"{what}, against {name}",
        bar=Threshold(limit=bar),
        value=median(b / a if slow else a / b for a, b in pairs),
        detail=f"{median(ours):,.1f} and {median(theirs):,.1f} "
        f"{'ms' if slow else 'tokens/s'}, {len(ours)} pairs",
    )


def _of_kinds(name: str, bar: float, kinds: Mapping[str, tuple[float, str]]) -> Row:
    return Row(
        name=name,
        bar=Threshold(limit=bar),
        value=median(ratio for ratio, _ in kinds.values()),
        detail="; ".join(text for _, text in kinds.values()),
    )


def _alternating(names: list[str], number: int) -> list[str]:
    return names if number % 2 else names[::-1]


def _ask(
    process: VariantProcess,
    kind: str,
    tokens: int,
    new_tokens: int,
    speculation: Mapping[str, Any],
    temperature: float = 0,
    seed: int = 0,
) -> dict[str, Any]:
    return process.run(
        do="ask",
        model=MODEL,
        kind=kind,
        prompt_tokens=tokens,
        new_tokens=new_tokens,
        temperature=temperature,
        seed=seed,
        speculation=speculation,
    )
