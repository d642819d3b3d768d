"""Examines the machine and Paddock's own files: what is there, what is wrong, how to mend it.

Needs no network and loads nothing heavy but OpenVINO.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from core.catalogue import EMBEDDED_DIR, catalogue
from core.errors import PaddockError, RecordsError
from core.hardware import devices, drivers
from core.hardware.devices import DeviceKind
from core.settings import CHECKOUT, INSTALLED, Settings
from core.units import bytes_text

OLDEST_PYTHON = (3, 11)
REQUIREMENTS = CHECKOUT / "requirements.txt"
MIB = 2**20
GIB = 2**30
MEMORY_WANTED = 2 * GIB
"""An INT8 model of 1.1 billion parameters, weights both mapped and repacked, and the program."""
DISK_WANTED = 15 * GIB
"""A checkpoint of 2.8 billion parameters in bf16, its FP16 export and its INT8 form."""
DISK_NEEDED = 512 * MIB
"""Below this not even a small model can be converted."""
EMBEDDED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
)
INSTALL = "Run `python -m pip install -r requirements.txt` in Paddock's environment."


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """Paddock works, less well."""
    BAD = "bad"
    """Something does not work until it is mended."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    finding: str
    """A sentence: what was found."""
    remedy: str | None = None
    """A sentence: what to do; None where there is nothing to do."""


@dataclass(frozen=True)
class Report:
    """All checks, in the order in which they are worth reading."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check is bad."""
        return all(check.state is not State.BAD for check in self.checks)

    @property
    def exit_code(self) -> int:
        """What the command line exits with: 0 unless a check is bad, else 1."""
        return 0 if self.ok else 1

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def examine(settings: Settings, *, requirements: Path = REQUIREMENTS) -> Report:
    """Look at everything; a check that fails does not keep the others from running.

    Creates the home folder and the run database where they are missing, as a start would.
    """
    return Report(
        (
            check_python(),
            check_libraries(requirements),
            *check_devices(),
            check_memory(settings),
            check_disk(settings),
            check_home(settings),
            check_database(settings),
            check_embedded_models(),
            check_stored_models(settings),
        )
    )


def to_text(report: Report) -> str:
    """The report for a terminal: a line per check, the remedy below it."""
    lines = []
    for check in report.checks:
        lines.append(f"{check.state.value:<5}{check.name}: {check.finding}")
        if check.remedy:
            lines.append(f"     → {check.remedy}")
    bad = sum(check.state is State.BAD for check in report.checks)
    lines.append("")
    lines.append("Paddock can run." if report.ok else f"{bad} of these must be mended.")
    return "\n".join(lines)


def to_json(report: Report) -> str:
    """The report as one JSON document."""
    return json.dumps(report.to_dict(), ensure_ascii=False, indent=2)


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Check:
    """Whether this Python is new enough and has 64 bits."""
    shown = ".".join(map(str, version))
    wanted = ".".join(map(str, OLDEST_PYTHON))
    finding = f"{shown} ({platform.machine()})."
    if version[:2] < OLDEST_PYTHON or sys.maxsize < 2**32:
        return Check("Python", State.BAD, finding, f"Install a 64-bit Python {wanted} or newer.")
    return Check("Python", State.OK, finding)


def check_libraries(requirements: Path) -> Check:
    """Whether the installed libraries are those that ``requirements.txt`` pins."""
    name = "Libraries"
    try:
        if INSTALLED:
            lines = metadata.requires("paddock") or []
        else:
            lines = requirements.read_text(encoding="utf-8").splitlines()
        pins = list(_pins(lines))
    except (OSError, UnicodeDecodeError, InvalidRequirement) as error:
        finding = f"{requirements.name} cannot be read ({_reason(error)})."
        return Check(name, State.WARN, finding, "Restore it from the repository.")
    missing = [pin.name for pin in pins if _installed(pin.name) is None]
    differing = [
        f"{pin.name} is {_installed(pin.name)} instead of {str(pin.specifier).lstrip('=')}"
        for pin in pins
        if pin.name not in missing and not pin.specifier.contains(_installed(pin.name) or "", True)
    ]
    findings = [f"{_listed(missing)} not installed"] * bool(missing) + differing
    if findings:
        state = State.BAD if missing else State.WARN
        return Check(name, state, f"{'; '.join(findings)}.", INSTALL)
    return Check(name, State.OK, f"All {len(pins)} libraries are installed as pinned.")


def check_devices() -> tuple[Check, ...]:
    """What OpenVINO can run on, and why a GPU or NPU that is there is not among it."""
    try:
        found = devices.list_devices()
    except (ImportError, RuntimeError) as error:
        finding = f"OpenVINO cannot be loaded ({_reason(error)})."
        return (Check("Devices", State.BAD, finding, INSTALL),)
    listed = "; ".join(f"{device.id}: {device.full_name}" for device in found)
    usable = any(device.kind is not DeviceKind.AUTO for device in found)
    overview = Check(
        "Devices",
        State.OK if usable else State.BAD,
        f"{listed}.",
        None if usable else "OpenVINO finds no device at all, not even the CPU: reinstall it.",
    )
    return (overview, *(_accelerator(kind, found) for kind in (DeviceKind.GPU, DeviceKind.NPU)))


def check_memory(settings: Settings) -> Check:
    """Whether a small model fits the free memory."""
    total, free = devices.host_facts().memory_bytes, devices.available_memory_bytes()
    wanted = MEMORY_WANTED + settings.memory_reserve_mib * MIB
    finding = f"{bytes_text(free)} of {bytes_text(total)} are free."
    if free >= wanted:
        return Check("Memory", State.OK, finding)
    remedy = f"Close other programs: models of a billion parameters want {bytes_text(wanted)}."
    return Check("Memory", State.WARN, finding, remedy)


def check_disk(settings: Settings) -> Check:
    """Whether there is room for models in the home folder."""
    try:
        free = shutil.disk_usage(_existing(settings.home)).free
    except OSError as error:
        finding = f"The free space of {settings.home} cannot be told ({_reason(error)})."
        return Check("Disk", State.WARN, finding)
    finding = f"{bytes_text(free)} are free for {settings.home}."
    if free >= DISK_WANTED:
        return Check("Disk", State.OK, finding)
    remedy = (
        f"Free some space or set PADDOCK_HOME to another disk: converting a model of "
        f"three billion parameters takes about {bytes_text(DISK_WANTED)}."
    )
    return Check("Disk", State.WARN if free >= DISK_NEEDED else State.BAD, finding, remedy)


def check_home(settings: Settings) -> Check:
    """Whether the home folder exists, or can be made, and can be written."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.home) as file:
            file.write(b"paddock")
            file.flush()
    except OSError as error:
        finding = f"{settings.home} cannot be written ({_reason(error)})."
        remedy = "Make it writable, or set PADDOCK_HOME to a folder that is."
        return Check("Home", State.BAD, finding, remedy)
    return Check("Home", State.OK, f"{settings.home} can be written.")


def check_database(settings: Settings) -> Check:
    """Whether the run database opens, is at the newest revision, and can be read."""
    name = "Run database"
    try:
        from core.db import RunState, RunStore
    except ImportError as error:
        return Check(name, State.BAD, f"It cannot be opened ({_reason(error)}).", INSTALL)
    try:
        store = RunStore.open(settings)
        try:
            revision, count = store.database.revision(), store.count()
            running = store.count(state=RunState.RUNNING)
        finally:
            store.close()
    except RecordsError as error:
        remedy = "Until this is mended answers are given but not recorded."
        return Check(name, State.BAD, str(error), remedy)
    finding = f"At revision {revision}, with {count} runs, {running} of them running or cut off."
    return Check(name, State.OK, finding)


def check_embedded_models(folder: Path = EMBEDDED_DIR) -> Check:
    """Whether the models that come with Paddock are there, whole."""
    name, remedy = "Embedded models", "Restore core/embedded from the repository."
    keys = [key for key, model in catalogue().items() if model.embedded]
    lacking = [said for key in keys if (said := _lacking(folder / key))]
    if lacking:
        return Check(name, State.WARN, f"{'; '.join(lacking)}.", remedy)
    broken = [key for key in keys if not _whole_safetensors(folder / key / "model.safetensors")]
    if broken:
        return Check(name, State.BAD, f"The weights of {', '.join(broken)} are not whole.", remedy)
    return Check(name, State.OK, f"{_listed(keys)} here.")


def check_stored_models(settings: Settings) -> Check:
    """Which converted models lie in the home folder."""
    name = "Converted models"
    try:
        from core.store import ModelStore
    except ImportError as error:
        return Check(name, State.BAD, f"They cannot be listed ({_reason(error)}).", INSTALL)
    try:
        stored = ModelStore(settings).list()
    except PaddockError as error:
        return Check(name, State.BAD, str(error))
    except OSError as error:
        finding = f"{settings.models_dir} cannot be read ({_reason(error)})."
        return Check(name, State.BAD, finding, "Make the folder readable.")
    if not stored:
        return Check(name, State.OK, "None yet; a model is converted when it is first used.")
    listed = ", ".join(f"{model.key} {model.label}" for model in stored)
    return Check(name, State.OK, f"{listed}.")


def _accelerator(kind: DeviceKind, found: tuple[devices.Device, ...]) -> Check:
    diagnosis = drivers.diagnose(kind, found)
    state = State.OK if diagnosis.fine else State.WARN
    return Check(kind.value.upper(), state, diagnosis.finding, diagnosis.remedy)


def _pins(lines: Iterable[str]) -> Iterable[Requirement]:
    """The requirements that hold for this system; pip's options and comments are passed over."""
    for line in lines:
        stated = line.split(" #")[0].strip()
        if not stated or stated.startswith(("#", "-")):
            continue
        pin = Requirement(stated)
        if pin.marker is None or pin.marker.evaluate():
            yield pin


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _whole_safetensors(path: Path) -> bool:
    """Whether the file is as long as its header says.

    The format: eight bytes with the header's length, little endian; the header, JSON that gives
    each tensor's ``data_offsets``; the data.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [row["data_offsets"][1] for key, row in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return 8 + length + max(ends, default=0) == size


def _lacking(folder: Path) -> str:
    """What the folder of an embedded model lacks, in words; empty where it is complete."""
    if not folder.is_dir():
        return f"{folder.name} is not there"
    missing = [file for file in EMBEDDED_FILES if not (folder / file).is_file()]
    return f"{folder.name} lacks {', '.join(missing)}" if missing else ""


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def _reason(error: Exception) -> str:
    """First line of the error, without its number."""
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__


def _listed(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"
