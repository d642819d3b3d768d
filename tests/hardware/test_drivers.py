"""Tests of the diagnosis of missing GPUs and NPUs, with a device tree built for the test."""

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
    """A Linux machine with hardware, permissions and libraries chosen by the test."""

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
def test_missing_hardware_is_ok(machine, kind: DeviceKind) -> None:
    found = machine.diagnose(kind)
    assert found.ok and found.remedy is None
    assert f"This machine has no {kind.value.upper()}" in found.finding


def test_missing_permission_is_reported_with_its_group(machine, monkeypatch) -> None:
    machine.has("dri/renderD128", "drm", INTEL, "xe")
    machine.rights(may_open=False, library=False)
    monkeypatch.setattr(Path, "group", lambda self: "graphics")
    found = machine.diagnose(DeviceKind.GPU)
    assert not found.ok and "no permission to open it" in found.finding
    assert "usermod -aG graphics $USER" in found.remedy


@pytest.mark.parametrize(
    ("kind", "node", "sysfs", "library", "package"),
    [
        (DeviceKind.GPU, "dri/renderD129", "drm", "libOpenCL.so.1", "intel-opencl-icd"),
        (DeviceKind.NPU, "accel/accel0", "accel", "libze_loader.so.1", "intel-level-zero-npu"),
    ],
)
def test_missing_driver_is_reported_with_its_package(
    machine, kind, node: str, sysfs: str, library: str, package: str
) -> None:
    machine.has(node, sysfs, INTEL, None)
    machine.rights(may_open=True, library=False)
    found = machine.diagnose(kind)
    assert not found.ok and library in found.finding and package in found.remedy
    machine.rights(may_open=True, library=True)
    found = machine.diagnose(kind)
    assert not found.ok and "user-space driver" in found.finding and package in found.remedy
    assert library not in found.finding


def test_gpu_of_another_vendor_is_ok(machine) -> None:
    machine.has("dri/renderD128", "drm", NVIDIA, "nvidia")
    found = machine.diagnose(DeviceKind.GPU)
    assert found.ok and found.remedy is None and "not from Intel" in found.finding


def test_intel_gpu_beside_another_vendors_is_diagnosed(machine) -> None:
    machine.has("dri/renderD128", "drm", NVIDIA, "nvidia")
    machine.has("dri/renderD129", "drm", INTEL, "i915")
    machine.rights(may_open=True, library=True)
    found = machine.diagnose(DeviceKind.GPU)
    assert not found.ok and "renderD129" in found.finding


def test_working_gpu_is_reported_with_its_kernel_driver(machine) -> None:
    machine.has("dri/renderD128", "drm", INTEL, "xe")
    found = machine.diagnose(DeviceKind.GPU, GPU)
    assert found == drivers.Diagnosis(
        True, "OpenVINO can use GPU (Some Arc (dGPU)), kernel driver xe.", None
    )


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_ignore_device_nodes(machine, system: str) -> None:
    machine.has("dri/renderD128", "drm", INTEL, "xe")  # must be ignored
    found = machine.diagnose(DeviceKind.NPU, system=system)
    assert found.ok and found.finding == "OpenVINO reports no NPU."
    assert (found.remedy is not None) == (system == "win32")


def test_missing_library_is_not_loadable() -> None:
    assert not drivers._loadable("libno-such-thing.so.9")
