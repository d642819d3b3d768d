"""The installable package: what a wheel contains, and its ``paddock`` command."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_string
from fnmatch import fnmatch
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest

import core.__main__
from core.settings import CHECKOUT, INSTALLED, Settings

PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
NOT_PACKAGED = ("__pycache__", "checkpoints")


def package_files() -> Iterator[Path]:
    """The files of ``core``, relative to the clone."""
    for path in sorted((CHECKOUT / "core").rglob("*")):
        if path.is_file() and not set(path.parts) & set(NOT_PACKAGED):
            yield path.relative_to(CHECKOUT)


def test_the_command_runs_the_same_function_as_python_m_core() -> None:
    module, _, name = PROJECT["project"]["scripts"]["paddock"].partition(":")
    assert getattr(import_module(module), name) is core.__main__.main


@pytest.mark.parametrize(
    "started, name", [("bin/paddock", "paddock"), ("core/__main__.py", "python -m core")]
)
def test_help_names_the_command_as_it_was_started(
    started: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    with pytest.raises(SystemExit):
        core.__main__.main(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: {name} ")


def test_package_data_covers_every_file_that_is_not_python() -> None:
    [patterns] = PROJECT["tool"]["setuptools"]["package-data"].values()
    others = [path for path in package_files() if path.suffix != ".py"]
    assert len(others) > 30
    assert not [path for path in others if not any(fnmatch(path.name, p) for p in patterns)]


def test_a_clone_is_not_an_installed_package() -> None:
    assert not INSTALLED
    assert Settings.model_fields["home"].default == CHECKOUT / ".paddock"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel, built offline with the installed setuptools from a copy of the clone."""
    try:
        version = metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        pytest.skip("setuptools is not installed")
    [required] = PROJECT["build-system"]["requires"]
    if int(version.split(".")[0]) < int(re.sub(r"\D", "", required)):
        pytest.skip(f"setuptools {version} is too old; building a wheel needs {required}")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    ignore = shutil.ignore_patterns(*NOT_PACKAGED)
    shutil.copytree(CHECKOUT / "core", source / "core", ignore=ignore)
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(source / "dist")],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=300,
    )
    [built] = (source / "dist").glob("*.whl")
    return zipfile.ZipFile(built)


def test_a_wheel_contains_every_file_of_core_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == {path.as_posix() for path in package_files()}


def test_a_wheel_declares_the_command_and_the_pinned_libraries(wheel: zipfile.ZipFile) -> None:
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "paddock = core.__main__:main" in wheel.read(entry_points).decode().splitlines()
    [about] = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    required = message_from_string(wheel.read(about).decode()).get_all("Requires-Dist")
    lines = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert required == [line for line in lines if not line.startswith("#")]
