"""Finds out why OpenVINO reports no GPU or NPU, from the operating system's device nodes.

On Linux a GPU with a kernel driver appears as a render node (``/dev/dri/renderD128``), an NPU as
``/dev/accel/accel0``. OpenVINO also needs permission to open the node, and the user-space driver:
OpenCL for a GPU, Level Zero for an NPU. Other systems have no such nodes.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from core.hardware.devices import Device, DeviceKind

INTEL = "0x8086"
"""PCI vendor id; OpenVINO's GPU and NPU plugins support Intel devices only."""


@dataclass(frozen=True)
class Diagnosis:
    """Result of :func:`diagnose` for one kind of device."""

    ok: bool
    """False if the hardware exists and cannot be used."""
    finding: str
    remedy: str | None


@dataclass(frozen=True)
class _Kind:
    nodes: str
    """Glob pattern relative to ``/dev``."""
    sysfs: str
    """Folder in ``/sys/class`` with one entry per node."""
    library: str
    """Loader library that OpenVINO's plugin is linked to."""
    loader_package: str
    driver_package: str


_KINDS = {
    DeviceKind.GPU: _Kind(
        "dri/renderD*", "drm", "libOpenCL.so.1", "ocl-icd-libopencl1", "intel-opencl-icd"
    ),
    DeviceKind.NPU: _Kind(
        "accel/accel*",
        "accel",
        "libze_loader.so.1",
        "libze1",
        "intel-level-zero-npu and intel-driver-compiler-npu",
    ),
}
"""Package names of Debian and Ubuntu; those for the NPU are in Intel's linux-npu-driver releases.
"""


@dataclass(frozen=True)
class _Node:
    path: Path
    vendor: str
    kernel_driver: str


def diagnose(
    kind: DeviceKind,
    reported: tuple[Device, ...],
    *,
    system: str = sys.platform,
    dev: Path = Path("/dev"),
    sys_class: Path = Path("/sys/class"),
) -> Diagnosis:
    """Diagnose whether devices of that kind work, are absent, or lack a driver or permission.

    Args:
        dev: folder of the device nodes.
        sys_class: folder of the kernel's device classes.
    """
    name = kind.value.upper()
    nodes = _nodes(_KINDS[kind], dev, sys_class) if system == "linux" else []
    found = [device for device in reported if device.kind == kind]
    if found:
        names = ", ".join(f"{device.id} ({device.full_name})" for device in found)
        drivers = sorted({node.kernel_driver for node in nodes if node.kernel_driver})
        driven = f", kernel driver {', '.join(drivers)}" if drivers else ""
        return Diagnosis(True, f"OpenVINO can use {names}{driven}.", None)
    if system == "linux":
        return _missing_on_linux(kind, name, nodes)
    remedy = f"If the machine has an Intel {name}, install the latest Intel {name} driver."
    finding = f"OpenVINO reports no {name}."
    return Diagnosis(True, finding, remedy if system == "win32" else None)


def _missing_on_linux(kind: DeviceKind, name: str, nodes: list[_Node]) -> Diagnosis:
    needs = _KINDS[kind]
    if not nodes:
        return Diagnosis(True, f"This machine has no {name} (no /dev/{needs.nodes}).", None)
    ours = [node for node in nodes if node.vendor in (INTEL, "")]
    if not ours:
        return Diagnosis(
            True, f"The {name} is not from Intel; OpenVINO supports only Intel {name}s.", None
        )
    closed = [node for node in ours if not _may_open(node.path)]
    if closed:
        try:
            group = closed[0].path.group()
        except (KeyError, OSError):  # no name for its number
            group = "render"
        return Diagnosis(
            False,
            f"There is a {name} at {closed[0].path}, but this user has no permission to open it. "
            f"The group {group} has.",
            f"Run `sudo usermod -aG {group} $USER`, then log out and in again.",
        )
    if not _loadable(needs.library):
        return Diagnosis(
            False,
            f"There is a {name} at {ours[0].path}, but {needs.library}, which OpenVINO needs to "
            "use it, is not installed.",
            f"Install the packages {needs.loader_package} and {needs.driver_package}.",
        )
    return Diagnosis(
        False,
        f"There is a {name} at {ours[0].path} and this user can open it, but OpenVINO does not "
        "find its user-space driver.",
        f"Install Intel's driver: {needs.driver_package}.",
    )


def _nodes(kind: _Kind, dev: Path, sys_class: Path) -> list[_Node]:
    found = []
    for path in sorted(dev.glob(kind.nodes)):
        device = sys_class / kind.sysfs / path.name / "device"
        driver = device / "driver"
        try:
            vendor = (device / "vendor").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            vendor = ""
        found.append(_Node(path, vendor, driver.resolve().name if driver.exists() else ""))
    return found


def _may_open(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK)


def _loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
