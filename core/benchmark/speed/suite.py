"""Measures every figure of the suite; what each bar is about stands beside it.

Ratios come from processes that are asked by turns within one run, as medians, so that a machine
that is slow for a while is slow for both. Shapes of released models are measured with random
weights. INT4 is asymmetric with groups of 128 in all layers, the smallest of the usual settings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.benchmark.artifacts import Material, make_ready
from core.benchmark.bandwidth import read_bandwidth
from core.benchmark.random_models import ensure_checkpoint, random_settings
from core.benchmark.shapes import random_model
from core.benchmark.speed import browser, program
from core.benchmark.speed.kernel import KernelRates, kernel_rates
from core.benchmark.speed.paired import Duel, Medians, Way
from core.benchmark.speed.rows import Bar, Row, accuracy_rows, against, first_token
from core.benchmark.weights import bytes_per_token, weight_bytes
from core.catalogue import DEFAULT_PRECISION, Precision, catalogue, default_int4
from core.errors import PaddockError, StoppedError
from core.runtimes.kv_cache import kv_bytes_per_position
from core.runtimes.spec import ModelSpec, RuntimeName
from core.settings import Settings
from core.store import convert_in_process, resolve
from core.store.checkpoint import read_json

LARGE, MIDDLE = "dolly-v2-3b", "neox-410m"
PEOPLE = 8
Tell = Callable[[str], None]
"""Told what is measured now, as a sentence."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int = 5
    large_tokens: int = 32
    middle_tokens: int = 64
    small_tokens: int = 512


QUICK = Sizes(rounds=2, large_tokens=12, middle_tokens=24, small_tokens=128)
FULL = Sizes()


class Suite:
    """One run of the suite, or of some of its parts."""

    def __init__(
        self, settings: Settings, sizes: Sizes, tell: Tell, cancel: threading.Event
    ) -> None:
        self._settings = settings
        self._sizes = sizes
        self._tell = tell
        self._cancel = cancel

    def run(self, parts: Sequence[str]) -> Iterator[Row]:
        """The rows of these parts as they are measured; what fails becomes a row without a value.

        Raises:
            StoppedError: it was cancelled.
        """
        for part in parts:
            try:
                yield from PARTS[part](self)
            except StoppedError:
                raise
            except PaddockError as error:
                yield Row(name=part, bar=Bar(limit=0), detail=str(error))

    def large(self) -> Iterator[Row]:
        """Decode, time to the first token and bandwidth of the 3 B shape."""
        for precision, decode, mbu in (
            (Precision.INT4, 1.4, 0.60),
            (Precision.INT8, 1.15, 0.75),
        ):
            yield from self._large(precision, decode, mbu)

    def _large(self, precision: Precision, decode_bar: float, mbu_bar: float) -> Iterator[Row]:
        folder = self._random(LARGE, precision)
        label = f"{LARGE} shape, {precision.label}"
        sizes = self._sizes
        before = self._bandwidth()
        with self._against_notebook(folder, precision) as duel:
            self._tell(f"{label}: decoding and short prompts.")
            short = duel.medians(
                sizes.rounds, do="answer", prompt_tokens=32, new_tokens=sizes.large_tokens
            )
            decode = against(f"decode, {label}, against the notebook's way", short, decode_bar)
            ours, theirs = (duel.contenders[name].execution for name in ("paddock", "notebook"))
            yield replace(decode, detail=f"{decode.detail}; executed in {ours} and {theirs}")
            yield first_token(f"first token, {label}, 32 prompt tokens", short)
            self._tell(f"{label}: prompts of 512 tokens.")
            long = duel.medians(
                max(1, sizes.rounds // 2), do="answer", prompt_tokens=512, new_tokens=2
            )
        yield first_token(f"first token, {label}, 512 prompt tokens", long)
        self._tell(f"{label}: OpenVINO's matrix multiplications by themselves.")
        rates = kernel_rates(precision)
        bandwidth = max(before, self._bandwidth())
        yield self._utilisation(label, folder, short, bandwidth, rates, mbu_bar)

    def _utilisation(
        self,
        label: str,
        folder: Path,
        found: Medians,
        bandwidth: float,
        rates: KernelRates,
        bar: float,
    ) -> Row:
        """Share of the memory's read bandwidth that decoding makes use of, and its ceiling."""
        kv = kv_bytes_per_position(read_json(folder / "config.json"), "u8")
        read = bytes_per_token(weight_bytes(folder), kv, 32, self._sizes.large_tokens) or 0
        ours, theirs = (found[name]["tokens_per_s"] for name in ("paddock", "notebook"))
        return Row(
            name=f"MBU of decode, {label}",
            bar=Bar(limit=bar),
            value=read * ours / bandwidth,
            detail=f"{read / 1e9:.2f} GB a token at {ours:.1f} tokens/s of "
            f"{bandwidth / 1e9:.1f} GB/s; the notebook's way {read * theirs / bandwidth:.2f}, "
            f"OpenVINO's multiplications by themselves {rates.from_memory / bandwidth:.2f} "
            f"({rates.from_memory / 1e9:.1f} GB/s, with weights in the cache "
            f"{rates.cached / 1e9:.1f})",
        )

    def middle(self) -> Iterator[Row]:
        """Decode of the 410 M shape against PyTorch, and eight people at once."""
        folder = self._random(MIDDLE, Precision.INT4)
        checkpoint = self._checkpoint(MIDDLE)
        ways = [_ours(folder, Precision.INT4)] + [
            Way(
                precision.label,
                checkpoint,
                ModelSpec(MIDDLE, precision, "CPU", RuntimeName.PYTORCH),
            )
            for precision in (Precision.FP32, Precision.FP16)
        ]
        with Duel(ways, self._cancel) as duel:
            self._tell("410 M shape: against PyTorch.")
            found = duel.medians(
                self._sizes.rounds,
                do="answer",
                prompt_tokens=32,
                new_tokens=self._sizes.middle_tokens,
            )
        ours = found["paddock"]["tokens_per_s"]
        fp32, bf16 = (found[p.label]["tokens_per_s"] for p in (Precision.FP32, Precision.FP16))
        read = weight_bytes(folder) * ours / self._bandwidth()
        yield Row(
            name="decode, 410 M shape, INT4, against PyTorch",
            bar=Bar(limit=3.0),
            value=ours / max(fp32, bf16),
            detail=f"{ours:.1f} against {fp32:.1f} (fp32) and {bf16:.1f} (bf16) tokens/s; "
            f"INT4 takes {read:.0%} of the memory's read bandwidth",
        )
        yield self._people()

    def _people(self) -> Row:
        folder = self._random(MIDDLE, Precision.INT8)
        new_tokens = self._sizes.middle_tokens
        with Duel([_ours(folder, Precision.INT8)], self._cancel) as duel:
            self._tell("410 M shape: eight people at once.")
            ours = duel.contenders["paddock"]
            alone, together = [], []
            for number in range(self._sizes.rounds + 1):
                one = ours.ask(do="together", count=1, prompt_tokens=32, new_tokens=new_tokens)
                all_of_them = ours.ask(
                    do="together", count=PEOPLE, prompt_tokens=32, new_tokens=new_tokens
                )
                if number:
                    alone.append(one["tokens_per_s"])
                    together.append(all_of_them["tokens_per_s"])
            prompt = 512
            found = duel.medians(2, do="answer", prompt_tokens=prompt, new_tokens=2)
        reading = 1000 * prompt / found["paddock"]["ttft_ms"]
        one, eight = sorted(alone)[len(alone) // 2], sorted(together)[len(together) // 2]
        return Row(
            name="eight people at once, 410 M shape, INT8, against one after another",
            bar=Bar(limit=4.0),
            value=eight / one,
            detail=f"{eight:.1f} against {one:.1f} tokens/s; a prompt of {prompt} tokens is "
            f"read at {reading:.0f} tokens/s, {reading / one:.1f} times one answer's rate, and no "
            "batch of answers gets beyond that",
        )

    def embedded(self) -> Iterator[Row]:
        """Decode of the embedded models against the notebook's way, and eight at once on them."""
        for key in _embedded():
            folder = self._stored(key)
            with self._against_notebook(folder, DEFAULT_PRECISION) as duel:
                self._tell(f"{key}: decoding.")
                found = duel.medians(
                    self._sizes.rounds,
                    do="answer",
                    prompt_tokens=32,
                    new_tokens=self._sizes.small_tokens,
                )
                yield against(f"decode, {key}, against the notebook's way", found, 1.8)
                self._tell(f"{key}: held-out tasks, alone and eight at once.")
                ours = duel.contenders["paddock"]
                alone = ours.ask(do="tasks", model=key, together=1)
                eight = ours.ask(do="tasks", model=key, together=PEOPLE)
            yield from accuracy_rows(key, alone, eight)

    def page(self) -> Iterator[Row]:
        """What the browser sees of it."""
        yield from browser.page_rows(
            self._settings,
            {key: self._stored(key) for key in _embedded()},
            self._random(MIDDLE, Precision.INT8),
            lambda way: Duel([way], self._cancel),
            self._tell,
        )

    def api(self) -> Iterator[Row]:
        """What a program gets of it through ``/v1``."""
        yield from program.program_rows(
            self._settings,
            {key: self._stored(key) for key in _embedded()},
            self._random(MIDDLE, Precision.INT8),
            lambda way: Duel([way], self._cancel),
            self._tell,
        )

    def start(self) -> list[Row]:
        """From starting the server to the first token."""
        key = _embedded()[0]
        self._stored(key)
        return browser.start_rows(self._settings, key, self._tell)

    def _against_notebook(self, folder: Path, precision: Precision) -> Duel:
        return Duel([_ours(folder, precision), Way("notebook", folder)], self._cancel)

    def _bandwidth(self) -> float:
        self._tell("Measuring the memory's read bandwidth.")
        return read_bandwidth()

    def _checkpoint(self, key: str) -> Path:
        return ensure_checkpoint(
            random_model(key),
            self._settings,
            on_progress=lambda message, fraction: self._tell(message),
            cancel=self._cancel,
        )

    def _random(self, key: str, precision: Precision) -> Path:
        """The shape's IR with random weights, made where it is not there yet."""
        apart = random_settings(self._settings)
        apart = apart.model_copy(update={"home": apart.home / "suite"})
        int4 = replace(default_int4(), group_size=128, ratio=1.0)
        self._tell(f"{key} in {precision.label}: having it on disk.")
        return convert_in_process(
            resolve(str(self._checkpoint(key))),
            precision,
            settings=apart,
            int4=int4 if precision is Precision.INT4 else None,
            progress=lambda progress: None,
            cancel=self._cancel,
        ).folder

    def _stored(self, key: str) -> Path:
        return make_ready(
            Material(key, False, DEFAULT_PRECISION),
            self._settings,
            on_progress=lambda message, fraction: None,
            cancel=self._cancel,
        ).folder


PARTS: dict[str, Callable[[Suite], Iterable[Row]]] = {
    "large": Suite.large,
    "middle": Suite.middle,
    "embedded": Suite.embedded,
    "page": Suite.page,
    "api": Suite.api,
    "start": Suite.start,
}
"""By the names under which the command line takes them."""


def _ours(folder: Path, precision: Precision) -> Way:
    return Way("paddock", folder, ModelSpec(folder.parent.name, precision, "CPU"))


def _embedded() -> list[str]:
    return [key for key, row in catalogue().items() if row.embedded]
