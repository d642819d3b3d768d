"""Export and import of measurements: lossless, and robust against hostile files.

Markdown output is checked with an independent parser.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from core.db.measurement_values import MAX_ERROR, MAX_TEXT, Host, Measurement, MeasurementState
from core.db.measurements import MeasurementStore
from core.errors import BadRequestError
from core.metrics import document
from core.metrics.document import INVALID_CHARACTERS, from_json, to_json
from core.metrics.tables import CSV_MARK, spreadsheet_text, to_csv, to_markdown
from core.settings import Settings
from tests.db.measurement_samples import (
    a_figures,
    a_measurement,
    a_quality,
    a_round,
    a_waiting_one,
    an_int4,
)

NOT_OURS = r"^The file is not a Paddock benchmark\. Choose a JSON file written by Export"

Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> str:
    """A document of two measurements, the second of them changed."""
    plain = json.loads(to_json([a_measurement(), a_measurement()]))
    change(plain["measurements"][1])
    return json.dumps(plain)


def error_of(text: str | bytes) -> str:
    """Return the error message for an invalid file."""
    with pytest.raises(BadRequestError) as raised:
        from_json(text)
    error = str(raised.value)
    assert "\n" not in error and len(error) < 400 and error.endswith(".")
    return error


# Round trip


def test_every_field_survives_the_round_trip() -> None:
    rows = [a_measurement(), a_waiting_one(), a_measurement(rounds=(), figures=a_figures())]
    assert from_json(to_json(rows)) == rows
    assert from_json(to_json(rows).encode()) == rows
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        assert from_json(to_json(rows).encode(encoding)) == rows
    assert from_json(b"\xef\xbb\xbf" + to_json(rows).encode()) == rows, (
        "some editors add a byte order mark"
    )
    assert from_json("\N{BYTE ORDER MARK}" + to_json(rows)) == rows
    assert from_json(to_json([])) == []


def test_the_same_measurements_give_the_same_bytes_one_a_line() -> None:
    rows = [a_measurement(), a_measurement()]
    text = to_json(rows)
    assert text == to_json(from_json(text))
    assert [rows[0].id in text.splitlines()[1], rows[1].id in text.splitlines()[2]] == [True, True]


def test_from_one_database_to_another_without_loss(tmp_path: Path) -> None:
    here, there = (MeasurementStore.open(Settings(home=tmp_path / name)) for name in "ab")
    rows = [a_measurement(imported_at=None), a_measurement(figures=a_figures(mbu=1 / 3))]
    for row in rows:
        here.save(row)
    there.import_all(from_json(to_json(here.all())))
    found = {row.id: row for row in there.all()}
    assert len(found) == 2
    for row in rows:
        assert replace(found[row.id], imported_at=row.imported_at) == row
    again = from_json(to_json(there.all()))
    assert there.import_all(again).already_there == here.import_all(again).already_there == 2


def test_times_of_other_zones_come_back_as_the_same_moment() -> None:
    there = datetime(2026, 3, 1, 13, 30, tzinfo=timezone(timedelta(hours=2)))
    (found,) = from_json(to_json([a_measurement(created_at=there)]))
    assert found.created_at == there and found.created_at.tzinfo is UTC


def test_invalid_characters_and_nan_do_not_stop_an_export() -> None:
    row = a_measurement(title="a\0b\x1bc\ud800", figures=a_figures(mbu=float("nan")))
    (found,) = from_json(to_json([row]).encode())
    assert found.configuration.title == "a\ufffdb\ufffdc\ufffd"
    assert found.figures.mbu is None


names = st.text(max_size=MAX_TEXT).filter(lambda text: not INVALID_CHARACTERS.search(text))
figure = st.floats(0, 1e18)
size = st.integers(0, 2**63 - 1)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(title=names, error=names, load_s=figure, size=size, mbu=st.none() | figure, hint=names)
def test_any_measurement_survives_the_round_trip(
    title: str, error: str, load_s: float, size: int, mbu: float | None, hint: str
) -> None:
    row = a_measurement(
        title=title,
        error=error,
        hints={hint: hint},
        disk_bytes=size,
        rounds=(a_round(load_s=load_s, memory_private_bytes=size),),
        figures=a_figures(mbu=mbu, load_s=load_s),
    )
    assert from_json(to_json([row])) == [row]
    table = list(csv.DictReader(io.StringIO(to_csv([row]).removeprefix(CSV_MARK), newline="")))
    assert len(table) == 1 and float(table[0]["load_s"]) == load_s
    to_markdown([row])


# Invalid files


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "42",
        '"paddock-benchmark"',
        "{}",
        '{"measurements": []}',
        '{"format": "paddock-benchmark", "measurements": []}',
        '{"format": "paddock-benchmark", "version": "1", "measurements": []}',
        '{"format": "paddock-benchmark", "version": true, "measurements": []}',
        '{"format": "paddock-benchmark", "version": 1, "measurements": {}}',
        '{"format": ["paddock-benchmark"], "version": 1, "measurements": []}',
        "<html><body>404</body></html>",
        "model,tokens/s\na,1\n",
        b"\x89PNG\r\n\x1a\n\0\0",
        b"\xff\xfe{\0}\0",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": ' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"format": ' + "9" * 10_000 + "}",
        '{"format": "paddock-benchmark", "version": 1, "measurements": ['
        + "[]," * 1_000_000
        + "0]}",
        '{"format": "paddock-benchmark", "version": NaN, "measurements": []}',
        '{"format": "paddock-benchmark", "version": 1, "measurements": [-Infinity]}',
    ],
)
def test_other_files_are_rejected(text: str | bytes) -> None:
    assert re.search(NOT_OURS, error_of(text))


@pytest.mark.parametrize("text", ["", b"", " \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_reported_as_empty(text: str | bytes) -> None:
    assert error_of(text).startswith("The file is empty")


def test_a_file_cut_off_anywhere_is_rejected() -> None:
    text = to_json([a_measurement()]).encode()
    for length in range(1, len(text.rstrip()), 97):
        assert "damaged or incomplete at line" in error_of(text[:length])


def test_a_file_with_flipped_bytes_is_rejected_or_read_but_never_breaks() -> None:
    good = bytearray(to_json([a_measurement()]).encode())
    for place in range(0, len(good), 53):
        for value in (0, 0x22, 0x2D, 0x7B, 0xFF):
            bad = bytes(good[:place]) + bytes([value]) + bytes(good[place + 1 :])
            try:
                from_json(bad)
            except BadRequestError as error:
                assert len(str(error)) < 400


def test_a_file_of_a_newer_paddock_asks_for_an_update() -> None:
    text = '{"format": "paddock-benchmark", "version": 2, "measurements": [{"new": 1}]}'
    assert "newer version of Paddock" in error_of(text)


def test_a_file_too_large_is_rejected_before_it_is_parsed(monkeypatch) -> None:
    monkeypatch.setattr(document, "MAX_BYTES", 1000)
    monkeypatch.setattr(document, "_rows", lambda text: pytest.fail("it was read"))
    assert "can be imported. Filter the measurements and export them in parts." in error_of(
        b" " * 1001
    )


def in_part(name: str, **values: Any) -> Change:
    return lambda row: row[name].update(values)


def in_round(**values: Any) -> Change:
    return lambda row: row["rounds"][1].update(values)


def in_sample(**values: Any) -> Change:
    return lambda row: row["rounds"][1]["samples"][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda row: row.update(id="../../etc/passwd"),
            "id: Input should be 32 hexadecimal digits",
        ),
        (lambda row: row.update(sweep=7), "sweep: Input should be 32 hexadecimal digits"),
        (lambda row: row.update(state="finished"), "state: "),
        (lambda row: row.update(state=["done"]), "state: "),
        (lambda row: row.pop("host"), "host: "),
        (lambda row: row.pop("created_at"), "created_at: "),
        (lambda row: row.update(host=None), "host: "),
        (lambda row: row.update(figures=None), "figures: Field required"),
        (lambda row: row.update(extra=1), "extra: "),
        (lambda row: row.update(error="x" * (MAX_ERROR + 1)), "error: "),
        (lambda row: row.update(devices_used="CPU"), "devices_used: "),
        (lambda row: row.update(devices_used=[1]), "devices_used.0: "),
        (
            lambda row: row.update(disk_bytes=-1),
            "disk_bytes: Input should be a whole number from 0",
        ),
        (lambda row: row.update(disk_bytes=1.5), "disk_bytes: "),
        (lambda row: row.update(disk_bytes=2**63), "disk_bytes: "),
        (lambda row: row.update(disk_bytes=True), "disk_bytes: "),
        (lambda row: row.update(threads=2**31), "threads: "),
        (lambda row: row.update(started_at="2026-03-01T11:30:00"), "started_at: "),
        (lambda row: row.update(started_at="2026-02-30T11:30:00Z"), "started_at: "),
        (lambda row: row.update(started_at="0001-01-01T00:00:00+14:00"), "started_at: "),
        (lambda row: row.update(started_at=1772364600), "started_at: "),
        (lambda row: row.update(versions={"a": 1}), "versions.a: "),
        (lambda row: row.update(versions={str(n): "" for n in range(101)}), "versions: "),
        (in_part("host", cores="4"), "host.cores: "),
        (in_part("host", bandwidth_bytes_per_s=-0.5), "host.bandwidth_bytes_per_s: "),
        (in_part("configuration", title="x" * 1001), "configuration.title: "),
        (in_part("configuration", title="a\0"), "configuration.title: It has control characters"),
        (in_part("configuration", title="\ud800"), "configuration.title: "),
        (in_part("configuration", random_weights=1), "configuration.random_weights: "),
        (in_part("configuration", hints=[]), "configuration.hints: "),
        (in_part("configuration", hints={"a": {}}), "configuration.hints.a: "),
        (in_part("configuration", hints={"a": 10**40}), "configuration.hints.a: "),
        (in_part("quality", tokens=None), "quality.tokens: "),
        (in_part("int4", group_size=-2), "int4.group_size: "),
        (in_part("int4", group_size=-1.0), "int4.group_size: "),
        (in_part("figures", ttft_ms=1.0), "figures.ttft_ms: "),
        (in_part("figures", mbu="high"), "figures.mbu: "),
        (in_round(load_s=None), "rounds.1.load_s: "),
        (in_round(samples=[[]]), "rounds.1.samples.0: "),
        (in_sample(ttft_ms=10**400), "rounds.1.samples.0.ttft_ms: "),
        (in_sample(token_times_ms=[1.0, "2"]), "rounds.1.samples.0.token_times_ms.1: "),
    ],
)
def test_the_error_names_the_invalid_field(change: Change, message: str) -> None:
    error = error_of(changed(change))
    assert error.startswith(f"Measurement 2 of the file is invalid: {message}")


def leaves(kind: Any) -> Iterator[Any]:
    """The types of a dataclass's fields, without options, tuples and mappings."""
    if is_dataclass(kind):
        for hint in get_type_hints(kind, include_extras=True).values():
            yield from leaves(hint)
    elif get_origin(kind) is Annotated and get_origin(get_args(kind)[0]) in (tuple, Mapping):
        yield from leaves(get_args(kind)[0])
    elif get_args(kind) and get_origin(kind) is not Annotated:
        for each in get_args(kind):
            yield from leaves(each)
    else:
        yield kind


def test_every_field_has_a_type_with_limits() -> None:
    without = {each for each in leaves(Measurement) if get_origin(each) is not Annotated}
    assert without == {MeasurementState, type(None), ...}


def test_a_file_with_many_errors_is_rejected_at_the_first() -> None:
    error = error_of(changed(lambda row: row.update(devices_used=[1] * 1_000_000)))
    assert "devices_used.0: " in error


def test_numbers_out_of_every_range_are_rejected() -> None:
    text = to_json([a_measurement()])
    assert '"load_s": 3.25' in text
    assert "load_s: Input should be a number" in error_of(text.replace("3.25", "1e999", 1))
    assert re.search(NOT_OURS, error_of(text.replace("3.25", "NaN", 1)))
    assert re.search(NOT_OURS, error_of(text.replace("3.25", "1" + "0" * 5000, 1)))


def test_hostile_names_are_not_repeated_raw() -> None:
    error = error_of(changed(lambda row: row.update({"<script>\n\u202e" + "x" * 100: 1})))
    assert "\u202e" not in error and "x" * 50 not in error


def test_two_measurements_with_one_id_are_rejected() -> None:
    row = a_measurement()
    assert "Measurement 2 of the file has the same id as an earlier one" in error_of(
        to_json([row, row])
    )


def test_fields_with_a_default_may_be_missing_in_an_older_file() -> None:
    def shorten(row: dict[str, Any]) -> None:
        del row["quality"]["task_accuracy"], row["imported_at"], row["threads"], row["int4"]

    found = from_json(changed(shorten))[1]
    assert (found.quality.task_accuracy, found.imported_at, found.threads) == (None, None, None)
    assert found.int4 is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=150)
@given(
    name=st.sampled_from([f.name for f in fields(Measurement)]),
    value=json_values,
)
def test_any_value_in_any_field_is_imported_or_rejected(name: str, value: Any) -> None:
    try:
        rows = from_json(changed(lambda row: row.update({name: value})))
    except BadRequestError as error:
        assert str(error).endswith(".")
    else:
        assert from_json(to_json(rows)) == rows, "whatever is imported can be exported"


def test_deep_nesting_does_not_overflow_the_stack() -> None:
    limit = sys.getrecursionlimit()
    assert re.search(NOT_OURS, error_of('{"format": ' + "[" * 10 * limit + "]" * 10 * limit + "}"))


# CSV


def table_of(*rows: Measurement) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(rows).removeprefix(CSV_MARK), newline="")))


def test_csv_has_every_figure_with_its_unit() -> None:
    row = a_measurement()
    (cells,) = table_of(row)
    assert cells["decode_median_tokens_per_s"] == "48.3" and cells["ttft_p99_ms"] == "81.2"
    assert cells["tpot_median_ms"] == "20.2" and cells["mbu_share_of_1"] == "0.62"
    assert cells["memory_private_after_first_generate_bytes"] == str(6 * 2**30 + 1)
    assert cells["memory_file_backed_peak_bytes"] == str(6 * 2**30 + 4)
    assert cells["random_weights"] == "true" and cells["contended"] == "false"
    assert (cells["timed_answers"], cells["rounds"]) == ("4", "2")
    assert cells["quality_perplexity_ratio"] == "1.024" and cells["devices_used"] == "GPU.0 CPU"
    assert cells["host_bandwidth_bytes_per_s"] == "28100000000.0"
    shown = [cells[f"int4_{name}"] for name in ("symmetric", "group_size", "ratio")]
    assert shown == ["true", "-1", "0.9"] and cells["int4_scale_estimation"] == "true"
    assert json.loads(cells["hints"])["INFERENCE_PRECISION_HINT"] == "f32"
    assert datetime.fromisoformat(cells["created_at"]) == row.created_at
    assert all(cells.values()), "the sample has every field"


def test_csv_has_failed_rows_with_their_reason() -> None:
    reason = "It was killed by signal 9,\nperhaps for want of memory."
    failed = a_waiting_one(state=MeasurementState.FAILED, error=reason)
    cells, waiting = table_of(failed, a_waiting_one())
    assert (cells["state"], cells["error"]) == ("failed", reason)
    assert cells["load_s"] == cells["quality_tokens"] == cells["ended_at"] == ""
    assert waiting["state"] == "waiting"
    assert to_csv([]).count("\n") == 1, "only the header"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1"])
def test_a_spreadsheet_gets_text_and_no_formula(text: str) -> None:
    assert spreadsheet_text(text) == f"'{text}"
    (cells,) = table_of(a_measurement(model=text, host=replace(a_measurement().host, name=text)))
    assert cells["model"] == cells["host_name"] == f"'{text}"


def test_harmless_text_stays_as_it_is_in_a_spreadsheet() -> None:
    for text in ("", "int8", "a=b", "Dolly 2.0 3B · random weights", "'quoted'"):
        assert spreadsheet_text(text) == text


# Markdown


def cells_of(markdown: str) -> list[list[str]]:
    """Return the rendered cells of the table, header first."""
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    cells = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub("</?code>", "", cell) for cell in row] for row in cells]


def test_markdown_is_a_table_with_units_and_conditions() -> None:
    text = to_markdown([a_measurement()])
    heads, cells = cells_of(text)
    assert dict(zip(heads, cells, strict=True)) == {
        "Model": "Dolly 2.0 3B · random weights",
        "Precision": "INT4 from Q4_1",
        "Device": "AUTO (GPU.0, CPU)",
        "Runtime": "optimum",
        "Prompt tokens": "512",
        "Decode tokens/s (median, low–high)": "48.3 (46.9–49.7)",
        "TTFT ms": "76.3",
        "Prefill tokens/s": "6,739",
        "Memory after the first generate (private / file-backed)": "6.4 GB / 5.4 GB",
        "Peak": "7.5 GB / 6.4 GB",
        "Disk": "3.2 GB",
        "MBU": "62 %",
        "Load s": "3.2",
        "Quality": "perplexity × 1.024, same top token 96.3 %, accuracy 91 %",
    }
    for condition in (
        "`Some CPU @ 2.0 GHz`, 4 logical processors, 17 GB of memory",
        "measured read bandwidth 28.1 GB/s",
        "in INT4 on AUTO: weights symmetric, one scale per channel (others 64, 32), ratio 0.9, "
        "AWQ, scale estimation on generated texts.",
        "`INT4 from Q4_1` on AUTO, optimum: executed in f32, KV cache in u8, 2 threads.",
        "exactly 4 tokens, at least 5 timed answers per row in 2 new processes",
        "`openvino 2026.4.1, torch 2.13.0+cpu`",
        "Measured on 2026-03-01 (UTC).",
        "Random weights: only speed and size of the architecture are meaningful.",
    ):
        assert condition in text


def test_int4_settings_are_listed_by_model_and_device() -> None:
    usual = {"scale_estimation": False, "awq": False, "other_groups": ""}
    grouped = an_int4(symmetric=False, group_size=128, ratio=0.8, **usual)
    text = to_markdown(
        [
            a_measurement(device="CPU", int4=grouped),
            a_measurement(device="CPU", int4=grouped, prompt_tokens=32),
            a_measurement(device="NPU", int4=an_int4(ratio=1.0, **usual)),
            a_measurement(device="CPU", precision="int8", int4=None),
        ]
    )
    lines = [line.partition(" in ")[2] for line in text.splitlines() if ": weights " in line]
    assert lines == [
        "INT4 on CPU: weights asymmetric, group size 128, ratio 0.8.",
        "INT4 on NPU: weights symmetric, one scale per channel, ratio 1.",
    ]


def test_conditions_are_listed_once_and_the_host_only_if_there_are_several() -> None:
    one = [a_measurement(), a_measurement(prompt_tokens=32)]
    text = to_markdown(one)
    assert "Host" not in cells_of(text)[0] and text.count("Some CPU") == 1
    other = Host(
        name="b-2", cpu="B", os="O", cores=8, memory_bytes=2**35, bandwidth_bytes_per_s=None
    )
    heads, *rows = cells_of(to_markdown([*one, a_measurement(host=other)]))
    assert heads[0] == "Host" and [row[0] for row in rows] == ["bench-1", "bench-1", "b-2"]


def test_failed_contended_and_unfinished_rows_are_marked() -> None:
    failed = a_waiting_one(state=MeasurementState.FAILED, error="There is no `NPU` | here.")
    contended = a_measurement(error=None, figures=a_figures(contended=True))
    half = a_measurement(error=None, state=MeasurementState.CANCELLED, rounds=(a_round(),))
    single = a_measurement(
        error=None,
        figures=a_figures(decode_tokens_per_s=None, tpot_ms=None, mbu=None),
        quality=None,
    )
    text = to_markdown([failed, contended, half, single])
    decode = [row[5] for row in cells_of(text)[1:]]
    assert decode == [
        "failed",
        "48.3 (46.9–49.7), measured while busy",
        "48.3 (46.9–49.7), cancelled after 2 of 5",
        "—",
    ]
    assert "``There is no `NPU` | here.``" in text and "- Measured while busy: other work" in text
    assert cells_of(text)[1][6:] == ["—"] * 8


def test_quality_is_shown_for_the_reference_precision_too() -> None:
    # Executed otherwise than the reference, the same weights may differ a little.
    near = a_quality(perplexity_ratio=1.0002, top1_agreement=0.999, task_accuracy=None)
    row = a_measurement(precision=near.reference, quality=near)
    shown = cells_of(to_markdown([row]))[1][-1]
    assert shown == "perplexity × 1.000, same top token 99.9 %"


def test_random_weights_are_marked_in_every_format() -> None:
    row = a_measurement(title="dolly-v2-3b", random_weights=True)
    assert json.loads(to_json([row]))["measurements"][0]["configuration"]["random_weights"] is True
    assert table_of(row)[0]["title"] == "dolly-v2-3b · random weights"
    assert cells_of(to_markdown([row]))[1][0] == "dolly-v2-3b · random weights"
    plain = a_measurement(title="dolly-v2-3b", random_weights=False)
    assert "andom" not in to_markdown([plain])


@pytest.mark.parametrize(
    "hostile",
    [
        "<img src=x onerror=alert(1)>",
        "![x](https://evil.example/a.png)",
        "[click](https://evil.example)",
        "https://evil.example www.evil.example",
        "a | b || \\| c",
        "`code` ``more`` ```",
        "$x$ **bold** # head",
        "line\nbreak\r\n| cell |\n\n# Head",
        "",
        " ",
    ],
)
def test_hostile_names_stay_text_in_their_cell(hostile: str) -> None:
    row = a_measurement(
        title=hostile,
        precision=hostile,
        device=hostile,
        runtime=hostile,
        error=hostile,
        execution_precision=hostile,
        kv_precision=hostile,
        versions={hostile: hostile},
        host=replace(a_measurement().host, name=hostile, cpu=hostile, os=hostile),
    )
    text = to_markdown([row, a_measurement()])
    rows = cells_of(text)
    assert len(rows) == 3 and {len(cells) for cells in rows} == {15}, "a cell or row moved"
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    for active in ("<img", "<a ", "<strong", "<h1", "<script", "<em>"):
        assert active not in html
    for span in re.findall(r"<code>(.*?)</code>", html, re.DOTALL):
        html = html.replace(f"<code>{span}</code>", "")
    assert "evil" not in html, "outside of code a renderer may turn it into a link"
