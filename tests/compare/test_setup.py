"""Validation of a setup, and the default mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.compare import setup as comparison_setup
from core.compare.setup import Mode, Setup, default_mode, devices_of
from core.errors import BadRequestError
from core.hardware.devices import Device, DeviceKind, auto_devices
from core.inference.request import GenerationRequest
from core.runtimes.spec import ModelSpec, SamplingSettings
from tests.compare.conftest import spec

REQUEST = GenerationRequest(" Why? ")


@pytest.fixture
def with_gpu_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a CPU and two GPUs."""
    found = [
        Device("CPU", "A processor", DeviceKind.CPU),
        Device("GPU.0", "Graphics", DeviceKind.GPU),
        Device("GPU.1", "More graphics", DeviceKind.GPU),
        Device("AUTO", "chooses", DeviceKind.AUTO),
    ]
    monkeypatch.setattr("core.hardware.devices.list_devices", lambda: tuple(found))


@pytest.fixture
def with_gpu(with_gpu_devices: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with AUTO choosing one of the GPUs."""
    monkeypatch.setattr(comparison_setup, "auto_devices", lambda: ("GPU.0",))


def test_request_is_validated_and_seeded_once_for_all_sides():
    setup = Setup((spec("one"), spec("two")), REQUEST, Mode.FAIR)
    assert setup.request.instruction == REQUEST.instruction
    assert setup.request.sampling.seed is not None
    assert setup.request.validated() == setup.request


def test_side_uses_its_own_prompt_format():
    setup = Setup((spec("one"), spec("two")), REQUEST, Mode.FAIR, (None, "dolly"))
    first, second = setup.request_of(0), setup.request_of(1)
    assert (first, second.prompt_format) == (setup.request, "dolly")
    assert (second.instruction, second.sampling) == (first.instruction, first.sampling)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_two_to_four_sides(count: int):
    with pytest.raises(BadRequestError, match=rf"^{count} models were chosen\. Choose 2 to 4"):
        Setup((spec("one"),) * count, REQUEST, Mode.FAIR)


def test_invalid_request_is_rejected():
    bad = GenerationRequest("Why?", sampling=SamplingSettings(max_new_tokens=0))
    with pytest.raises(BadRequestError, match="max new tokens"):
        Setup((spec("one"), spec("two")), bad, Mode.FAIR)


def test_default_mode_is_fair_if_a_device_is_shared():
    assert default_mode([spec("one"), spec("two")]) is Mode.FAIR
    assert default_mode([spec("one"), spec("two", device=" cpu ")]) is Mode.FAIR


@pytest.fixture
def fresh_auto() -> Iterator[None]:
    """AUTO's choice is determined again, and not cached afterwards."""
    auto_devices.cache_clear()
    yield
    auto_devices.cache_clear()


def test_auto_uses_the_only_device(monkeypatch: pytest.MonkeyPatch, fresh_auto: None):
    found = (Device("CPU", "A processor", DeviceKind.CPU), Device("AUTO", "", DeviceKind.AUTO))
    monkeypatch.setattr("core.hardware.devices.list_devices", lambda: found)
    auto, cpu = ModelSpec("one", device="AUTO"), ModelSpec("two", device="CPU")
    assert devices_of(auto) == {"CPU"}
    assert default_mode([auto, cpu]) is Mode.FAIR


def test_auto_uses_openvinos_choice_among_several(
    monkeypatch: pytest.MonkeyPatch, fresh_auto: None, with_gpu_devices: None
):
    monkeypatch.setattr("core.hardware.devices._auto_choice", lambda: ["GPU.1"])
    assert devices_of(ModelSpec("one", device="auto")) == {"GPU.1"}


@pytest.mark.parametrize(
    ("devices", "mode"),
    [
        (("CPU", "GPU"), Mode.RACE),
        (("CPU", "AUTO"), Mode.RACE),
        (("GPU", "AUTO"), Mode.FAIR),
        (("GPU.0", "GPU"), Mode.FAIR),
        (("GPU.0", "GPU.1"), Mode.RACE),
        (("CPU", "GPU.0", "GPU.1", "AUTO"), Mode.FAIR),
        (("CPU", "NPU"), Mode.RACE),  # does not exist: reported by its answer
    ],
)
def test_default_mode_is_race_if_devices_differ(
    with_gpu: None, devices: tuple[str, ...], mode: Mode
):
    assert default_mode([ModelSpec("one", device=device) for device in devices]) is mode


def test_default_mode_is_fair_if_autos_choice_is_unknown(
    with_gpu: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(comparison_setup, "auto_devices", lambda: ())
    assert default_mode([ModelSpec("one", device="AUTO"), spec("two")]) is Mode.FAIR


def test_every_mode_has_an_explanation():
    assert {mode.label for mode in Mode} == {"Fair", "Race"}
    assert all(mode.sentence.endswith(".") for mode in Mode)
