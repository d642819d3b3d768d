"""``bench``: measure models on this machine or on a Ray cluster, and print the results."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import Precision, catalogue
from core.cli.speed import speed_suite
from core.cli.terminal import Line
from core.errors import BadRequestError, PaddockError
from core.settings import INSTALLED, Settings
from core.units import bytes_text, counted, duration_text

if TYPE_CHECKING:
    from core.benchmark.plan import Plan
    from core.benchmark.service import BenchmarkEstimate, Sweep, SweepProgress
    from core.db.measurement_values import Measurement
    from core.inference.engine import Engine
    from core.runtimes.spec import RuntimeName

_UPDATE_INTERVAL_S = 0.1
"""Interval at which the progress is updated."""

_PLAIN_EVERY_S = 30.0
"""Without a terminal, print a line for each new message, and at least once in this interval."""

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}

_MAX_LISTED = 20

_PLAN_OPTIONS = (
    "models",
    "random_weights",
    "precisions",
    "devices",
    "runtimes",
    "prompt_tokens",
    "new_tokens",
    "repeat",
    "rounds",
    "quality",
    "keep",
)
"""Options that define what a new benchmark run measures; None or False if not given."""

_FILES = ("json", "csv", "markdown")

_SUITE_OPTIONS = ("quick", "parts")
"""Options that only the speed suite has."""

_DASH = "—"


def bench(options: argparse.Namespace, settings: Settings) -> int:
    """Run a benchmark, print a table of the results, and write the requested files.

    The last line on stdout is one JSON object: id and state of the run, and how many of its rows
    are done and failed.

    Raises:
        BadRequestError: an option cannot be combined with the others.
    """
    from core.inference.engine import Engine

    _check_options(options)
    if options.suite:
        return speed_suite(options, settings)
    if not options.list:
        _check_files(options)
    engine = Engine(settings)
    try:
        if options.list:
            return _list(engine)
        if options.ray:
            return _measure_on_cluster(options, engine)
        if options.ray_resource:
            raise BadRequestError("--ray-resource selects nodes of a cluster. Add --ray.")
        return _measure(options, engine)
    finally:
        engine.close()


def byte_count(text: str) -> int:
    """Parse a size such as ``8GB``, ``512 MiB`` or ``1.5e9`` into bytes.

    Raises:
        argparse.ArgumentTypeError: not a size.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)\s*", text, re.IGNORECASE)
    unit = _UNITS.get(found[2].lower()) if found else None
    try:
        if found is None or unit is None:
            raise ValueError
        return int(float(found[1]) * unit)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; write for example 8GB or 512MB"
        ) from None


def names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def numbers(text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of integers.

    Raises:
        argparse.ArgumentTypeError: not such a list.
    """
    try:
        return tuple(int(part) for part in names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of integers; write for example 32,512"
        ) from None


def precisions(text: str) -> tuple[Precision, ...]:
    """Parse a comma-separated list of precisions.

    Raises:
        argparse.ArgumentTypeError: not such a list.
    """
    try:
        return tuple(Precision(name.lower()) for name in names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of precisions; choose from {', '.join(Precision)}"
        ) from None


def _measure(options: argparse.Namespace, engine: Engine) -> int:
    from core.benchmark.service import Benchmark
    from core.inference.contention import MONITOR

    with closing(Benchmark(engine.settings, lambda: engine.measurements, MONITOR)) as benchmark:
        if options.resume:
            sweep = benchmark.resume(options.resume, options.memory_limit)
        else:
            plan = _plan(options, engine.settings)
            needs = benchmark.estimate(plan)
            sweep = benchmark.start(plan)
            print(_needs_text(needs), file=sys.stderr, flush=True)
        return _finish(sweep, options, engine)


def _measure_on_cluster(options: argparse.Namespace, engine: Engine) -> int:
    from core.cluster.benchmark import ClusterBenchmark
    from core.cluster.connection import connected

    with connected(options.ray) as ray:
        fleet = ClusterBenchmark(ray, engine.measurements, options.ray_resource)
        if options.resume:
            sweep = fleet.resume(options.resume, options.memory_limit)
        else:
            sweep, needs = fleet.start(_plan(options, engine.settings))
            line = f"{counted(needs.rows, 'measurement')}: about {duration_text(needs.seconds)}."
            print(line, *needs.notes, sep="\n", file=sys.stderr, flush=True)
        return _finish(sweep, options, engine, "bench --ray ADDRESS")


def _finish(
    sweep: Sweep, options: argparse.Namespace, engine: Engine, command: str = "bench"
) -> int:
    """Show the progress of a benchmark run until its end, print the results, return the exit code.

    Args:
        options: names of the files to write.
        engine: used to find random weights that remain on disk.
        command: the command that resumes the run.
    """
    progress = _follow(sweep)
    print(_table(progress.rows))
    written = _write_files(options, progress.rows)
    if progress.error:
        print(progress.error, file=sys.stderr)
    _print_end(sweep, engine, command)
    done = sum(row.state == "done" for row in progress.rows)
    failed = sum(row.state == "failed" for row in progress.rows)
    summary = {
        "sweep": sweep.id,
        "state": sweep.state.value,
        "rows": len(progress.rows),
        "done": done,
        "failed": failed,
    }
    print(json.dumps(summary))
    return 0 if written and done == len(progress.rows) else PaddockError.exit_code


def _check_options(options: argparse.Namespace) -> None:
    """
    Raises:
        BadRequestError: options cannot be combined; the text names those to leave out.
    """
    if options.suite and INSTALLED:
        raise BadRequestError(
            "The speed suite needs the app, which the installed package does not contain. "
            "Run it in a clone of the repository."
        )
    if options.suite and (flags := _given(options, (*_PLAN_OPTIONS, "memory_limit", *_FILES))):
        raise BadRequestError(
            f"The speed suite has fixed measurements and writes no file. Leave out {flags}."
        )
    if not options.suite and (flags := _given(options, _SUITE_OPTIONS)):
        raise BadRequestError(
            f"Only the speed suite has {flags}. Add --suite speed, or leave out {flags}."
        )
    if options.resume and (flags := _given(options, _PLAN_OPTIONS)):
        raise BadRequestError(
            f"--resume continues a benchmark run as it was planned. Leave out {flags}, or start a "
            "new run without --resume."
        )


def _given(options: argparse.Namespace, names: Sequence[str]) -> str:
    """Return the given options among ``names`` as typed; empty if there are none."""
    values = {name: getattr(options, name) for name in names}
    given = [name for name, value in values.items() if value is not None and value is not False]
    return " and ".join(f"--{name.replace('_', '-')}" for name in given)


def _plan(options: argparse.Namespace, settings: Settings) -> Plan:
    from core.benchmark.plan import Plan

    given = {
        "precisions": options.precisions or _default_precisions(options, settings),
        "devices": options.devices,
        "runtimes": _runtimes(options.runtimes),
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "repeats": options.repeat,
    }
    chosen = options.models or options.random_weights
    plan = Plan(
        models=(options.models or ()) if chosen else _embedded(),
        random_models=options.random_weights or (),
        quality=options.quality,
        memory_limit_bytes=options.memory_limit,
        keep_random_weights=options.keep,
        **{name: value for name, value in given.items() if value is not None},
    )
    rounds = plan.rounds if options.rounds is None else options.rounds
    return replace(plan, rounds=min(rounds, plan.repeats)).validated()


def _default_precisions(
    options: argparse.Namespace, settings: Settings
) -> tuple[Precision, ...] | None:
    """Return "as stored" and the default precisions if all models are GGUF files, else None."""
    from core.benchmark.plan import DEFAULT_PRECISIONS
    from core.store import ModelStore

    store = ModelStore(settings)
    defaults = {store.default_precision(model) for model in options.models or ()}
    if options.random_weights or defaults != {Precision.STORED}:
        return None
    return (Precision.STORED, *DEFAULT_PRECISIONS)


def _runtimes(given: Sequence[str] | None) -> tuple[RuntimeName, ...] | None:
    """
    Raises:
        BadRequestError: a runtime is unknown or cannot be benchmarked.
    """
    from core.runtimes.spec import LOCAL_RUNTIMES

    if given is None:
        return None
    try:
        local = {name.value: name for name in LOCAL_RUNTIMES}
        return tuple(local[name.lower()] for name in given)
    except KeyError:
        raise BadRequestError(
            f"Unknown runtime in {', '.join(given)}. Choose from {', '.join(LOCAL_RUNTIMES)}."
        ) from None


def _embedded() -> tuple[str, ...]:
    return tuple(key for key, row in catalogue().items() if row.embedded)


# Progress


def _needs_text(needs: BenchmarkEstimate) -> str:
    parts = [f"about {duration_text(needs.seconds)}"]
    if needs.disk_bytes:
        parts.append(f"{bytes_text(needs.disk_bytes)} of disk")
    if needs.download_bytes:
        parts.append(f"a download of {bytes_text(needs.download_bytes)}")
    return f"{counted(needs.rows, 'measurement')}: {', '.join(parts)}."


def _follow(sweep: Sweep) -> SweepProgress:
    """Show the progress of a run until its end. Ctrl-C stops it and keeps its measurements."""
    line = _ProgressLine()
    try:
        while not sweep.wait(_UPDATE_INTERVAL_S):
            line.show(sweep.progress())
    except KeyboardInterrupt:
        sweep.cancel()
        sweep.wait()
    finally:  # also after any other exception; no effect on a finished run
        sweep.cancel()
        line.clear()
    return sweep.progress()


class _ProgressLine:
    """One line that is rewritten in a terminal; without a terminal, one line per message."""

    def __init__(self) -> None:
        self._line = Line()
        self._terminal = sys.stderr.isatty()
        self._last = ""
        self._printed = 0.0

    def show(self, progress: SweepProgress) -> None:
        """Show the current progress."""
        if not progress.total:
            return  # the plan is not resolved yet
        parts = [f"{progress.done} of {progress.total}"]
        if progress.seconds_left is not None:
            parts.append(f"{duration_text(progress.seconds_left)} left")
        text = f"{', '.join(parts)} · {progress.message}"
        if self._terminal:
            self._line.show(text[: shutil.get_terminal_size().columns - 1])
            return
        now = time.monotonic()
        if progress.message != self._last or now - self._printed >= _PLAIN_EVERY_S:
            self._last, self._printed = progress.message, now
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for other output."""
        self._line.clear()


def _print_end(sweep: Sweep, engine: Engine, command: str) -> None:
    from core.benchmark.random_models import random_weights_bytes

    progress = sweep.progress()
    print(progress.message, file=sys.stderr)
    if any(row.state.missing for row in progress.rows):
        print(
            f"`python -m core {command} --resume {sweep.id}` measures the missing rows.",
            file=sys.stderr,
        )
    kept = random_weights_bytes(engine.settings) if sweep.plan.random_models else 0
    if kept:
        print(
            f"{bytes_text(kept)} of random weights are kept on disk. "
            "`python -m core delete --random-weights` deletes them.",
            file=sys.stderr,
        )


# Results


def _check_files(options: argparse.Namespace) -> None:
    """Check before the measurements that the files can be written.

    Raises:
        BadRequestError: the folder of a file does not exist, or the file is a folder.
    """
    for file in (options.json, options.csv, options.markdown):
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise BadRequestError(f"{file} cannot be written. Name a file in an existing folder.")


def _write_files(options: argparse.Namespace, rows: Sequence[Measurement]) -> bool:
    """Write the requested files; print an error and return False if one cannot be written."""
    from core.metrics import document

    formats: list[tuple[Path | None, Callable[[Sequence[Measurement]], str]]] = [
        (options.json, document.to_json),
        (options.csv, document.to_csv),
        (options.markdown, document.to_markdown),
    ]
    complete = True
    for file, to_text in formats:
        if file is None:
            continue
        try:
            file.write_text(to_text(rows), encoding="utf-8", newline="")
        except (OSError, BadRequestError) as error:  # disk full, or too large to import again
            complete = False
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            print(
                f"{file} could not be written ({reason}). The measurements are stored; export them "
                "on the Metrics page.",
                file=sys.stderr,
            )
    return complete


def _table(rows: Sequence[Measurement]) -> str:
    """Format one line per row, with the reason if there are no figures."""
    several_hosts = len({row.host.name for row in rows}) > 1
    first = ("Host",) if several_hosts else ()
    head = (
        *first,
        "Model",
        "Precision",
        "Device",
        "Runtime",
        "Prompt",
        "Decode tokens/s",
        "TTFT",
        "Prefill tokens/s",
        "Private / file-backed",
        "MBU",
        "Load",
        "",
    )
    hosts = [(_plain(row.host.name),) if several_hosts else () for row in rows]
    lines = [head, *((*host, *_cells(row)) for host, row in zip(hosts, rows, strict=True))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    text = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        text.append("  ".join([*cells, line[-1]]).rstrip())
    return "\n".join(text)


def _cells(row: Measurement) -> tuple[str, ...]:
    from core.metrics.rows import subject_of

    configuration, figures = row.configuration, row.figures
    first = (
        _plain(configuration.title),
        _plain(subject_of(row).weights),
        configuration.device,
        configuration.runtime,
        str(configuration.prompt_tokens),
    )
    if figures is None:
        return (*first, *[_DASH] * 6, _remark(row))
    return (
        *first,
        _rate(figures.decode_tokens_per_s, figures.decode_low, figures.decode_high),
        f"{figures.ttft_ms.median:,.0f} ms",
        f"{figures.prefill_tokens_per_s:,.0f}",
        f"{bytes_text(figures.memory_private_bytes)} / "
        f"{bytes_text(figures.memory_file_backed_bytes)}",
        _DASH if figures.mbu is None else f"{figures.mbu:.0%}",
        duration_text(figures.load_s),
        _remark(row),
    )


def _rate(median: float | None, low: float | None, high: float | None) -> str:
    if median is None or low is None or high is None:
        return _DASH
    return f"{median:,.1f} ({low:,.1f}–{high:,.1f})"


def _remark(row: Measurement) -> str:
    marks = []
    if row.configuration.random_weights:
        marks.append("random weights")
    if row.figures is not None and row.figures.contended:
        marks.append("measured while busy")
    if row.quality is not None:
        marks.append(f"perplexity × {row.quality.perplexity_ratio:.3f}")
    if row.state != "done":
        marks.append(f"{row.state}: {_plain(row.error)}" if row.error else str(row.state))
    return ", ".join(marks)


def _plain(text: str) -> str:
    """Remove control characters that a terminal would interpret: titles come from files."""
    return "".join(c if c.isprintable() else " " for c in text)


def _list(engine: Engine) -> int:
    """Print the latest benchmark runs, newest first, with the number of missing rows."""
    for record in engine.measurements.sweeps(_MAX_LISTED):
        rows = engine.measurements.of_sweep(record.id)
        missing = sum(row.state.missing for row in rows)
        started = record.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        models: Any = [*record.plan.get("models", ()), *record.plan.get("random_models", ())]
        number = counted(len(rows), "measurement") + (f", {missing} missing" if missing else "")
        print(
            f"{record.id}  {started}  {record.state:11}  {number}  "
            f"{_plain(', '.join(map(str, models)))}"
        )
    return 0
