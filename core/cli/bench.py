"""``bench``: measure models on this machine or on a Ray cluster, and print the results."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from core.catalogue import DEFAULT_PRECISION, Precision, catalogue
from core.cli.output import check_writable, plain, table, write_file
from core.cli.terminal import follow, say, step_of
from core.errors import BadRequestError, PaddockError
from core.settings import INSTALLED, Settings
from core.units import bytes_text, counted, duration_text

if TYPE_CHECKING:
    from core.benchmark.estimate import BenchmarkEstimate
    from core.benchmark.plan import Plan
    from core.benchmark.speed.rows import Row
    from core.benchmark.sweep import Sweep
    from core.db.measurement_values import Measurement
    from core.inference.engine import Engine
    from core.store import ModelStore

_MAX_LISTED = 20

_PLAN_OPTIONS = (
    *("models", "random_weights", "precisions", "devices", "runtimes", "prompt_tokens"),
    *("new_tokens", "repeat", "rounds", "quality", "keep", "speculation", "preset"),
)
"""Options that define what a new benchmark run measures; None or False if not given."""

_FILES = ("json", "csv", "markdown")

_SUITE_OPTIONS = ("quick", "parts", "peers")
"""Options that only the speed suite has."""

_SUITE_HEAD = ("Figure", "Value", "Threshold", "", "")

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
        return _speed_suite(options, settings)
    if not options.list:
        check_writable(options.json, options.csv, options.markdown)
    with closing(Engine(settings)) as engine:
        if options.list:
            return _list(engine)
        if options.ray:
            return _measure_on_cluster(options, engine)
        if options.ray_resource:
            raise BadRequestError("--ray-resource selects nodes of a cluster. Add --ray.")
        return _measure(options, engine)


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
            say(_needs_text(needs))
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
            say(line, *needs.notes)
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
    from core.benchmark.random_models import random_weights_bytes
    from core.metrics import llama_bench

    follow(sweep.wait, sweep.cancel, lambda: step_of(sweep.progress()))
    progress = sweep.progress()
    print(llama_bench.to_markdown(progress.rows) if options.preset else _table(progress.rows))
    written = _write_files(options, progress.rows)
    if progress.error:
        say(progress.error)
    say(progress.message)
    if any(row.state.missing for row in progress.rows):
        say(f"`python -m core {command} --resume {sweep.id}` measures the missing rows.")
    kept = random_weights_bytes(engine.settings) if sweep.plan.random_models else 0
    if kept:
        say(
            f"{bytes_text(kept)} of random weights are kept on disk. "
            "`python -m core delete --random-weights` deletes them."
        )
    summary = {"sweep": sweep.id, "state": sweep.state.value, "rows": len(progress.rows)}
    for state in ("done", "failed"):
        summary[state] = sum(row.state == state for row in progress.rows)
    print(json.dumps(summary))
    return 0 if written and summary["done"] == summary["rows"] else PaddockError.exit_code


def _speed_suite(options: argparse.Namespace, settings: Settings) -> int:
    """Run the speed suite, print a table and, as the last line, one JSON object.

    Ctrl-C prints the measurements so far. Returns 1 if a measured threshold is not met.
    """
    from core.benchmark.lock import BenchmarkLock
    from core.benchmark.speed.suite import FULL, PARTS, PEERS, QUICK, Suite

    parts = options.parts or tuple(PARTS)
    for part in parts:
        if part not in PARTS:
            raise BadRequestError(
                f"The speed suite has no part {part!r}. Choose from {', '.join(PARTS)}."
            )
    if options.peers:
        parts = (*(options.parts or ()), PEERS)
    suite = Suite(settings, QUICK if options.quick else FULL, say, threading.Event())
    rows: list[Row] = []
    with BenchmarkLock(settings).acquire():
        try:
            for row in suite.run(parts):
                rows.append(row)
                say(f"  {row.name}: {row.text}")
        finally:
            if rows:
                marks = {True: "met", False: "not met", None: "not measured"}
                lines = [
                    (row.name, row.text, row.threshold, marks[row.met], row.detail) for row in rows
                ]
                print(table([_SUITE_HEAD, *lines]))
                found = [row.to_json() for row in rows]
                print(json.dumps({"rows": found}, ensure_ascii=False), flush=True)
    return PaddockError.exit_code if any(row.met is False for row in rows) else 0


def _check_options(options: argparse.Namespace) -> None:
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
    from core.metrics import llama_bench

    given = {
        "precisions": options.precisions or _default_precisions(options, settings),
        "devices": options.devices,
        "runtimes": options.runtimes,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "repeats": options.repeat,
        "speculation": options.speculation,
    }
    if options.preset:  # one process, as llama-bench has
        preset = {
            "prompt_tokens": (llama_bench.PROMPT_TOKENS, llama_bench.EMPTY),
            "new_tokens": llama_bench.NEW_TOKENS,
        }
        given = preset | {name: value for name, value in given.items() if value is not None}
    chosen = options.models or options.random_weights
    embedded = tuple(key for key, row in catalogue().items() if row.embedded)
    plan = Plan(
        models=(options.models or ()) if chosen else embedded,
        random_models=options.random_weights or (),
        quality=options.quality,
        memory_limit_bytes=options.memory_limit,
        keep_random_weights=options.keep,
        **{name: value for name, value in given.items() if value is not None},
    )
    usual = 1 if options.preset else plan.rounds
    rounds = usual if options.rounds is None else options.rounds
    return replace(plan, rounds=min(rounds, plan.repeats)).validated()


def _default_precisions(
    options: argparse.Namespace, settings: Settings
) -> tuple[Precision, ...] | None:
    """Return the default precisions that all models can have; None for the usual ones.

    GGUF files are also measured as stored, an OpenVINO model that is compressed only so.
    """
    from core.benchmark.plan import DEFAULT_PRECISIONS
    from core.store import ModelStore

    if options.random_weights or not options.models:
        return None
    store = ModelStore(settings)
    offered: list[tuple[Precision, ...]] = []
    for model in options.models:
        own = store.default_precision(model, ask_hub=True)
        if own is DEFAULT_PRECISION:
            offered.append(DEFAULT_PRECISIONS)
        elif own is Precision.STORED and _is_gguf(store, model):
            offered.append((own, *DEFAULT_PRECISIONS))
        else:
            offered.append((own,))
    every = list(dict.fromkeys(each for precisions in offered for each in precisions))
    common = [each for each in every if all(each in precisions for precisions in offered)]
    return tuple(common or every)


def _is_gguf(store: ModelStore, model: str) -> bool:
    try:
        return store.resolve(model).is_gguf
    except PaddockError:
        return False


# Progress


def _needs_text(needs: BenchmarkEstimate) -> str:
    parts = [f"about {duration_text(needs.seconds)}"]
    if needs.disk_bytes:
        parts.append(f"{bytes_text(needs.disk_bytes)} of disk")
    if needs.download_bytes:
        parts.append(f"a download of {bytes_text(needs.download_bytes)}")
    return f"{counted(needs.rows, 'measurement')}: {', '.join(parts)}."


# Results


def _write_files(options: argparse.Namespace, rows: Sequence[Measurement]) -> bool:
    """Write the requested files; print an error and return False if one cannot be written."""
    from core.metrics import document, llama_bench, tables

    to_json, to_markdown = document.to_json, tables.to_markdown
    if options.preset:
        to_json, to_markdown = llama_bench.to_json, llama_bench.to_markdown
    remedy = "The measurements are stored; export them on the Metrics page."
    written = [
        write_file(options.json, lambda: to_json(rows), remedy),
        write_file(options.csv, lambda: tables.to_csv(rows), remedy),
        write_file(options.markdown, lambda: to_markdown(rows), remedy),
    ]
    return all(written)


def _table(rows: Sequence[Measurement]) -> str:
    """Format one line per row, with the reason if there are no figures."""
    several_hosts = len({row.host.name for row in rows}) > 1
    head = (
        *("Host", "Model", "Precision", "Device", "Runtime", "Prompt", "Decode tokens/s", "TTFT"),
        *("Prefill tokens/s", "Private / file-backed", "MBU", "Load", ""),
    )
    lines = [head, *map(_cells, rows)]
    return table(lines if several_hosts else [line[1:] for line in lines])


def _cells(row: Measurement) -> tuple[str, ...]:
    from core.metrics.rows import subject_of

    configuration, figures = row.configuration, row.figures
    first = (
        plain(row.host.name),
        plain(configuration.title),
        plain(subject_of(row).weights),
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
        marks.append(f"{row.state}: {plain(row.error)}" if row.error else str(row.state))
    return ", ".join(marks)


def _list(engine: Engine) -> int:
    """Print the latest benchmark runs, newest first, with the number of missing rows."""
    for record in engine.measurements.sweeps(_MAX_LISTED):
        rows = engine.measurements.of_sweep(record.id)
        missing = sum(row.state.missing for row in rows)
        started = record.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        models = [*record.plan.get("models", ()), *record.plan.get("random_models", ())]
        number = counted(len(rows), "measurement") + (f", {missing} missing" if missing else "")
        print(
            f"{record.id}  {started}  {record.state:11}  {number}  "
            f"{plain(', '.join(map(str, models)))}"
        )
    return 0
