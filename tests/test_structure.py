"""Tests of the structure of the code: the error tree and the import direction."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import core.errors
from core.errors import PaddockError
from core.settings import CHECKOUT
from tests.waiting import PATIENCE_S

SOURCES = sorted(path for folder in ("core", "pages") for path in (CHECKOUT / folder).rglob("*.py"))

LAYERS: tuple[tuple[str, ...], ...] = (
    ("core.errors", "core.markdown", "core.units"),
    ("core.settings",),
    ("core.hardware",),
    ("core.workers",),
    ("core.db",),
    ("core.catalogue", "core.remotes"),
    ("core.auth",),
    ("core.store",),
    ("core.runtimes",),
    ("core.embedded",),
    ("core.inference",),
    ("core.metrics",),
    ("core.benchmark",),
    ("core.compare",),
    ("core.api",),
    ("core.evaluation",),
    ("core.server",),
    ("core.cluster",),
    ("core.cli",),
    ("core.ui", "core.__main__"),
    ("pages",),
    ("core.app",),
)
"""From lowest to highest; a module imports only from its own package and lower layers."""

HEAVY = ("torch", "transformers", "optimum", "nncf", "openvino")


# Errors


def test_error_tree_in_the_docstring_matches_the_classes():
    drawing = core.errors.__doc__.split("::", 1)[1]
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in drawing.splitlines():
        found = re.match(r"^([ │├└─]*)([A-Z]\w+)(?: |$)", line)
        if not found:
            continue
        depth = (len(found.group(1)) - 4) // 4
        path[depth:] = [found.group(2)]
        drawn[found.group(2)] = path[depth - 1] if depth else "Exception"
    defined = {
        name: kind.__mro__[1].__name__
        for name, kind in vars(core.errors).items()
        if inspect.isclass(kind) and kind.__module__ == "core.errors"
    }
    assert drawn == defined


def test_exit_codes_follow_the_tree():
    for kind in vars(core.errors).values():
        if inspect.isclass(kind) and issubclass(kind, PaddockError):
            mistake = issubclass(kind, core.errors.UserError)
            assert kind.exit_code == (2 if mistake else 1), kind
            assert kind.__doc__


# Imports


def module_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, at_the_top: bool = False) -> Iterator[str]:
    """Yield the modules a file imports; with ``at_the_top`` only those imported at import time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = top_level(tree) if at_the_top else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def top_level(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from top_level(child)


def layer(module: str) -> tuple[int, str] | None:
    for height, packages in enumerate(LAYERS):
        for package in packages:
            if module == package or module.startswith(f"{package}."):
                return height, package
    return None


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_run_downward(path: Path):
    name = module_name(path)
    if name == "core":
        return
    here = layer(name)
    assert here is not None, f"{name} is in no layer; add it to LAYERS"
    for imported in imports(path):
        if imported.split(".")[0] not in ("core", "pages"):
            continue
        there = layer(imported)
        if imported.startswith("core.") and imported.count(".") == 1 and there is None:
            continue  # a name of the package ``core`` itself
        assert there is not None, f"{name} imports {imported}, which is in no layer"
        assert there[1] == here[1] or there[0] < here[0], f"{name} imports upward: {imported}"


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("db", ("core.db", "core.settings", "core.errors")),
        ("auth", ("core.auth", "core.db", "core.settings", "core.errors")),
    ],
)
def test_package_imports_only_allowed_packages(package: str, allowed: tuple[str, ...]):
    paths = list((CHECKOUT / "core" / package).rglob("*.py"))
    assert paths
    for path in paths:
        assert all(i.startswith(allowed) for i in imports(path) if i.startswith("core."))


def test_only_its_own_tests_import_the_training():
    training = "core.embedded.training"
    own = (CHECKOUT / "core/embedded/training", CHECKOUT / "tests/embedded/training")
    for path in (*SOURCES, *(CHECKOUT / "tests").rglob("*.py"), CHECKOUT / "streamlit_app.py"):
        if not path.is_relative_to(own[0]) and not path.is_relative_to(own[1]):
            assert not any(f"{name}.".startswith(f"{training}.") for name in imports(path)), path


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_streamlit_stays_in_the_ui(path: Path):
    name = module_name(path)
    if name.startswith(("pages", "core.ui")):
        return
    assert "streamlit" not in {imported.split(".")[0] for imported in imports(path)}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_heavy_libraries_are_imported_inside_functions(path: Path):
    # Only conversion needs these modules, and it imports them late.
    allowed = {"core.store.convert", "core.store.gguf.network"}
    if module_name(path) not in allowed:
        assert not {i.split(".")[0] for i in imports(path, at_the_top=True)} & set(HEAVY)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        # `doctor` runs without the libraries of the database and of accounts.
        ("core.__main__", (*HEAVY, "sqlalchemy", "argon2")),
        ("core.inference.engine", HEAVY),
        ("core.store", HEAVY),
        ("core.cli.doctor", HEAVY),
    ],
)
def test_importing_a_module_loads_no_heavy_library(module: str, heavy: tuple[str, ...]):
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
