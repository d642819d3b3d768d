"""Tests of the expected decode rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.benchmark import decode_rate
from core.benchmark.decode_rate import CORE_BANDWIDTH, DecodeRates, Measured
from core.benchmark.weights import weight_bytes
from core.catalogue import Int4Settings, Precision, catalogue, int4_settings
from core.hardware.devices import host_facts
from core.inference.engine import Engine
from core.settings import Settings
from core.store import ModelStore, resolve
from core.store.checkpoint import Origin
from core.store.estimate import token_bytes
from core.store.weights_source import find_origin, of_folder
from tests.builders import tiny_checkpoint, tiny_tokenizer
from tests.db.measurement_samples import a_configuration, a_figures, a_host, a_measurement
from tests.db.run_samples import a_result, a_start
from tests.gguf_files import torch_gguf

GB = 1e9
INT4 = Int4Settings(symmetric=False, group_size=32, ratio=1.0)


def origin_of(key: str, settings: Settings) -> Origin:
    return find_origin(resolve(key), Precision.INT8, settings)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.INT4])
def test_bytes_of_a_token_are_those_of_the_converted_model(
    precision: Precision, tmp_path: Path
) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "llama", hidden=128, layers=4, intermediate=512)
    expected = token_bytes(of_folder(folder), precision, INT4)
    store = ModelStore(Settings(home=tmp_path / "home"))
    compression = INT4 if precision is Precision.INT4 else None
    stored = store.ensure(resolve(str(folder)), precision, compression=compression)
    assert weight_bytes(stored.folder) == pytest.approx(expected, rel=0.05)


def test_a_model_on_disk_is_expected_as_fast_as_its_conversion(tmp_path: Path) -> None:
    store = ModelStore(Settings(home=tmp_path))
    stored = store.ensure(resolve("paddock-neox"), Precision.INT8)
    expected = DecodeRates().expected(
        origin_of("paddock-neox", Settings(home=tmp_path)), Precision.INT8, INT4
    )
    assert DecodeRates().expected_of(stored) == pytest.approx(expected, rel=0.1)


def test_a_mixture_of_experts_is_expected_alike_before_and_after_its_conversion(
    tmp_path: Path,
) -> None:
    made = torch_gguf(tmp_path / "gguf" / "moe.gguf", "qwen3moe", "qwen3_moe")
    folder = tmp_path / "checkpoint"
    made.model.save_pretrained(folder)
    tiny_tokenizer(folder, special_tokens=())
    checkpoint, gguf = of_folder(folder), of_folder(made.path)
    stored = ModelStore(Settings(home=tmp_path / "home")).ensure(
        resolve(str(folder)), Precision.INT8
    )
    expected = DecodeRates().expected(checkpoint, Precision.INT8, INT4)
    assert DecodeRates().expected(gguf, Precision.INT8, INT4) == pytest.approx(expected, rel=0.02)
    assert DecodeRates().expected_of(stored) == pytest.approx(expected, rel=0.02)
    shape = checkpoint.shape
    assert (shape.experts, shape.active_experts, shape.expert_intermediate) == (4, 2, 256)
    idle = shape.layers * 2 * 3 * shape.hidden * 256
    read = weight_bytes(stored.folder) - idle  # of INT8, a byte each
    assert token_bytes(checkpoint, Precision.INT8, INT4) == pytest.approx(read, rel=0.03)


def test_what_a_token_does_not_read_is_left_out(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    tied, untied = (origin_of(key, settings) for key in ("qwen3-0.6b", "qwen3-8b"))
    assert token_bytes(tied, Precision.FP16, INT4) == 2 * tied.parameters
    embeddings = untied.shape.vocabulary * untied.shape.hidden
    assert token_bytes(untied, Precision.FP16, INT4) == 2 * (untied.parameters - embeddings)
    experts = origin_of("gpt-oss-20b", settings)
    assert token_bytes(experts, Precision.FP16, INT4) == pytest.approx(2 * 3.6 * GB, rel=0.01)


def test_every_row_has_an_expected_rate_that_falls_with_its_size(tmp_path: Path) -> None:
    settings, rates = Settings(home=tmp_path), DecodeRates(25 * GB)
    for key, row in catalogue().items():
        origin = origin_of(key, settings)
        found = [
            rates.expected(origin, precision, int4_settings(Precision.INT4, row))
            for precision in (Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT4)
        ]
        assert found == sorted(found), key
        assert all(rate > 0.1 for rate in found)


def test_the_nearest_measurements_correct_the_estimate(tmp_path: Path) -> None:
    origin = origin_of("tiny-llama-1b-chat", Settings(home=tmp_path))
    size = token_bytes(origin, Precision.INT8, INT4)
    same = Measured(Precision.INT8, size, origin.shape.layers, 12.5)
    far = Measured(Precision.INT8, 1000 * size, 32, 3.0)
    other = Measured(Precision.FP16, size, origin.shape.layers, 40.0)

    def expected(*measured: Measured, bandwidth: float = 25 * GB) -> float:
        return DecodeRates(bandwidth, measured).expected(origin, Precision.INT8, INT4)

    assert expected(same) == pytest.approx(12.5)
    assert expected(same, bandwidth=5 * GB) == pytest.approx(12.5)  # a disturbed measurement of it
    assert expected(same, other) == pytest.approx(12.5)
    assert expected(other) > expected()  # another precision is better than nothing
    nearest = [replace(same, bytes=size + n) for n in range(3)]
    assert expected(far, *nearest) == pytest.approx(12.5, rel=1e-3)


def test_a_measured_mixture_of_experts_counts_what_it_reads(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    mixture, dense = origin_of("gpt-oss-20b", settings), origin_of("qwen3-8b", settings)
    read = token_bytes(mixture, Precision.INT4, INT4)
    rates = DecodeRates(25 * GB)
    row = a_measurement(
        devices_used=("CPU",),
        weight_bytes=int(mixture.parameters * 0.6),  # of all experts
        configuration=a_configuration(model="gpt-oss-20b", precision="int4", runtime="genai"),
        figures=a_figures(decode_tokens_per_s=rates.expected(mixture, Precision.INT4, INT4)),
    )
    (found,) = decode_rate._benchmarks([row], {})
    assert found.bytes == pytest.approx(read, rel=0.2)
    expected = rates.expected(dense, Precision.INT4, INT4)
    corrected = replace(rates, measured=[found]).expected(dense, Precision.INT4, INT4)
    assert corrected == pytest.approx(expected, rel=0.2)


def test_measurements_of_this_machine_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(decode_rate, "read_bandwidth_apart", lambda seconds: 20 * GB)
    monkeypatch.setattr(decode_rate, "usable_processors", lambda: 2)
    monkeypatch.setattr(decode_rate, "host_facts", lambda: replace(host_facts(), physical_cores=2))
    engine = Engine(Settings(home=tmp_path / "home"))
    here = a_measurement(
        host=a_host(name=host_facts().name, bandwidth_bytes_per_s=19 * GB),
        devices_used=("CPU",),
        weight_bytes=350_000_000,
        configuration=a_configuration(precision="int8", runtime="genai"),
        figures=a_figures(decode_tokens_per_s=41.0),
    )
    elsewhere = replace(here, id="e" * 32, host=a_host(name="another"))
    busy = replace(
        here,
        id="b" * 32,
        host=replace(here.host, bandwidth_bytes_per_s=21 * GB),
        figures=a_figures(decode_tokens_per_s=4.0, contended=True),
    )
    engine.measurements.import_all([here, elsewhere, busy])
    rates = DecodeRates.of_this_machine(engine)
    assert rates.bandwidth == 21 * GB  # the highest of this machine
    monkeypatch.setattr(decode_rate, "usable_processors", lambda: 1)
    assert DecodeRates.of_this_machine(engine).bandwidth == CORE_BANDWIDTH
    (found,) = rates.measured
    assert found == Measured(Precision.INT8, 350_000_000, 32, 41.0)


def test_answers_of_models_on_disk_are_measurements(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(decode_rate, "read_bandwidth_apart", lambda seconds: 20 * GB)
    engine = Engine(Settings(home=tmp_path / "home"))
    stored = engine.store.ensure(
        resolve(str(tiny_checkpoint("llama", tmp_path / "tiny"))), Precision.INT8
    )

    def answered(rate: float, host: str, devices: tuple[str, ...], **changes: object) -> None:
        start = a_start(model=stored.key, precision="int8", runtime="genai", host_name=host)
        result = a_result(
            stop_reason="length",
            error=None,
            decode_tokens_per_s=rate,
            devices_used=devices,
            **changes,
        )
        engine.runs.add(start, result)

    here = host_facts().name
    for rate in (30.0, 40.0, 80.0):
        answered(rate, here, ("CPU",))
    answered(1.0, here, ("GPU.0",))
    answered(1.0, "another", ("CPU",))
    answered(1.0, here, ("CPU",), contended=True)
    rates = DecodeRates.of_this_machine(engine)
    (found,) = rates.measured
    assert found.tokens_per_s == 40.0
    assert found.bytes == pytest.approx(weight_bytes(stored.folder), rel=0.05)
    assert found.layers == 2
