"""Tests of devices, host information and memory figures."""

from __future__ import annotations

import json
import mmap
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core.errors import UnknownDeviceError, UserError
from core.hardware import cgroups, devices
from core.hardware.devices import DeviceKind, ProcessMemory
from tests.waiting import PATIENCE_S

MIB = 2**20
ROOT = Path(devices.__file__).resolve().parents[2]


@pytest.fixture
def reported(monkeypatch):
    """Return a function that sets the devices that OpenVINO reports."""

    def set_reported(*names: str, auto: tuple[str, ...] = ()) -> None:
        pairs = [(name, f"Maker's {name}") for name in names]
        monkeypatch.setattr(devices, "_reported_devices", lambda: pairs)
        monkeypatch.setattr(devices, "_auto_choice", lambda: list(auto))
        devices.list_devices.cache_clear()

    yield set_reported
    devices.list_devices.cache_clear()


def test_openvino_reports_the_cpu_and_auto_resolves_to_it_alone() -> None:
    devices.list_devices.cache_clear()
    found = {device.id: device for device in devices.list_devices()}
    assert found["CPU"].kind is DeviceKind.CPU and found["CPU"].full_name
    assert list(found)[-1] == "AUTO" and found["AUTO"].kind is DeviceKind.AUTO
    if len(found) == 2:
        assert found["AUTO"].full_name == "OpenVINO selects: CPU"
    assert devices.list_devices() is devices.list_devices()


def test_openvino_reports_which_devices_auto_selects() -> None:
    known = {device.id for device in devices.list_devices()} - {"AUTO"}
    chosen = devices._auto_choice()
    assert chosen and set(chosen) <= known


def test_kinds_and_auto_selection_with_several_devices(reported) -> None:
    reported("CPU", "GPU.0", "GPU.1", "NPU", "XPU", auto=("GPU.1",))
    kinds = [device.kind.value for device in devices.list_devices()]
    assert kinds == ["cpu", "gpu", "gpu", "npu", "other", "auto"]
    assert devices.list_devices()[-1].full_name == "OpenVINO selects: GPU.1"
    reported("CPU", "GPU", auto=())
    selected_later = "OpenVINO selects a device when it loads the model"
    assert devices.list_devices()[-1].full_name == selected_later


@pytest.mark.parametrize(
    ("available", "requested", "expected"),
    [
        (("CPU",), " cpu ", "CPU"),
        (("CPU",), "auto", "AUTO"),
        (("CPU", "GPU.0", "GPU.1"), "gpu", "GPU.0"),
        (("CPU", "GPU.0", "GPU.1"), "Gpu.1", "GPU.1"),
        (("CPU", "GPU"), "gpu.0", "GPU"),
    ],
)
def test_device_names_are_normalized(reported, available, requested, expected) -> None:
    reported(*available)
    assert devices.require_device(requested) == expected


@pytest.mark.parametrize("requested", ["GPU", "gpu.1", "npu"])
def test_error_for_an_absent_accelerator_names_the_doctor(reported, requested: str) -> None:
    reported("CPU")
    with pytest.raises(UnknownDeviceError) as raised:
        devices.require_device(requested)
    message = str(raised.value)
    assert repr(requested) in message and "choose CPU or AUTO." in message
    assert f"an Intel {requested[:3].upper()}" in message and "python -m core doctor" in message


@pytest.mark.parametrize("requested", ["", "CPU.1", "TPU\ud800\0\n", "x" * 100_000, "GPU" * 50_000])
def test_error_for_any_other_name_is_one_short_printable_line(reported, requested: str) -> None:
    reported("CPU", "NPU")
    with pytest.raises(UserError, match="choose CPU, NPU or AUTO") as raised:
        devices.require_device(requested)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 250


def test_host_facts_name_the_processor_as_openvino_does() -> None:
    facts = devices.host_facts()
    cpu = next(d for d in devices.list_devices() if d.id == "CPU")
    if platform.machine().lower() in ("x86_64", "amd64"):  # both read the brand string there
        assert facts.cpu.split() == cpu.full_name.split()
    assert facts.name and facts.os
    assert facts.logical_cores >= (facts.physical_cores or 1) >= 1
    assert facts.memory_bytes > devices.available_memory_bytes() > 0


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some  CPU @ 2GHz\n", "Some CPU @ 2GHz"),
        ("processor\t: 0\nFeatures: fp\n\nModel\t\t: A Board 5\n", "A Board 5"),
        ("processor\t: 0\n", ""),
    ],
)
def test_the_processors_name_on_linux(tmp_path: Path, cpuinfo: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert devices._linux_cpu(tmp_path / "cpuinfo") == name
    assert devices._linux_cpu(tmp_path / "absent") == ""


@pytest.mark.parametrize("system", ["win32", "darwin", "plan9"])
def test_processor_name_falls_back_to_the_platform(monkeypatch, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(devices, "_windows_cpu", lambda: "")
    monkeypatch.setattr(devices, "_mac_cpu", lambda: "")
    assert devices._cpu_name()


def test_versions_are_read_without_importing_the_libraries() -> None:
    code = (
        "import sys, json;"
        "from core.hardware.devices import library_versions, host_facts, process_memory;"
        "v = library_versions(); host_facts(); process_memory();"
        "print(json.dumps([v, [m for m in ('torch', 'openvino', 'nncf') if m in sys.modules]]))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, timeout=PATIENCE_S)
    versions, imported = json.loads(output)
    assert imported == []
    import openvino

    assert openvino.__version__.startswith(versions["openvino"])
    assert {"python", "torch", "transformers", "optimum-intel", "nncf"} <= versions.keys()


def test_callers_get_a_copy_of_the_versions() -> None:
    devices.library_versions().clear()
    assert devices.library_versions()


def _fresh_pages(size: int) -> mmap.mmap | bytearray:
    """Return touched anonymous memory from the kernel; an allocator may reuse resident pages."""
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # Windows
        return bytearray(b"\1") * size
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start in range(0, size, mmap.PAGESIZE):
        pages[start] = 1
    return pages


def test_anonymous_and_mapped_memory_are_measured_separately(tmp_path: Path) -> None:
    """64 MiB of each is added; the other figure must stay almost the same."""
    size = 64 * MIB
    file = tmp_path / "weights"
    file.write_bytes(b"\1" * size)

    def grown(before: ProcessMemory) -> tuple[int, int]:
        after = devices.process_memory()
        assert after.rss_bytes == after.private_bytes + after.file_backed_bytes
        return (
            after.private_bytes - before.private_bytes,
            after.file_backed_bytes - before.file_backed_bytes,
        )

    before = devices.process_memory()
    anonymous = _fresh_pages(size)
    private, file_backed = grown(before)
    assert abs(private - size) < 4 * MIB and abs(file_backed) < 4 * MIB

    before = devices.process_memory()
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert sum(mapped[:: mmap.PAGESIZE]) == size // mmap.PAGESIZE
        private, file_backed = grown(before)
    assert abs(private) < 4 * MIB and abs(file_backed - size) < 4 * MIB
    assert len(anonymous) == size


@pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux's own /proc")
def test_memory_of_another_process_agrees_with_the_kernel() -> None:
    code = "x = bytearray(b'1') * (32 << 20); print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline()
        measured = devices.process_memory(child.pid)
        status = Path(f"/proc/{child.pid}/status").read_text()
        child.stdin.close()
    kernel = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
    assert abs(measured.private_bytes - int(kernel["RssAnon"]) * 1024) < MIB
    assert abs(measured.file_backed_bytes - int(kernel["RssFile"]) * 1024) < MIB
    assert measured.private_bytes > 32 * MIB


def test_memory_of_an_ended_process_raises() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    with pytest.raises(psutil.NoSuchProcess):
        devices.process_memory(child.pid)


def test_app_memory_is_not_cached_and_host_facts_are(monkeypatch) -> None:
    figures = iter([ProcessMemory(70, 30, 100), ProcessMemory(90, 30, 120)])
    monkeypatch.setattr(devices, "process_memory", lambda pid=None: next(figures))
    monkeypatch.setattr(devices.psutil.Process, "children", lambda self, recursive: [])
    assert devices.app_memory().rss_bytes == 100
    assert devices.app_memory().rss_bytes == 120
    assert devices.host_facts() is devices.host_facts()


def test_memory_on_a_system_without_a_shared_figure(monkeypatch) -> None:
    class Other:
        def __init__(self, pid: int | None) -> None:
            self.info = type("pmem", (), {"rss": 100, "uss": 70})()

        def memory_info(self):
            return self.info

        def memory_full_info(self):
            return self.info

    class Refusing(Other):
        def memory_full_info(self):
            raise psutil.AccessDenied(1)

    monkeypatch.setattr(psutil, "Process", Other)
    assert devices.process_memory() == ProcessMemory(70, 30, 100)
    monkeypatch.setattr(psutil, "Process", Refusing)
    assert devices.process_memory(5) == ProcessMemory(100, 0, 100)


def test_the_lowest_limit_applies(monkeypatch) -> None:
    monkeypatch.setattr(cgroups, "memory_headrooms", lambda *_: iter([5 * MIB, 3 * MIB]))
    assert devices.available_memory_bytes() == 3 * MIB
    monkeypatch.setattr(cgroups, "memory_headrooms", lambda *_: iter([-5]))
    assert devices.available_memory_bytes() == 0
    monkeypatch.setattr(cgroups, "memory_headrooms", lambda *_: iter([2**62]))
    assert 0 < devices.available_memory_bytes() < psutil.virtual_memory().total
