"""The machine: OpenVINO's devices, the processor, memory, and the versions of the libraries."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

from core.errors import UnknownDeviceError

AUTO = "AUTO"
"""OpenVINO's name for "choose a device for me"; it is not among ``available_devices``."""

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
"""Distributions whose version can change an answer or a measurement."""

_NAME_SHOWN = 40
"""Characters of a mistyped device name that are repeated to the person."""


class DeviceKind(StrEnum):
    """What a device is."""

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
    """The maker's name; for ``AUTO``, what it resolves to."""
    kind: DeviceKind


@dataclass(frozen=True)
class HostFacts:
    """The machine as a measurement has to name it."""

    name: str
    os: str
    cpu: str
    """The processor's brand name."""
    physical_cores: int | None
    logical_cores: int
    memory_bytes: int


@dataclass(frozen=True)
class ProcessMemory:
    """Resident memory of one process, in bytes.

    Private and file-backed are shown apart because model weights are memory-mapped as well as
    repacked: the file-backed part can be dropped by the system and read again, the private part
    cannot.
    """

    private_bytes: int
    file_backed_bytes: int
    rss_bytes: int
    """The sum of the two."""

    def plus(self, other: ProcessMemory) -> ProcessMemory:
        """Both together."""
        return ProcessMemory(
            self.private_bytes + other.private_bytes,
            self.file_backed_bytes + other.file_backed_bytes,
            self.rss_bytes + other.rss_bytes,
        )

    def beyond(self, before: ProcessMemory) -> ProcessMemory:
        """By how much it has grown, 0 where it has shrunk."""
        return ProcessMemory(
            max(0, self.private_bytes - before.private_bytes),
            max(0, self.file_backed_bytes - before.file_backed_bytes),
            max(0, self.rss_bytes - before.rss_bytes),
        )


@cache
def list_devices() -> tuple[Device, ...]:
    """Devices that OpenVINO reports on this machine, then ``AUTO``; asked once a process.

    Raises:
        ImportError: OpenVINO is not installed or cannot be loaded.
        RuntimeError: OpenVINO cannot look at its devices.
    """
    found = tuple(Device(name, full, _kind(name)) for name, full in _reported_devices())
    return (*found, Device(AUTO, _auto_description(found), DeviceKind.AUTO))


@cache
def auto_devices() -> tuple[str, ...]:
    """Devices that ``AUTO`` takes on this machine; empty where it cannot say before loading."""
    return tuple(_taken_by_auto([d for d in list_devices() if d.kind is not DeviceKind.AUTO]))


def require_device(name: str) -> str:
    """The device's name as OpenVINO spells it.

    Case and outer spaces do not matter; ``GPU`` stands for ``GPU.0`` and the other way round, as
    in OpenVINO itself.

    Raises:
        UnknownDeviceError: this machine has no such device; the text lists those it has.
    """
    wanted = name.strip().upper()
    known = [device.id for device in list_devices()]
    for candidate in (wanted, f"{wanted}.0", wanted.removesuffix(".0")):
        if candidate in known:
            return candidate
    raise UnknownDeviceError(_no_such_device(name.strip(), wanted, known))


def app_memory() -> ProcessMemory:
    """Resident memory of this process and of those it has started, split as one process's is.

    Libraries that several of them share count once for each.
    """
    memory = process_memory()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            memory = memory.plus(process_memory(child.pid))
    return memory


@cache
def host_facts() -> HostFacts:
    """Name, operating system, processor and memory of this machine."""
    return HostFacts(
        name=platform.node(),
        os=_os_name(),
        cpu=_cpu_name(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
    )


@cache
def _installed_versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for name in LIBRARIES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def library_versions() -> dict[str, str]:
    """Version of Python and of each installed library of :data:`LIBRARIES`; imports none."""
    return dict(_installed_versions())


def available_memory_bytes() -> int:
    """Memory that can be taken without swapping, in bytes.

    On Linux the limit of the process's control group counts too: in a container the machine's
    free memory is not ours to take.
    """
    free = psutil.virtual_memory().available
    return max(
        0, min([free, *_cgroup_headrooms(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])
    )


def process_memory(pid: int | None = None) -> ProcessMemory:
    """Resident memory of a process, by default this one, split as FACTS §6.4 asks.

    On Linux the kernel counts resident file pages and shared memory together (``shared`` in
    psutil, ``RssFile + RssShmem`` in ``/proc``); the rest is anonymous. The kernel's counters lag
    by a few hundred KiB. Elsewhere private is the unique set size and file-backed is what remains
    of the resident set, which holds shared libraries and mapped weights. Where the system does
    not let us look, all resident memory counts as private.

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


def _auto_description(found: tuple[Device, ...]) -> str:
    if not found:
        return "no device is there"
    chosen = _taken_by_auto(found)
    names = [device.id for device in found if device.id in chosen]
    return f"OpenVINO chooses: {', '.join(names) or 'when it loads the model'}"


def _taken_by_auto(found: Sequence[Device]) -> list[str]:
    return [found[0].id] if len(found) == 1 else _auto_choice()


def _auto_choice() -> list[str]:
    """Devices that AUTO takes for a model of one operation; empty where it cannot say.

    A large model may end elsewhere, for AUTO also weighs whether a device can run it: after
    loading, ``EXECUTION_DEVICES`` of the compiled model is the truth.
    """
    import openvino
    import openvino.opset13 as operations

    parameter = operations.parameter([1], openvino.Type.f32)
    model = openvino.Model([operations.relu(parameter)], [parameter], "which_device")
    # Without this AUTO starts on the CPU while the chosen device still compiles.
    at_once = {"ENABLE_STARTUP_FALLBACK": False}
    try:
        compiled = openvino.Core().compile_model(model, AUTO, at_once)
        return [str(name).strip("()") for name in compiled.get_property("EXECUTION_DEVICES")]
    except RuntimeError:
        return []


def _no_such_device(shown: str, wanted: str, known: list[str]) -> str:
    printable = "".join(c for c in shown[:_NAME_SHOWN] if c.isprintable())
    sentence = f"There is no device {printable!r} on this machine; choose {_either(known)}"
    if wanted.startswith(("GPU", "NPU")):
        return (
            f"{sentence}, and where the machine has an Intel {wanted[:3]}, "
            "`python -m core doctor` says which driver or permission is missing."
        )
    return f"{sentence}."


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _os_name() -> str:
    system = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {system}"
    except (OSError, KeyError):  # not Linux, or one that does not say
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


def _cgroup_headrooms(membership: Path, root: Path) -> Iterator[int]:
    """Bytes left below each memory limit of the control groups that hold this process.

    Pages of files that nobody uses (``inactive_file``) are counted as used by the kernel but are
    given back at once, so they count as free here. Version 2 of the interface has one tree and
    ``memory.max``, version 1 a tree for memory and ``memory.limit_in_bytes``.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            tree, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            tree, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        inside = Path(os.path.normpath(path.strip("/") or "."))
        for group in (inside, *inside.parents):
            maximum, used = _number(tree / group / limit), _number(tree / group / usage)
            if maximum is not None and used is not None:
                yield maximum - used + _inactive_file(tree / group / "memory.stat")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _inactive_file(statistics: Path) -> int:
    try:
        lines = statistics.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))
