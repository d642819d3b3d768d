"""Why there is no GPU or NPU, told from a device tree built for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.hardware import drivers
from core.hardware.devices import Device, DeviceKind

CPU = Device("CPU", "Some CPU", DeviceKind.CPU)
GPU = Device("GPU", "Some Arc (dGPU)", DeviceKind.GPU)
INTEL, NVIDIA = "0x8086", "0x10de"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch):
    """A Linux whose hardware, rights and libraries the test decides."""

    class Machine:
        dev, sys_class = tmp_path / "dev", tmp_path / "class"

        def has(self, node: str, sysfs: str, vendor: str | None, driver: str | None) -> None:
            path = self.dev / node
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            device = self.sys_class / sysfs / path.name / "device"
            device.mkdir(parents=True)
            if vendor:
                (device / "vendor").write_text(f"{vendor}\n")
            if driver:
                (tmp_path / "drivers" / driver).mkdir(parents=True, exist_ok=True)
                (device / "driver").symlink_to(tmp_path / "drivers" / driver)

        def diagnose(self, kind: DeviceKind, *reported: Device, system: str = "linux"):
            return drivers.diagnose(
                kind, (CPU, *reported), system=system, dev=self.dev, sys_class=self.sys_class
            )

        def rights(self, *, may_open: bool, library: bool) -> None:
            monkeypatch.setattr(drivers, "_may_open", lambda node: may_open)
            monkeypatch.setattr(drivers, "_loadable", lambda name: library)

    return Machine()


@pytest.mark.parametrize("kind", [DeviceKind.GPU, DeviceKind.NPU])
def test_no_hardware_is_no_fault(machine, kind: DeviceKind) -> None:
    found = machine.diagnose(kind)
    assert found.fine and found.remedy is None
    assert f"There is no {kind.value.upper()} here" in found.finding


def test_a_missing_right_is_told_with_its_group(machine, monkeypatch) -> None:
    machine.has("dri/renderD128", "drm", INTEL, "xe")
    machine.rights(may_open=False, library=False)
    monkeypatch.setattr(Path, "group", lambda self: "graphics")
    found = machine.diagnose(DeviceKind.GPU)
    assert not found.fine and "may not open it" in found.finding
    assert "usermod -aG graphics $USER" in found.remedy


@pytest.mark.parametrize(
    ("kind", "node", "sysfs", "library", "package"),
    [
        (DeviceKind.GPU, "dri/renderD129", "drm", "libOpenCL.so.1", "intel-opencl-icd"),
        (DeviceKind.NPU, "accel/accel0", "accel", "libze_loader.so.1", "intel-level-zero-npu"),
    ],
)
def test_a_missing_driver_is_told_with_its_package(
    machine, kind, node: str, sysfs: str, library: str, package: str
) -> None:
    machine.has(node, sysfs, INTEL, None)
    machine.rights(may_open=True, library=False)
    found = machine.diagnose(kind)
    assert not found.fine and library in found.finding and package in found.remedy
    machine.rights(may_open=True, library=True)
    found = machine.diagnose(kind)
    assert not found.fine and "user-space driver" in found.finding and package in found.remedy
    assert library not in found.finding


def test_a_gpu_of_another_maker_is_no_fault(machine) -> None:
    machine.has("dri/renderD128", "drm", NVIDIA, "nvidia")
    found = machine.diagnose(DeviceKind.GPU)
    assert found.fine and found.remedy is None and "not Intel's" in found.finding


def test_an_intel_gpu_beside_another_makers_is_looked_at(machine) -> None:
    machine.has("dri/renderD128", "drm", NVIDIA, "nvidia")
    machine.has("dri/renderD129", "drm", INTEL, "i915")
    machine.rights(may_open=True, library=True)
    found = machine.diagnose(DeviceKind.GPU)
    assert not found.fine and "renderD129" in found.finding


def test_a_working_gpu_is_named_with_its_kernel_driver(machine) -> None:
    machine.has("dri/renderD128", "drm", INTEL, "xe")
    found = machine.diagnose(DeviceKind.GPU, GPU)
    assert found == drivers.Diagnosis(
        True, "OpenVINO can use GPU (Some Arc (dGPU)), kernel driver xe.", None
    )


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_do_without_device_nodes(machine, system: str) -> None:
    machine.has("dri/renderD128", "drm", INTEL, "xe")  # must not be looked at
    found = machine.diagnose(DeviceKind.NPU, system=system)
    assert found.fine and found.finding == "OpenVINO reports no NPU."
    assert (found.remedy is not None) == (system == "win32")


def test_a_library_that_is_there_and_one_that_is_not() -> None:
    assert not drivers._loadable("libno-such-thing.so.9")
