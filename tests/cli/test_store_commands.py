"""``get``, ``convert``, ``delete`` and ``verify``, with real models and a local hub server."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.__main__ import main
from core.catalogue import Int4Settings, Precision
from core.cli import store as commands
from core.errors import CorruptModelError
from core.runtimes.spec import ModelSpec
from core.settings import CHECKOUT, Settings
from core.store import ModelStore, resolve
from core.store.files import folder_bytes
from core.store.hub import completed
from tests.fakes import stored_model
from tests.gguf_files import tiny_gguf
from tests.store.hub_server import Hub
from tests.waiting import PATIENCE_S

SECRET = "hf_verySecretToken"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; return exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def home() -> Path:
    """The home folder of this test's commands."""
    return Path(os.environ["PADDOCK_HOME"])


@pytest.fixture
def stored(home: Path, checkpoints: Callable[..., Path], shared_home: Path, spec_of) -> str:
    """Folder of a tiny model that the home folder has in INT8 and INT4."""
    for precision in (Precision.INT8, Precision.INT4):
        spec_of("llama", precision)
    folder = checkpoints("llama")
    key = resolve(str(folder)).key
    for precision in ("int8", "int4"):
        shutil.copytree(shared_home / "models" / key / precision, home / "models" / key / precision)
    return str(folder)


@pytest.fixture
def hub(checkpoints: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        server.add("org/model", checkpoints("llama"))
        server.add("org/gated", checkpoints("llama"), gated=True, token=SECRET)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def models_of(home: Path) -> list[str]:
    return sorted(one.precision.value for one in ModelStore(Settings(home=home)).list())


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "core", *arguments],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **{"stderr": subprocess.PIPE} | options,
    )


def one_sentence(stderr: str) -> bool:
    return stderr.count("\n") == 1 and stderr.endswith(".\n")


# get


def test_get_downloads_once_with_progress(hub: Hub, home: Path, run: Run):
    code, out, err = run("get", "org/model", "--json")
    folder = home / "downloads" / "org--model"
    assert code == 0 and completed(folder)
    told = json.loads(out)
    assert (told["key"], told["folder"]) == ("org--model", str(folder))
    assert told["bytes"] == folder_bytes(folder) > 100_000
    assert "Downloading org/model" in err and "100%" in err
    assert models_of(home) == []
    asked = len(hub.asked)
    code, out, err = run("get", "org/model")
    assert (code, err, len(hub.asked)) == (0, "", asked)
    assert str(folder) in out and out.count("\n") == 1


def test_token_is_read_from_standard_input(
    hub: Hub, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    code, _, err = run("get", "org/gated")
    assert code == 1 and "licence" in err.splitlines()[-1]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    code, _, err = run("get", "org/gated", "--token-stdin")
    assert code == 2 and one_sentence(err)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\n"))
    code, out, err = run("get", "org/gated", "--token-stdin")
    assert code == 0 and completed(home / "downloads" / "org--gated")
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert all(SECRET.encode() not in path.read_bytes() for path in kept)
    assert SECRET not in out + err


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_ends_a_download_and_says_what_is_kept(hub: Hub, home: Path, run: Run):
    hub.delay(0.1)  # so slow that it cannot end before
    child = start("get", "org/model")
    assert child.stderr is not None
    for line in child.stderr:
        if re.search(r"[1-9]\d%", line):
            break
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    last = err.splitlines()[-1]
    assert last.startswith("Stopped. The downloaded ") and "resumes there" in last
    assert "Traceback" not in err
    folder = home / "downloads" / "org--model"
    assert completed(folder) is None and folder_bytes(folder) > 10_000
    hub.heal()
    assert run("get", "org/model")[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals on Windows")
def test_a_terminal_sees_one_line_that_moves(hub: Hub):
    hub.delay(0.01)
    ours, theirs = os.openpty()
    child = start("get", "org/model", stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # on Linux, the other side has closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    out, _ = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0 and "org/model" in out
    screen = seen.decode("utf-8")
    assert "\n" not in screen and screen.endswith("\r\x1b[K")
    assert re.search(r"█+░* +\d+%  .*kB of .*kB/s", screen)


# convert


def test_convert_prints_estimate_and_result(home: Path, checkpoints: Callable[..., Path], run: Run):
    settings = ("--group-size", "32", "--ratio", "1", "--symmetric")
    code, out, err = run("convert", str(checkpoints("phi")), "int4", *settings)
    assert code == 0 and out.count("\n") == 1
    assert "in INT4" in out and "times smaller than" in out and "peak" in out
    assert re.search(r"INT4 \d+ %.*symmetric, group size 32, ratio 1\b", out)
    first, *rest = err.splitlines()
    assert re.search(r"takes about .* of memory \(.* free\), .* of disk \(.* free\)", first)
    assert any(line.startswith("Exporting") for line in rest)
    (made,) = ModelStore(Settings(home=home)).list()
    record = made.manifest.int4
    assert record is not None
    asked = Int4Settings(record.symmetric, record.group_size, record.ratio)
    assert asked == Int4Settings(symmetric=True, group_size=32, ratio=1.0)
    code, _, err = run("convert", str(checkpoints("phi")), "--precision", "int4", "--ratio", "0.5")
    assert code == 2 and one_sentence(err) and "Delete it first" in err


@pytest.mark.long
@pytest.mark.usefixtures("convert_here")
def test_a_gguf_file_is_converted_as_stored(home: Path, tmp_path: Path, run: Run):
    file = tiny_gguf(tmp_path / "files" / "mine.gguf").path
    code, out, err = run("convert", str(file.parent))
    assert code == 0, err
    assert "mine in INT4 · GGUF Q4_1: " in out and "No weight differs from the file" in out
    assert err.startswith("Converting mine as stored takes about")
    assert re.search(r"About [\d,.]+ tokens/s are expected on this machine's CPU\.", err)
    code, out, _ = run("convert", str(file), "int8")
    assert code == 0 and "mine in INT8 from Q4_1: " in out and "Quantising twice" in out
    assert [path.name for path in file.parent.iterdir()] == ["mine.gguf"]
    code, _, err = run("get", str(file))
    assert code == 2 and one_sentence(err) and "on this machine already" in err


def test_a_folder_of_several_gguf_files_is_a_mistake_that_lists_them(tmp_path: Path, run: Run):
    for name in "ab":
        tiny_gguf(tmp_path / f"{name}.gguf")
    for command in (["convert"], ["generate"], ["delete", "--yes"], ["tune"]):
        rest = ["Why?"] if command == ["generate"] else []
        code, _, err = run(command[0], str(tmp_path), *command[1:], *rest)
        assert code == 2 and one_sentence(err) and "(a.gguf, b.gguf)" in err, command


@pytest.mark.long
def test_convert_estimates_with_the_hubs_description(hub: Hub, home: Path, run: Run):
    code, _, err = run("convert", "org/model", "int8")
    assert code == 0
    assert "a download of" in err.splitlines()[0]
    assert models_of(home) == ["int8"]


def test_convert_checks_memory_before_the_download(
    hub: Hub, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("core.store.estimate.available_memory_bytes", lambda: 10_000_000)
    code, out, err = run("convert", "org/model", "int8")
    assert (code, out) == (1, "")
    assert "of memory and 10 MB are free" in err.splitlines()[-1]
    assert not (home / "downloads").exists() and not hub.fetched("model.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_ends_a_conversion_and_leaves_nothing(home: Path, checkpoints: Callable[..., Path]):
    child = start("convert", str(checkpoints("phi")), "int8", stdin=subprocess.DEVNULL)
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("Exporting"):
            break
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    assert err.splitlines()[-1].startswith("Stopped. Nothing of ")
    assert models_of(home) == [] and list((home / "models" / ".work").glob("*/")) == []


# delete


def test_delete_requires_confirmation(
    stored: str, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))  # not a terminal
    code, out, err = run("delete", stored)
    assert (code, out) == (2, "") and one_sentence(err) and "--yes" in err

    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Person("\n"))
    code, _, err = run("delete", stored)
    assert code == 1 and "INT8, INT4" in err and err.endswith("Nothing was deleted.\n")
    assert models_of(home) == ["int4", "int8"]
    monkeypatch.setattr("sys.stdin", Person("y\n"))
    code, out, _ = run("delete", stored)
    assert code == 0 and "were freed" in out
    assert models_of(home) == []


def test_delete_one_precision(stored: str, home: Path, run: Run):
    size = sum(
        one.manifest.folder_bytes
        for one in ModelStore(Settings(home=home)).list()
        if one.precision is Precision.INT8
    )
    code, out, err = run("delete", stored, "--precision", "int8", "--yes", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["deleted"] == ["int8"] and told["freed_bytes"] >= size
    assert models_of(home) == ["int4"]
    code, _, err = run("delete", stored, "--precision", "int8", "--yes")
    assert code == 2 and one_sentence(err) and "not on disk in INT8" in err


def test_delete_by_the_key_of_a_model_whose_folder_is_gone(home: Path, stored: str, run: Run):
    key = resolve(stored).key
    code, out, _ = run("delete", key, "--yes")
    assert code == 0 and "INT8, INT4" in out
    assert models_of(home) == []


def test_delete_only_the_download(hub: Hub, home: Path, run: Run):
    assert run("get", "org/model")[0] == 0
    code, _, err = run("delete", "org/model", "--yes")
    assert code == 2 and one_sentence(err)  # no converted model; the download is kept
    assert completed(home / "downloads" / "org--model")
    code, out, _ = run("delete", "org/model", "--download", "--yes", "--json")
    assert code == 0 and json.loads(out)["deleted"] == ["download"]
    assert not (home / "downloads" / "org--model").exists()


# verify


def test_verify_reads_every_file(stored: str, home: Path, run: Run):
    code, out, err = run("verify")
    assert (code, err) == (0, "")
    assert out.count(" verified (") == out.count("\n") == 2
    (weights,) = home.glob("models/*/int4/openvino_model.bin")
    state, content = weights.stat(), bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))  # only a checksum tells
    code, out, _ = run("verify", stored)
    damaged, fine = out.splitlines()
    assert code == 1
    assert "openvino_model.bin has been altered" in damaged and " verified (" in fine
    code, out, err = run("verify", stored, "--precision", "int8", "--json")
    assert (code, err) == (0, "")
    (told,) = json.loads(out)
    assert (told["precision"], told["problem"]) == ("int8", None) and told["bytes"] > 100_000


def test_verify_reports_a_missing_manifest(stored: str, home: Path, run: Run):
    (manifest,) = home.glob("models/*/int8/paddock.json")
    manifest.unlink()
    code, out, _ = run("verify", "--json")
    assert code == 1
    problems = {one["precision"]: one["problem"] for one in json.loads(out)}
    assert problems["int4"] is None and "paddock.json" in problems["int8"]


def test_verify_nothing(run: Run):
    assert run("verify") == (0, "There are no models on disk.\n", "")
    code, _, err = run("verify", "paddock-neox")
    assert code == 2 and one_sentence(err)


# Mistakes

MISTAKES = {
    "get nothing": ("get",),
    "get an embedded model": ("get", "paddock-neox"),
    "get unknown": ("get", "no-such-model"),
    "two precisions": ("convert", "paddock-neox", "int4", "--precision", "int8"),
    "no precision": ("convert", "paddock-neox", "int3"),
    "INT4 settings for INT8": ("convert", "paddock-neox", "int8", "--group-size", "64"),
    "INT8 settings for INT4": ("convert", "paddock-neox", "int4", "--int8-symmetric"),
    "group size": ("convert", "paddock-neox", "int4", "--group-size", "0"),
    "ratio": ("convert", "paddock-neox", "int4", "--ratio", "1.5"),
    "ratio not a number": ("convert", "paddock-neox", "int4", "--ratio", "nan"),
    "delete unknown": ("delete", "no-such-model", "--yes"),
    "delete what is not there": ("delete", "paddock-neox", "--yes"),
    "verify unknown": ("verify", "no-such-model"),
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, run: Run, home: Path):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert one_sentence(err), err
    assert not home.exists() or models_of(home) == []


def test_missing_settings_default_to_the_models(monkeypatch: pytest.MonkeyPatch, run: Run):
    asked = []
    monkeypatch.setattr(commands, "_estimate", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(commands, "_needs_text", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("convert", "red-pajama-3b-instruct", "int4", "--ratio", "0.9")
    with pytest.raises(ZeroDivisionError):
        run("convert", "red-pajama-3b-instruct", "int4")
    assert asked[0][3] == Int4Settings(symmetric=False, group_size=128, ratio=0.9)
    assert asked[1][3] is None


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreadable(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("core.store.store.sha256", unreadable)
    (tmp_path / "a.bin").write_bytes(b"0")
    record = SimpleNamespace(size=1, mtime_ns=0, sha256="")
    stored = stored_model(ModelSpec("mine", Precision.INT8))
    manifest = stored.manifest.model_copy(update={"files": {"a.bin": record}})
    with pytest.raises(CorruptModelError, match=r"a\.bin cannot be read \(Input/output error\)"):
        ModelStore(Settings(home=tmp_path)).verify(
            replace(stored, folder=tmp_path, manifest=manifest), full=True
        )
