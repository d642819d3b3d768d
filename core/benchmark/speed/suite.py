"""Measures all figures of the suite and compares them with thresholds.

Ratios come from processes that run in turns, as medians, so that a machine that is slow for a while
is slow for both. Shapes of released models are measured with random weights. INT4 is asymmetric
with groups of 128 in all layers, the smallest of the usual settings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from core.benchmark.artifacts import Artifact, prepare_artifact
from core.benchmark.bandwidth import read_bandwidth
from core.benchmark.random_models import ensure_checkpoint, random_model, random_settings
from core.benchmark.speed import browser, program, speculation
from core.benchmark.speed.kernel import kernel_rates
from core.benchmark.speed.paired import PairedRun, Variant, in_turns
from core.benchmark.speed.rows import Row, accuracy_rows, rate_row
from core.benchmark.weights import bytes_per_token, weight_bytes
from core.catalogue import DEFAULT_PRECISION, Precision, catalogue, int4_settings
from core.errors import PaddockError, StoppedError
from core.runtimes.kv_cache import kv_bytes_per_position
from core.runtimes.spec import ModelSpec, RuntimeName
from core.settings import Settings
from core.store import convert_in_process, resolve
from core.store.checkpoint import read_json

LARGE, MIDDLE = "dolly-v2-3b", "neox-410m"
USERS = 8


@dataclass(frozen=True)
class Sizes:
    """Numbers of rounds and tokens."""

    rounds: int = 5
    large_tokens: int = 32
    middle_tokens: int = 64
    small_tokens: int = 512
    pairs: int = 25


QUICK = Sizes(rounds=2, large_tokens=12, middle_tokens=24, small_tokens=128, pairs=2)
FULL = Sizes()


@dataclass(frozen=True)
class Suite:
    """One run of the suite or of some of its parts, with the models that the parts share."""

    settings: Settings
    sizes: Sizes
    report: Callable[[str], None]
    """Receives a sentence about the current measurement."""
    cancel: threading.Event

    def run(self, parts: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of these parts as they are measured; an error becomes a row without a
        value.

        Raises:
            StoppedError: the suite was cancelled.
        """
        for part in parts:
            try:
                yield from (speculation.peer_rows if part == PEERS else PARTS[part])(self)
            except StoppedError:
                raise
            except PaddockError as error:
                yield Row(name=part, limit=0, detail=str(error))

    def paired(self, *variants: Variant) -> PairedRun:
        """Return the variants as processes that can be cancelled."""
        return PairedRun(variants, self.cancel)

    def ours(self, folder: Path, precision: Precision) -> Variant:
        """Return Paddock's variant of an IR."""
        return Variant("paddock", folder, ModelSpec(folder.parent.name, precision, "CPU"))

    def bandwidth(self) -> float:
        """Measure the memory read bandwidth, in bytes/s."""
        self.report("Measuring the memory read bandwidth.")
        return read_bandwidth()

    def checkpoint(self, key: str) -> Path:
        """Return the folder of a shape's checkpoint with random weights."""
        return ensure_checkpoint(
            random_model(key),
            self.settings,
            on_progress=lambda message, fraction: self.report(message),
            cancel=self.cancel,
        )

    def random(self, key: str, precision: Precision) -> Path:
        """Return the folder of a shape's IR with random weights; create it if necessary."""
        separate = random_settings(self.settings)
        separate = separate.model_copy(update={"home": separate.home / "suite"})
        int4 = int4_settings(Precision.INT4_GROUP128, None)
        self.report(f"Preparing {key} in {precision.label}.")
        return convert_in_process(
            resolve(str(self.checkpoint(key))),
            precision,
            settings=separate,
            compression=int4 if precision is Precision.INT4 else None,
            progress=lambda progress: None,
            cancel=self.cancel,
        ).folder

    def middle(self, precision: Precision) -> Path:
        """Return the folder of the 410 M shape's IR, which the store finds by its checkpoint."""
        return self.random(MIDDLE, precision)

    def stored(self, key: str, precision: Precision = DEFAULT_PRECISION) -> Path:
        """Return the folder of a catalogue model's IR; convert it if necessary."""
        return prepare_artifact(
            Artifact(key, False, precision),
            self.settings,
            on_progress=lambda message, fraction: None,
            cancel=self.cancel,
        ).folder

    def embedded(self) -> dict[str, Path]:
        """Return the folders of the tiny demo models' IRs by key."""
        return {key: self.stored(key) for key, row in catalogue().items() if row.embedded}


def _large(suite: Suite) -> Iterator[Row]:
    """Yield decode rate, time to first token and bandwidth utilisation of the 3 B shape."""
    for precision, decode_limit, mbu_limit in (
        (Precision.INT4, 1.4, 0.60),
        (Precision.INT8, 1.15, 0.75),
    ):
        folder = suite.random(LARGE, precision)
        label = f"{LARGE} shape, {precision.label}"
        sizes = suite.sizes
        before = suite.bandwidth()
        with suite.paired(suite.ours(folder, precision), Variant("notebook", folder)) as paired:
            suite.report(f"{label}: decoding and short prompts.")
            short = paired.medians(
                sizes.rounds, do="answer", prompt_tokens=32, new_tokens=sizes.large_tokens
            )
            rate, notebook = (short[name]["tokens_per_s"] for name in ("paddock", "notebook"))
            executed = " and ".join(str(each.execution) for each in paired.processes.values())
            name = f"decode, {label}, relative to the notebook"
            yield rate_row(name, rate, notebook, decode_limit, f"; executed in {executed}")
            yield _first_token(f"first token, {label}, 32 prompt tokens", short)
            suite.report(f"{label}: prompts of 512 tokens.")
            long = paired.medians(
                max(1, sizes.rounds // 2), do="answer", prompt_tokens=512, new_tokens=2
            )
        yield _first_token(f"first token, {label}, 512 prompt tokens", long)
        suite.report(f"{label}: OpenVINO's matrix multiplications alone.")
        rates = kernel_rates(precision)
        bandwidth = max(before, suite.bandwidth())
        kv = kv_bytes_per_position(read_json(folder / "config.json"), "u8")
        read = bytes_per_token(weight_bytes(folder), kv, 32, sizes.large_tokens) or 0
        yield Row(
            name=f"MBU of decode, {label}",
            limit=mbu_limit,
            value=read * rate / bandwidth,
            detail=f"{read / 1e9:.2f} GB per token at {rate:.1f} tokens/s, of "
            f"{bandwidth / 1e9:.1f} GB/s; the notebook {read * notebook / bandwidth:.2f}, "
            f"OpenVINO's multiplications alone {rates.from_memory / bandwidth:.2f} "
            f"({rates.from_memory / 1e9:.1f} GB/s, with weights in the cache "
            f"{rates.cached / 1e9:.1f})",
        )


def _first_token(name: str, found: dict[str, dict[str, float]]) -> Row:
    """Compare the times to first token of Paddock and of the notebook."""
    first, notebook = (found[variant]["ttft_ms"] for variant in ("paddock", "notebook"))
    return Row(
        name=f"{name}, relative to the notebook",
        limit=1.1,
        at_most=True,
        value=first / notebook,
        detail=f"{first:,.0f} and {notebook:,.0f} ms",
    )


def _middle(suite: Suite) -> Iterator[Row]:
    """Yield the decode rate of the 410 M shape relative to PyTorch, and eight users at once."""
    folder, tokens = suite.middle(Precision.INT4), suite.sizes.middle_tokens
    checkpoint = suite.checkpoint(MIDDLE)
    pytorch = [
        Variant(each.label, checkpoint, ModelSpec(MIDDLE, each, "CPU", RuntimeName.PYTORCH))
        for each in (Precision.FP32, Precision.FP16)
    ]
    with suite.paired(suite.ours(folder, Precision.INT4), *pytorch) as paired:
        suite.report("410 M shape: comparison with PyTorch.")
        found = paired.medians(suite.sizes.rounds, do="answer", prompt_tokens=32, new_tokens=tokens)
    rate, fp32, bf16 = (each["tokens_per_s"] for each in found.values())
    read = weight_bytes(folder) * rate / suite.bandwidth()
    yield Row(
        name="decode, 410 M shape, INT4, relative to PyTorch",
        limit=3.0,
        value=rate / max(fp32, bf16),
        detail=f"{rate:.1f}, {fp32:.1f} (fp32) and {bf16:.1f} (bf16) tokens/s; INT4 uses "
        f"{read:.0%} of the memory read bandwidth",
    )
    folder = suite.middle(Precision.INT8)
    with suite.paired(suite.ours(folder, Precision.INT8)) as paired:
        suite.report("410 M shape: eight users at once.")
        command = {"do": "together", "prompt_tokens": 32, "new_tokens": tokens}
        rates = in_turns(
            suite.sizes.rounds,
            {
                "one": lambda _: paired.only.run(count=1, **command)["tokens_per_s"],
                "eight": lambda _: paired.only.run(count=USERS, **command)["tokens_per_s"],
            },
        )
        prompt = 512
        found = paired.medians(2, do="answer", prompt_tokens=prompt, new_tokens=2)
    reading = 1000 * prompt / found["paddock"]["ttft_ms"]
    one, eight = map(median, rates.values())
    yield Row(
        name="eight users at once, 410 M shape, INT8, relative to one after another",
        limit=4.0,
        value=eight / one,
        detail=f"{eight:.1f} and {one:.1f} tokens/s; a prompt of {prompt} tokens is read at "
        f"{reading:.0f} tokens/s, {reading / one:.1f} times the rate of one answer, "
        "which is the upper limit of a batch",
    )


def _embedded(suite: Suite) -> Iterator[Row]:
    """Yield the decode rate of the tiny demo models relative to the notebook, and eight users at
    once."""
    for key, folder in suite.embedded().items():
        with suite.paired(
            suite.ours(folder, DEFAULT_PRECISION), Variant("notebook", folder)
        ) as paired:
            suite.report(f"{key}: decoding.")
            found = paired.medians(
                suite.sizes.rounds,
                do="answer",
                prompt_tokens=32,
                new_tokens=suite.sizes.small_tokens,
            )
            rates = (found[name]["tokens_per_s"] for name in ("paddock", "notebook"))
            yield rate_row(f"decode, {key}, relative to the notebook", *rates, 1.8)
            suite.report(f"{key}: held-out tasks, alone and eight at once.")
            alone, eight = (
                paired.processes["paddock"].run(do="tasks", model=key, together=count)
                for count in (1, USERS)
            )
        yield from accuracy_rows(key, alone, eight)


PARTS: dict[str, Callable[[Suite], Iterable[Row]]] = {
    "large": _large,
    "middle": _middle,
    "embedded": _embedded,
    "page": browser.page_rows,
    "api": program.program_rows,
    "start": browser.start_rows,
    "speculation": speculation.auto_rows,
}
"""By the names that the command line accepts."""

PEERS = "peers"
"""The part that needs other programs; it runs with ``--peers`` only."""
