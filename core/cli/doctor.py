"""``doctor``: checks this machine and the installation: findings, problems and remedies.

Needs no network and imports no heavy library except OpenVINO.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from core.catalogue import EMBEDDED_DIR, catalogue
from core.errors import PaddockError, RecordsError
from core.hardware import cgroups, devices, drivers
from core.hardware.devices import DeviceKind
from core.settings import CHECKOUT, INSTALLED, Settings
from core.units import bytes_text, counted

MIN_PYTHON = (3, 11)
REQUIREMENTS = CHECKOUT / "requirements.txt"
MIB = 2**20
GIB = 2**30
RECOMMENDED_MEMORY = 2 * GIB
"""For an INT8 model of 1.1 billion parameters, whose weights are both memory-mapped and repacked,
and the program."""
RECOMMENDED_DISK = 15 * GIB
"""For a checkpoint of 2.8 billion parameters in bf16, its FP16 export and its INT8 version."""
MIN_DISK = 512 * MIB
"""Below this, not even a small model can be converted."""
INSTALL = "Run `python -m pip install -r requirements.txt` in Paddock's environment."


class State(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARN = "warn"
    """Paddock works with limitations."""
    BAD = "bad"
    """Something does not work until the problem is fixed."""


@dataclass(frozen=True)
class Check:
    """Result of one check."""

    name: str
    state: State
    finding: str
    """What was found, as a sentence."""
    remedy: str | None = None
    """What to do, as a sentence; None if nothing is to be done."""


def doctor(options: argparse.Namespace, settings: Settings) -> int:
    """Check the installation and this machine, and print the findings; return 1 if one is bad."""
    checks = run_checks(settings)
    print(to_json(checks) if options.json else to_text(checks))
    return 0 if _fine(checks) else 1


def run_checks(settings: Settings, *, requirements: Path = REQUIREMENTS) -> tuple[Check, ...]:
    """Run all checks, in display order; a failing check does not keep the others from running.

    Creates the home folder and the run database if they are missing, as starting the app does.
    """
    return (
        check_python(),
        check_libraries(requirements),
        *check_devices(),
        check_processors(),
        check_memory(settings),
        check_disk(settings),
        check_home(settings),
        check_database(settings),
        check_embedded_models(),
        check_stored_models(settings),
    )


def _fine(checks: Sequence[Check]) -> bool:
    return all(check.state is not State.BAD for check in checks)


def to_text(checks: Sequence[Check]) -> str:
    """Format the checks for a terminal: one line per check, with the remedy below it."""
    lines = []
    for check in checks:
        lines.append(f"{check.state.value:<5}{check.name}: {check.finding}")
        if check.remedy:
            lines.append(f"     → {check.remedy}")
    bad = sum(check.state is State.BAD for check in checks)
    lines += ["", f"{counted(bad, 'check')} failed." if bad else "Paddock can run."]
    return "\n".join(lines)


def to_json(checks: Sequence[Check]) -> str:
    """Format the checks as JSON."""
    document = {"ok": _fine(checks), "checks": [asdict(check) for check in checks]}
    return json.dumps(document, ensure_ascii=False, indent=2)


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Check:
    """Check that Python is new enough and has 64 bits."""
    shown = ".".join(map(str, version))
    minimum = ".".join(map(str, MIN_PYTHON))
    finding = f"{shown} ({platform.machine()})."
    if version[:2] < MIN_PYTHON or sys.maxsize < 2**32:
        return Check("Python", State.BAD, finding, f"Install a 64-bit Python {minimum} or newer.")
    return Check("Python", State.OK, finding)


def check_libraries(requirements: Path) -> Check:
    """Check that the installed libraries have the versions pinned in ``requirements.txt``."""
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
    return Check(name, State.OK, f"All {len(pins)} libraries have the pinned versions.")


def check_devices() -> tuple[Check, ...]:
    """Check OpenVINO's devices, and diagnose a GPU or NPU that OpenVINO does not list."""
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
        None if usable else "OpenVINO finds no device, not even the CPU. Reinstall it.",
    )
    checks = [overview]
    for kind in (DeviceKind.GPU, DeviceKind.NPU):
        diagnosis = drivers.diagnose(kind, found)
        state = State.OK if diagnosis.ok else State.WARN
        checks.append(Check(kind.value.upper(), state, diagnosis.finding, diagnosis.remedy))
    return tuple(checks)


def check_processors() -> Check:
    """Say how many processors may be used, and how many threads models run on because of it."""
    count, usable = devices.host_facts().logical_cores, cgroups.usable_processors()
    finding = f"{usable} of {count} logical processors may be used."
    threads = cgroups.threads_for_quota()
    if threads is None:
        return Check("Processors", State.OK, finding)
    finding += (
        f" The CPU quota of the container is {cgroups.cpu_quota():g}, so models run on "
        f"{counted(threads, 'thread')}."
    )
    return Check("Processors", State.OK, finding)


def check_memory(settings: Settings) -> Check:
    """Check that a small model fits into the free memory."""
    total, free = devices.host_facts().memory_bytes, devices.available_memory_bytes()
    recommended = RECOMMENDED_MEMORY + settings.memory_reserve_mib * MIB
    finding = f"{bytes_text(free)} of {bytes_text(total)} are available."
    if free >= recommended:
        return Check("Memory", State.OK, finding)
    remedy = (
        f"Close other programs. Models with a billion parameters need {bytes_text(recommended)}."
    )
    return Check("Memory", State.WARN, finding, remedy)


def check_disk(settings: Settings) -> Check:
    """Check the free disk space of the home folder."""
    try:
        folders = (settings.home, *settings.home.parents)
        nearest = next((each for each in folders if each.exists()), settings.home)
        free = shutil.disk_usage(nearest).free
    except OSError as error:
        finding = f"The free disk space of {settings.home} is unknown ({_reason(error)})."
        return Check("Disk", State.WARN, finding)
    finding = f"{bytes_text(free)} are free in {settings.home}."
    if free >= RECOMMENDED_DISK:
        return Check("Disk", State.OK, finding)
    remedy = (
        "Free some disk space or set PADDOCK_HOME to another disk. Converting a model with three "
        f"billion parameters needs about {bytes_text(RECOMMENDED_DISK)}."
    )
    return Check("Disk", State.WARN if free >= MIN_DISK else State.BAD, finding, remedy)


def check_home(settings: Settings) -> Check:
    """Check that the home folder exists or can be created, and is writable."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.home) as file:
            file.write(b"paddock")
            file.flush()
    except OSError as error:
        finding = f"{settings.home} is not writable ({_reason(error)})."
        remedy = "Make it writable, or set PADDOCK_HOME to a writable folder."
        return Check("Home", State.BAD, finding, remedy)
    return Check("Home", State.OK, f"{settings.home} is writable.")


def check_database(settings: Settings) -> Check:
    """Check that the run database can be opened, migrated and read."""
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
        remedy = "Fix this, or answers will not be recorded."
        return Check(name, State.BAD, str(error), remedy)
    finding = f"Revision {revision}; {count} runs, of which {running} are running or interrupted."
    return Check(name, State.OK, finding)


def check_embedded_models(folder: Path = EMBEDDED_DIR) -> Check:
    """Check that the included demo models are complete."""
    name, remedy = "Embedded models", "Restore core/embedded from the repository."
    keys = [key for key, model in catalogue().items() if model.embedded]
    try:
        from core.store.checkpoint import inspect_checkpoint

        for key in keys:
            inspect_checkpoint(folder / key)
    except ImportError as error:
        return Check(name, State.BAD, f"They cannot be checked ({_reason(error)}).", INSTALL)
    except PaddockError as error:
        return Check(name, State.BAD, str(error), remedy)
    except OSError as error:
        finding = f"{error.filename or folder} cannot be read ({_reason(error)})."
        return Check(name, State.BAD, finding, remedy)
    return Check(name, State.OK, f"{_listed(keys)} complete.")


def check_stored_models(settings: Settings) -> Check:
    """List the converted models in the home folder."""
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
        return Check(name, State.OK, "None yet. A model is converted when it is first used.")
    listed = ", ".join(f"{model.key} {model.label}" for model in stored)
    return Check(name, State.OK, f"{listed}.")


def _pins(lines: Iterable[str]) -> Iterable[Requirement]:
    """Yield the requirements that apply to this system; skip pip options and comments."""
    for line in lines:
        text = line.split(" #")[0].strip()
        if not text or text.startswith(("#", "-")):
            continue
        pin = Requirement(text)
        if pin.marker is None or pin.marker.evaluate():
            yield pin


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _reason(error: Exception) -> str:
    """Return the first line of an error, without its number."""
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__


def _listed(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"
