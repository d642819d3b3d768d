"""OpenVINO devices, processor and memory of this machine, and versions of installed libraries."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

from core.errors import UnknownDeviceError
from core.hardware import cgroups

AUTO = "AUTO"
"""OpenVINO's name for automatic device selection; ``available_devices`` does not list it."""

LIBRARIES = (
    "openvino",
    "openvino-genai",
    "openvino-tokenizers",
    "optimum-intel",
    "nncf",
    "transformers",
    "tokenizers",
    "torch",
    "streamlit",
)
"""Packages whose version can change an answer or a measurement."""

_SELECTED_LATER = "OpenVINO selects a device when it loads the model"

_NAME_SHOWN = 40
"""Characters of an unknown device name that the error message repeats."""


class DeviceKind(StrEnum):
    """Type of a device."""

    CPU = "cpu"
    GPU = "gpu"
    NPU = "npu"
    AUTO = "auto"
    OTHER = "other"


@dataclass(frozen=True)
class Device:
    """One device that a model can be loaded on."""

    id: str
    """OpenVINO's name: ``CPU``, ``GPU``, ``GPU.1``, ``NPU``, ``AUTO``."""
    full_name: str
    """``FULL_DEVICE_NAME``; for ``AUTO``, the devices that it selects."""
    kind: DeviceKind


@dataclass(frozen=True)
class HostFacts:
    """Host information stored with a measurement."""

    name: str
    os: str
    cpu: str
    """Brand string of the processor."""
    physical_cores: int | None
    logical_cores: int
    memory_bytes: int


@dataclass(frozen=True)
class ProcessMemory:
    """Resident memory of one process, in bytes.

    Private and file-backed memory are separate because model weights are memory-mapped as well as
    repacked: the operating system can drop the file-backed part and read it again, but not the
    private part.
    """

    private_bytes: int
    file_backed_bytes: int
    rss_bytes: int
    """The sum of the two."""

    def plus(self, other: ProcessMemory) -> ProcessMemory:
        """Return the sum of both."""
        return ProcessMemory(
            self.private_bytes + other.private_bytes,
            self.file_backed_bytes + other.file_backed_bytes,
            self.rss_bytes + other.rss_bytes,
        )

    def growth_since(self, before: ProcessMemory) -> ProcessMemory:
        """Return the growth of each figure since ``before``, 0 where it shrank."""
        return ProcessMemory(
            max(0, self.private_bytes - before.private_bytes),
            max(0, self.file_backed_bytes - before.file_backed_bytes),
            max(0, self.rss_bytes - before.rss_bytes),
        )


@cache
def list_devices() -> tuple[Device, ...]:
    """Return the devices that OpenVINO reports, then ``AUTO``. Cached for the process.

    Raises:
        ImportError: OpenVINO is not installed or cannot be loaded.
        RuntimeError: OpenVINO cannot list its devices.
    """
    found = [Device(name, full, _kind(name)) for name, full in _reported_devices()]
    auto = _selected_by_auto(found) if found else ()
    chosen = [device.id for device in found if device.id in auto]
    later = _SELECTED_LATER if found else "no device available"
    text = f"OpenVINO selects: {', '.join(chosen)}" if chosen else later
    return (*found, Device(AUTO, text, DeviceKind.AUTO))


@cache
def auto_devices() -> tuple[str, ...]:
    """Return the devices that ``AUTO`` selects; empty if that is unknown before loading."""
    return tuple(_selected_by_auto(list_devices()[:-1]))


def require_device(name: str) -> str:
    """Return the device's name as OpenVINO spells it.

    Case and surrounding spaces are ignored. ``GPU`` and ``GPU.0`` are the same device, as in
    OpenVINO.

    Raises:
        UnknownDeviceError: this machine has no such device; the message lists the available ones.
    """
    wanted = name.strip().upper()
    known = [device.id for device in list_devices()]
    for candidate in (wanted, f"{wanted}.0", wanted.removesuffix(".0")):
        if candidate in known:
            return candidate
    raise UnknownDeviceError(_no_such_device(name.strip(), wanted, known))


def app_memory() -> ProcessMemory:
    """Return the resident memory of this process and its child processes.

    Shared libraries are counted once per process.
    """
    memory = process_memory()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # the child has just ended
            memory = memory.plus(process_memory(child.pid))
    return memory


@cache
def host_facts() -> HostFacts:
    """Return name, operating system, processor and memory of this machine."""
    return HostFacts(
        name=platform.node(),
        os=_os_name(),
        cpu=_cpu_name(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
    )


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of each installed library of :data:`LIBRARIES`.

    Reads package metadata; imports none of the libraries.
    """
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = _version(name)
    return found


def available_memory_bytes() -> int:
    """Return the memory in bytes that can be allocated without swapping.

    On Linux the limits of the process's control groups apply too: a container may use less than
    the machine's free memory.
    """
    free = psutil.virtual_memory().available
    return max(0, min([free, *cgroups.memory_headrooms()]))


def process_memory(pid: int | None = None) -> ProcessMemory:
    """Return the resident memory of a process, by default this one.

    On Linux the kernel counts resident file pages and shared memory together (``shared`` in
    psutil, ``RssFile + RssShmem`` in ``/proc``); the rest is anonymous. The kernel's counters lag
    by a few hundred KiB. On other systems private is the unique set size, and file-backed is the
    rest of the resident set, which includes shared libraries and mapped weights. Where access is
    denied, all resident memory counts as private.

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    process = psutil.Process(pid)
    info = process.memory_info()
    if hasattr(info, "shared"):
        private = info.rss - info.shared
    else:
        try:
            private = min(process.memory_full_info().uss, info.rss)
        except (psutil.AccessDenied, AttributeError):
            private = info.rss
    return ProcessMemory(private, info.rss - private, info.rss)


_version = cache(metadata.version)


def _reported_devices() -> list[tuple[str, str]]:
    import openvino

    core = openvino.Core()
    return [
        (name, str(core.get_property(name, "FULL_DEVICE_NAME")).strip())
        for name in core.available_devices
    ]


def _kind(name: str) -> DeviceKind:
    family = name.partition(".")[0].lower()
    return DeviceKind(family) if family in ("cpu", "gpu", "npu") else DeviceKind.OTHER


def _selected_by_auto(found: Sequence[Device]) -> list[str]:
    return [found[0].id] if len(found) == 1 else _auto_choice()


def _auto_choice() -> list[str]:
    """Return the devices that AUTO selects for a model of one operation; empty if unknown.

    AUTO may select another device for a large model, because it also considers whether a device
    can run it. After loading, ``EXECUTION_DEVICES`` of the compiled model is authoritative.
    """
    import openvino
    import openvino.opset13 as operations

    parameter = operations.parameter([1], openvino.Type.f32)
    model = openvino.Model([operations.relu(parameter)], [parameter], "which_device")
    # Without this, AUTO starts on the CPU while the selected device is still compiling.
    at_once = {"ENABLE_STARTUP_FALLBACK": False}
    try:
        compiled = openvino.Core().compile_model(model, AUTO, at_once)
        return [str(name).strip("()") for name in compiled.get_property("EXECUTION_DEVICES")]
    except RuntimeError:
        return []


def _no_such_device(shown: str, wanted: str, known: list[str]) -> str:
    printable = "".join(c for c in shown[:_NAME_SHOWN] if c.isprintable())
    choices = known[0] if len(known) == 1 else f"{', '.join(known[:-1])} or {known[-1]}"
    sentence = f"There is no device {printable!r} on this machine; choose {choices}."
    if wanted.startswith(("GPU", "NPU")):
        return (
            f"{sentence} If the machine has an Intel {wanted[:3]}, run `python -m core doctor` "
            "to see which driver or permission is missing."
        )
    return sentence


def _os_name() -> str:
    system = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {system}"
    except (OSError, KeyError):  # not Linux, or no PRETTY_NAME
        return f"{system}, {platform.version()}" if sys.platform == "win32" else system


def _cpu_name() -> str:
    readers = {"linux": _linux_cpu, "win32": _windows_cpu, "darwin": _mac_cpu}
    reader = readers.get(sys.platform)
    return (reader() if reader else "") or platform.processor() or platform.machine()


def _linux_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):  # "Model" on ARM boards
            return " ".join(value.split())
    return ""


def _windows_cpu() -> str:
    if sys.platform != "win32":
        return ""
    import winreg

    try:
        path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
            return " ".join(str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).split())
    except OSError:
        return ""


def _mac_cpu() -> str:
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
