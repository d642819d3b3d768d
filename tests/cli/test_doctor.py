"""``doctor`` finds problems, names a remedy, and does not fail itself."""

from __future__ import annotations

import builtins
import json
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest

from core.catalogue import EMBEDDED_DIR, catalogue
from core.cli import doctor
from core.cli.doctor import Check, State
from core.hardware import cgroups, devices
from core.hardware.devices import HostFacts
from core.settings import Settings
from tests.waiting import PATIENCE_S

GIB = 2**30


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def requirements(tmp_path: Path):
    """Writes a requirements file."""

    def write(*lines: str) -> Path:
        path = tmp_path / "requirements.txt"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def refuse_import(monkeypatch, module: str) -> None:
    """Simulate a missing library."""
    real = builtins.__import__

    def importing(name, *rest):
        if name == module:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)


def test_all_checks_run(settings: Settings, requirements) -> None:
    pins = requirements(f"psutil=={metadata.version('psutil')}")
    checks = doctor.run_checks(settings, requirements=pins)
    names = [check.name for check in checks]
    assert names == [
        "Python",
        "Libraries",
        "Devices",
        "GPU",
        "NPU",
        "Processors",
        "Memory",
        "Disk",
        "Home",
        "Run database",
        "Embedded models",
        "Converted models",
    ]
    text = doctor.to_text(checks)
    for check in checks:
        assert check.finding.endswith("."), check
        assert check.remedy is None or check.remedy.endswith("."), check
        assert f"{check.name}: {check.finding}" in text
    assert "CPU: " in text and "AUTO: " in text
    written = json.loads(doctor.to_json(checks))
    assert len(written["checks"]) == len(names)
    assert written["ok"] == all(check.state is not State.BAD for check in checks)


def test_nothing_heavy_but_openvino_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from core.cli import doctor; from core.settings import Settings;"
        "doctor.run_checks(Settings(home=pathlib.Path(sys.argv[1])));"
        "print([m for m in ('torch', 'transformers', 'nncf', 'streamlit') if m in sys.modules])"
    )
    root = Path(doctor.__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.check_output(command, cwd=root, text=True, timeout=PATIENCE_S).strip() == "[]"


def test_only_a_bad_check_fails_the_report() -> None:
    fine, warned = Check("a", State.OK, "Fine."), Check("b", State.WARN, "Less so.", "Do it.")
    bad = Check("c", State.BAD, "Broken.", "Fix it.")
    assert json.loads(doctor.to_json((fine, warned)))["ok"]
    assert not json.loads(doctor.to_json((fine, bad, warned)))["ok"]
    text = doctor.to_text((fine, bad, warned))
    assert "bad  c: Broken.\n     → Fix it." in text and "1 check failed" in text


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 10, 9), State.BAD), ((3, 11, 0), State.OK), ((3, 14, 1), State.OK), ((2, 7), State.BAD)],
)
def test_python_must_be_new_enough(version, state: State) -> None:
    check = doctor.check_python(version)
    assert check.state is state and ".".join(map(str, version)) in check.finding
    assert (check.remedy is None) == (state is State.OK)


def test_libraries_as_pinned(requirements) -> None:
    path = requirements(
        "# a comment",
        "--extra-index-url https://example.org/whl",
        "",
        f"psutil=={metadata.version('psutil')}  # why",
        f"SQLAlchemy == {metadata.version('sqlalchemy')}",
        f"torch=={metadata.version('torch').partition('+')[0]}",  # the +cpu build is the same
        "no-such-library==1.0; sys_platform == 'plan9'",
    )
    assert doctor.check_libraries(path) == Check(
        "Libraries", State.OK, "All 3 libraries have the pinned versions."
    )


def test_a_library_of_another_version_is_named_with_both(requirements) -> None:
    check = doctor.check_libraries(requirements("psutil==1.2.3", "pydantic>=1"))
    assert check.state is State.WARN
    assert check.finding == f"psutil is {metadata.version('psutil')} instead of 1.2.3."
    assert "pip install -r requirements.txt" in check.remedy


def test_a_missing_library_is_bad(requirements) -> None:
    check = doctor.check_libraries(requirements("no-such-library==1.0", "psutil==1.2.3"))
    assert check.state is State.BAD
    assert "no-such-library is not installed" in check.finding and "1.2.3" in check.finding


def test_an_installed_package_has_its_requirements_in_its_metadata(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "INSTALLED", True)
    monkeypatch.setattr(doctor.metadata, "requires", {"paddock": ["no-such-library==1.0"]}.get)
    check = doctor.check_libraries(Path("not-here"))
    assert check.state is State.BAD and "no-such-library is not installed" in check.finding


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"what is this?"])
def test_a_requirements_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "requirements.txt"
    if content is not None:
        path.write_bytes(content)
    check = doctor.check_libraries(path)
    assert check.state is State.WARN and "cannot be read" in check.finding


def test_an_openvino_that_cannot_be_loaded_is_bad(monkeypatch) -> None:
    devices.list_devices.cache_clear()
    refuse_import(monkeypatch, "openvino")
    (check,) = doctor.check_devices()
    assert check.state is State.BAD and "No module named 'openvino'" in check.finding
    assert "pip install" in check.remedy


def test_an_openvino_without_any_device_is_bad(monkeypatch) -> None:
    devices.list_devices.cache_clear()
    monkeypatch.setattr(devices, "_reported_devices", lambda: [])
    try:
        assert doctor.check_devices()[0].state is State.BAD
    finally:
        devices.list_devices.cache_clear()


def test_little_memory_is_a_warning(settings: Settings, monkeypatch) -> None:
    facts = HostFacts("h", "os", "cpu", 2, 2, 8 * GIB)
    monkeypatch.setattr(devices, "host_facts", lambda: facts)
    monkeypatch.setattr(devices, "available_memory_bytes", lambda: 1 * GIB)
    check = doctor.check_memory(settings)
    assert (check.state, check.finding) == (State.WARN, "1.1 GB of 8.6 GB are available.")
    monkeypatch.setattr(devices, "available_memory_bytes", lambda: 4 * GIB)
    assert doctor.check_memory(settings).state is State.OK
    reserved = settings.model_copy(update={"memory_reserve_mib": 3000})
    assert doctor.check_memory(reserved).state is State.WARN


def test_threads_for_a_cpu_quota_are_told(monkeypatch) -> None:
    monkeypatch.setattr(cgroups, "usable_processors", lambda: 8)
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: None)
    assert doctor.check_processors().finding.startswith("8 of ")
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: 1.5)
    check = doctor.check_processors()
    assert check.state is State.OK and check.finding.endswith("is 1.5, so models run on 2 threads.")


@pytest.mark.parametrize(
    ("free", "state"), [(100 * GIB, State.OK), (5 * GIB, State.WARN), (2**28, State.BAD)]
)
def test_disk_space(settings: Settings, monkeypatch, free: int, state: State) -> None:
    usage = namedtuple("usage", "total used free")
    asked = []

    def disk_usage(path: Path):
        asked.append(Path(path))
        return usage(200 * GIB, 0, free)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    check = doctor.check_disk(settings)
    assert check.state is state and (check.remedy is None) == (state is State.OK)
    assert asked == [settings.home.parent], "the home folder is not there yet"


def test_a_home_that_can_be_written_is_left_clean(settings: Settings) -> None:
    assert doctor.check_home(settings).state is State.OK
    assert list(settings.home.iterdir()) == []


def test_home_that_cannot_be_created_is_bad(tmp_path: Path, requirements) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = Settings(home=tmp_path / "file" / "home")
    check = doctor.check_home(settings)
    assert check.state is State.BAD and "PADDOCK_HOME" in check.remedy
    checks = doctor.run_checks(settings, requirements=requirements("psutil"))
    states = {check.name: check.state for check in checks}
    assert states["Home"] is states["Run database"] is State.BAD
    assert states["Devices"] is State.OK, "one fault does not keep the other checks from running"


def test_home_that_is_not_writable_is_bad(settings: Settings, monkeypatch) -> None:
    def refuse(*_args, **_keywords):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    check = doctor.check_home(settings)
    assert check.state is State.BAD and "(Permission denied)" in check.finding


def test_the_database_is_opened_and_counted(settings: Settings) -> None:
    check = doctor.check_database(settings)
    assert check.state is State.OK
    rest = "; 0 runs, of which 0 are running or interrupted."
    assert re.fullmatch(rf"Revision \d{{4}}{rest}", check.finding)


def test_a_damaged_database_is_bad(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "paddock.db").write_bytes(b"rubbish " * 1000)
    check = doctor.check_database(settings)
    assert check.state is State.BAD and "damaged" in check.finding


def test_a_database_library_that_is_missing_does_not_stop_the_doctor(
    settings: Settings, monkeypatch
) -> None:
    refuse_import(monkeypatch, "core.db")
    check = doctor.check_database(settings)
    assert check.state is State.BAD and "pip install" in check.remedy


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """Return a copy of the folder with the demo models."""
    for key in (key for key, model in catalogue().items() if model.embedded):
        shutil.copytree(EMBEDDED_DIR / key, tmp_path / "embedded" / key)
    return tmp_path / "embedded"


def test_complete_demo_models(embedded: Path) -> None:
    check = doctor.check_embedded_models(embedded)
    assert check.state is State.OK and check.finding.endswith("are complete.")


@pytest.mark.parametrize("name", [".", "config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files_of_a_demo_model(embedded: Path, name: str) -> None:
    lost = embedded / "paddock-llama" / name
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    check = doctor.check_embedded_models(embedded)
    assert check.state is State.BAD and check.remedy
    assert "paddock-llama" in check.finding


def test_a_missing_safetensors_does_not_stop_the_doctor(embedded: Path, monkeypatch) -> None:
    refuse_import(monkeypatch, "safetensors")
    check = doctor.check_embedded_models(embedded)
    assert check.state is State.BAD and "pip install" in check.remedy
    assert "No module named 'safetensors'" in check.finding


def test_truncated_demo_weights(embedded: Path) -> None:
    weights = embedded / "paddock-llama" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    check = doctor.check_embedded_models(embedded)
    assert check.state is State.BAD and "model.safetensors in" in check.finding
