"""Measurements as tables: CSV for spreadsheets and programs, Markdown to publish."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
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
from core.units import bytes_text, int4_text

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


def to_csv(measurements: Sequence[Measurement]) -> str:
    """Return one row per measurement, including failed ones; column names contain the units."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _CSV_COLUMNS)
    writer.writeheader()
    for measurement in measurements:
        writer.writerow(
            {name: _cell(read(measurement)) for name, read in _CSV_COLUMNS.items()},
        )
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return spreadsheet_text(value) if isinstance(value, str) else value


_Read = Callable[[Measurement], Any]


def _field(name: str) -> _Read:
    return lambda measurement: getattr(measurement, name)


def _configured(name: str) -> _Read:
    return lambda measurement: getattr(measurement.configuration, name)


def _host(name: str) -> _Read:
    return lambda measurement: getattr(measurement.host, name)


def _figure(name: str) -> _Read:
    return lambda measurement: getattr(measurement.figures, name, None)


def _spread(name: str, part: str) -> _Read:
    return lambda measurement: getattr(getattr(measurement.figures, name, None), part, None)


def _quality(name: str) -> _Read:
    return lambda measurement: getattr(measurement.quality, name, None)


def _int4(name: str) -> _Read:
    return lambda measurement: getattr(measurement.int4, name, None)


def _time(name: str) -> _Read:
    return lambda measurement: moment.isoformat() if (moment := getattr(measurement, name)) else ""


def _as_json(read: _Read) -> _Read:
    return lambda measurement: json.dumps(dict(read(measurement)), sort_keys=True)


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
                columns[f"{stem}_{part.name}_ms"] = _spread(field.name, part.name)
        elif field.name != "answers":  # see the column timed_answers
            columns[_UNITS.get(field.name, field.name)] = _figure(field.name)
    return columns


_CSV_COLUMNS: dict[str, _Read] = {
    "id": _field("id"),
    "sweep": _field("sweep"),
    "state": lambda measurement: measurement.state.value,
    "error": _field("error"),
    "model": _configured("model"),
    "title": lambda measurement: subject_of(measurement).name,
    "source": _configured("source"),
    "random_weights": _configured("random_weights"),
    "precision": _configured("precision"),
    "weights": _field("weights"),
    **{f"int4_{field.name}": _int4(field.name) for field in fields(Int4Weights)},
    "execution_precision": _field("execution_precision"),
    "kv_precision": _field("kv_precision"),
    "device": _configured("device"),
    "devices_used": lambda measurement: " ".join(measurement.devices_used),
    "runtime": _configured("runtime"),
    "hints": _as_json(_configured("hints")),
    "threads": _field("threads"),
    "prompt_tokens": _configured("prompt_tokens"),
    "new_tokens": _configured("new_tokens"),
    "repeats": _configured("repeats"),
    "timed_answers": _answers,
    "rounds": lambda measurement: len(measurement.rounds),
    **_figure_columns(),
    "disk_bytes": _field("disk_bytes"),
    "weight_bytes": _field("weight_bytes"),
    **{f"quality_{field.name}": _quality(field.name) for field in fields(Quality)},
    **{f"host_{field.name}": _host(field.name) for field in fields(Host)},
    "versions": _as_json(_field("versions")),
    "created_at": _time("created_at"),
    "started_at": _time("started_at"),
    "ended_at": _time("ended_at"),
    "imported_at": _time("imported_at"),
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
        "Runtime": lambda row: _name(row.configuration.runtime),
        "Prompt tokens": lambda row: f"{row.configuration.prompt_tokens:,}",
        "Decode tokens/s (median, low–high)": _decode,
        "TTFT ms": lambda row: _number(_spread("ttft_ms", "median")(row)),
        "Prefill tokens/s": lambda row: _number(_figure("prefill_tokens_per_s")(row)),
        "Memory after the first generate (private / file-backed)": lambda row: _memory(row, ""),
        "Peak": lambda row: _memory(row, "_peak"),
        "Disk": lambda row: _NONE if row.disk_bytes is None else bytes_text(row.disk_bytes),
        "MBU": lambda row: _percent(_figure("mbu")(row)),
        "Load s": lambda row: _number(_figure("load_s")(row)),
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
    parts = (_machine, _compression, _execution, _method, _versions)
    lines = [line for part in parts for row in measured if (line := part(row))]
    if days := sorted({f"{row.started_at or row.created_at:%Y-%m-%d}" for row in measured}):
        lines.append(f"Measured on {', '.join(days)} (UTC).")
    return list(dict.fromkeys(lines))


def _machine(row: Measurement) -> str:
    host = row.host
    bandwidth = ""
    if host.bandwidth_bytes_per_s is not None:
        bandwidth = f", measured read bandwidth {host.bandwidth_bytes_per_s / 1e9:.1f} GB/s"
    return (
        f"Host {_name(host.name)}: {code_span(host.cpu)}, {host.cores} logical processors, "
        f"{bytes_text(host.memory_bytes)} of memory, {code_span(host.os)}{bandwidth}."
    )


def _compression(row: Measurement) -> str | None:
    what = row.configuration
    if row.int4 is None:
        return None
    place = f"{_name(subject_of(row).name)} in INT4 on {_name(what.device)}"
    return f"{place}: weights {int4_text(**asdict(row.int4))}."


def _execution(row: Measurement) -> str:
    what = row.configuration
    parts = [f"executed in {_name(row.execution_precision or 'unknown')}"]
    if row.kv_precision is not None:
        parts.append(f"KV cache in {_name(row.kv_precision)}")
    if row.threads is not None:
        parts.append(f"{row.threads} threads")
    place = f"{_name(subject_of(row).weights)} on {_name(what.device)}, {_name(what.runtime)}"
    return f"{place}: {', '.join(parts)}."


def _method(row: Measurement) -> str:
    what = row.configuration
    processes = f" in {len(row.rounds)} new processes" if row.rounds else ""
    return (
        f"Greedy answers of exactly {what.new_tokens} tokens, at least {what.repeats} timed "
        f"answers per row{processes}."
    )


def _versions(row: Measurement) -> str:
    named = [f"{name} {version}" for name, version in sorted(row.versions.items())]
    return f"Versions: {code_span(', '.join(named))}."


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
