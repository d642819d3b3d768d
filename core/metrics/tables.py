"""Measurements as tables: CSV for spreadsheets and programs, Markdown to publish."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from core.db.measurement_values import (
    Figures,
    Host,
    Int4Weights,
    Measurement,
    MeasurementState,
    Quality,
    Spread,
)
from core.markdown import code_span
from core.metrics.rows import subject_of
from core.runtimes.spec import NO_SPECULATION
from core.units import bytes_text, int4_text, speculation_text

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of cells that spreadsheets treat as a formula, or that can hide one."""

_PLAIN_WORD = re.compile(r"[A-Za-z0-9-]+(\.\d+)?")
"""Names without special meaning in Markdown."""

_NONE = "—"


def spreadsheet_text(text: str) -> str:
    """Return the text so that a spreadsheet shows it instead of evaluating it as a formula.

    Adds a leading apostrophe, as OWASP's page on CSV injection recommends.
    """
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA_STARTS) else text


# CSV

CSV_MARK = "\N{BYTE ORDER MARK}"
"""At the beginning of a CSV file: without it, spreadsheets do not read the file as UTF-8."""


_Read = Callable[[Measurement], Any]


def to_csv(measurements: Sequence[Measurement]) -> str:
    """Return one row per measurement, including failed ones; column names contain the units."""
    rows = [{name: read(each) for name, read in _CSV_COLUMNS.items()} for each in measurements]
    return csv_text(rows, list(_CSV_COLUMNS))


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return rows as CSV for spreadsheets.

    Args:
        columns: names, if there may be no row.
    """
    text = io.StringIO()
    text.write(CSV_MARK)
    writer = csv.writer(text)
    writer.writerow(columns or (rows[0] if rows else ()))
    writer.writerows(map(_cell, row.values()) for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return spreadsheet_text(value)
        case datetime():
            return value.isoformat()
        case tuple():
            return " ".join(value)
        case Mapping():
            return json.dumps(dict(value), sort_keys=True)
    return value


def value_of(measurement: Measurement, path: str) -> Any:
    """Return a field such as ``figures.ttft_ms.median``; None if what has it is unknown."""
    value: Any = measurement
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _at(path: str) -> _Read:
    return lambda measurement: value_of(measurement, path)


def _answers(measurement: Measurement) -> int:
    return sum(len(one.samples) for one in measurement.rounds)


_UNITS = {
    "decode_tokens_per_s": "decode_median_tokens_per_s",
    "decode_low": "decode_low_tokens_per_s",
    "decode_high": "decode_high_tokens_per_s",
    "prefill_tokens_per_s": "prefill_median_tokens_per_s",
    "end_to_end_tokens_per_s": "end_to_end_median_tokens_per_s",
    "memory_private_bytes": "memory_private_after_first_generate_bytes",
    "memory_file_backed_bytes": "memory_file_backed_after_first_generate_bytes",
    "mbu": "mbu_share_of_1",
}
"""Column names of figures whose field name lacks the unit or the statistic."""


def _figure_columns() -> dict[str, _Read]:
    columns: dict[str, _Read] = {}
    for field in fields(Figures):
        if field.name in ("ttft_ms", "tpot_ms"):
            stem = field.name.removesuffix("_ms")
            for part in fields(Spread):
                columns[f"{stem}_{part.name}_ms"] = _at(f"figures.{field.name}.{part.name}")
        elif field.name != "answers":  # see the column timed_answers
            columns[_UNITS.get(field.name, field.name)] = _at(f"figures.{field.name}")
    return columns


def _columns_of(part: str, kind: type) -> dict[str, _Read]:
    return {f"{part}_{field.name}": _at(f"{part}.{field.name}") for field in fields(kind)}


def _named(*paths: str) -> dict[str, _Read]:
    return {path.rpartition(".")[2]: _at(path) for path in paths}


_CSV_COLUMNS: dict[str, _Read] = {
    **_named("id", "sweep", "state", "error", "configuration.model"),
    "title": lambda measurement: subject_of(measurement).name,
    **_named("configuration.source", "configuration.random_weights", "configuration.precision"),
    "weights": _at("weights"),
    **_columns_of("int4", Int4Weights),
    **_named("execution_precision", "kv_precision", "configuration.device", "devices_used"),
    **_named("configuration.runtime", "configuration.hints", "configuration.speculation"),
    **_named("threads", "configuration.prompt_tokens", "configuration.new_tokens"),
    "repeats": _at("configuration.repeats"),
    "timed_answers": _answers,
    "rounds": lambda measurement: len(measurement.rounds),
    **_figure_columns(),
    **_named("disk_bytes", "weight_bytes"),
    **_columns_of("quality", Quality),
    **_columns_of("host", Host),
    **_named("versions", "created_at", "started_at", "ended_at", "imported_at"),
}


# Markdown


def to_markdown(measurements: Sequence[Measurement]) -> str:
    """Return a table for a README, with the errors and the conditions below it.

    Names that are more than a plain word are code spans, so that their Markdown has no effect.
    """
    columns = _markdown_columns(several=len({row.host.name for row in measurements}) > 1)
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[cell(row) for cell in columns.values()] for row in measurements]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
    below = "".join(f"- {line}\n" for line in _notes(measurements) + _conditions(measurements))
    return f"{table}\n{below}" if below else table


def _markdown_columns(*, several: bool) -> dict[str, Callable[[Measurement], str]]:
    """Map each header to its cell; the host is included only if there are several."""
    host = {"Host": lambda row: _name(row.host.name)} if several else {}
    return host | {
        "Model": lambda row: _name(subject_of(row).name),
        "Precision": lambda row: _name(subject_of(row).weights),
        "Device": _device,
        "Runtime": lambda row: _name(subject_of(row).runtime),
        "Prompt tokens": lambda row: f"{row.configuration.prompt_tokens:,}",
        "Decode tokens/s (median, low–high)": _decode,
        "TTFT ms": lambda row: _number(value_of(row, "figures.ttft_ms.median")),
        "Prefill tokens/s": lambda row: _number(value_of(row, "figures.prefill_tokens_per_s")),
        "Memory after the first generate (private / file-backed)": lambda row: _memory(row, ""),
        "Peak": lambda row: _memory(row, "_peak"),
        "Disk": lambda row: _NONE if row.disk_bytes is None else bytes_text(row.disk_bytes),
        "MBU": lambda row: _percent(value_of(row, "figures.mbu")),
        "Load s": lambda row: _number(value_of(row, "figures.load_s")),
        "Quality": _quality_text,
    }


def _device(row: Measurement) -> str:
    """Return the requested device, followed by the used one if it differs."""
    requested, used = row.configuration.device, ", ".join(row.devices_used)
    return _name(requested) if used in ("", requested) else f"{_name(requested)} ({_name(used)})"


def _decode(row: Measurement) -> str:
    """Return the rate with its range, or the state of the measurement if it has no figures."""
    figures = row.figures
    if figures is None:
        return row.state.value
    marks = ["measured while busy"] if figures.contended else []
    if row.state is not MeasurementState.DONE:
        marks.append(f"{row.state.value} after {_answers(row)} of {row.configuration.repeats}")
    rate = _NONE
    if figures.decode_tokens_per_s is not None:
        low, high = _number(figures.decode_low), _number(figures.decode_high)
        rate = f"{_number(figures.decode_tokens_per_s)} ({low}–{high})"
    return ", ".join([rate, *marks])


def _memory(row: Measurement, suffix: str) -> str:
    if row.figures is None:
        return _NONE
    kinds = ("memory_private", "memory_file_backed")
    sizes = [getattr(row.figures, f"{kind}{suffix}_bytes") for kind in kinds]
    return " / ".join(map(bytes_text, sizes))


def _quality_text(row: Measurement) -> str:
    quality = row.quality
    if quality is None:
        return _NONE
    texts = [
        f"perplexity × {quality.perplexity_ratio:.3f}",
        f"same top token {_percent(quality.top1_agreement)}",
    ]
    if quality.task_accuracy is not None:
        texts.append(f"accuracy {_percent(quality.task_accuracy)}")
    return ", ".join(texts)


def _notes(measurements: Sequence[Measurement]) -> list[str]:
    """Return errors of failed measurements and explanations of the marks."""
    lines = [
        f"{_name(subject_of(row).name)} {_name(subject_of(row).weights)}, "
        f"{row.configuration.prompt_tokens:,} prompt tokens: {code_span(row.error)}"
        for row in measurements
        if row.error
    ]
    if any(row.configuration.random_weights for row in measurements):
        lines.append("Random weights: only speed and size of the architecture are meaningful.")
    if any(row.figures is not None and row.figures.contended for row in measurements):
        lines.append(
            "Measured while busy: other work ran at the same time, or core-to-core latency was "
            "high; not comparable."
        )
    apart = [f.answers_apart for row in measurements if (f := row.figures) is not None]
    if any(apart):
        lines.append(
            f"{sum(apart):,} more answers with high core-to-core latency (cores apart) are left "
            "out."
        )
    return lines


def _conditions(measurements: Sequence[Measurement]) -> list[str]:
    """Return the conditions of the rows with figures, without duplicates."""
    measured = [row for row in measurements if row.figures is not None]
    # First the machines of all rows, then their weights, and so on.
    lines = [line for part in zip(*map(_conditions_of, measured), strict=True) for line in part]
    if days := sorted({f"{row.started_at or row.created_at:%Y-%m-%d}" for row in measured}):
        lines.append(f"Measured on {', '.join(days)} (UTC).")
    return [line for line in dict.fromkeys(lines) if line]


def _conditions_of(row: Measurement) -> tuple[str, ...]:
    """Return sentences about machine, INT4 weights (may be empty), execution, method, versions."""
    host, what, figures, subject = row.host, row.configuration, row.figures, subject_of(row)
    bandwidth = weights = ""
    if host.bandwidth_bytes_per_s is not None:
        bandwidth = f", measured read bandwidth {host.bandwidth_bytes_per_s / 1e9:.1f} GB/s"
    if row.int4 is not None:
        weights = (
            f"{_name(subject.name)} in INT4 on {_name(what.device)}: weights "
            f"{int4_text(**asdict(row.int4))}."
        )
    execution = [f"executed in {_name(row.execution_precision or 'unknown')}"]
    if row.kv_precision is not None:
        execution.append(f"KV cache in {_name(row.kv_precision)}")
    if row.threads is not None:
        execution.append(f"{row.threads} threads")
    guessed = what.speculation != NO_SPECULATION.text
    if guessed and figures is not None and figures.tokens_per_step is not None:
        effect = speculation_text(figures.tokens_per_step, figures.acceptance_rate)
        execution.append(f"speculation {_name(what.speculation)}: {effect}")
    processes = f" in {len(row.rounds)} new processes" if row.rounds else ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(row.versions.items()))
    return (
        f"Host {_name(host.name)}: {code_span(host.cpu)}, {host.cores} logical processors, "
        f"{bytes_text(host.memory_bytes)} of memory, {code_span(host.os)}{bandwidth}.",
        weights,
        f"{_name(subject.weights)} on {_name(what.device)}, {_name(subject.runtime)}: "
        f"{', '.join(execution)}.",
        f"Greedy answers of exactly {what.new_tokens} tokens, at least {what.repeats} timed "
        f"answers per row{processes}.",
        f"Versions: {code_span(versions)}.",
    )


def _name(text: str) -> str:
    """Return a plain word unchanged, and any other name as a code span for a table cell."""
    return text if _PLAIN_WORD.fullmatch(text) else code_span(text).replace("|", r"\|")


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:,.{1 if value < 100 else 0}f}"


def _percent(share: float | None) -> str:
    if share is None:
        return _NONE
    return f"{100 * share:.{1 if share > 0.95 else 0}f} %"
