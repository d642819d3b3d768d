"""Fetching from a hub: a small one on this machine, which refuses in each way a real one does."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

from core.catalogue import Precision
from core.errors import (
    DiskFullError,
    GatedModelError,
    HubError,
    NotAModelError,
    UnknownModelError,
)
from core.settings import Settings
from core.store import ModelStore, Progress, resolve
from core.store import hub as hub_module
from core.store.hub import completed, fetch, wanted_files
from core.store.progress import ignore_progress

REPOSITORY = "some-org/tiny.model"
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves one folder as one repository and notes what was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[str] = []
        self.refusal: tuple[int, str] | None = None
        """Status and error code of every answer about the repository."""
        self.refused_files: tuple[int, str] | None = None
        """The same for its files only, as with a gated repository."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(path)
        if path.startswith("/api/"):
            if self.server.refusal:
                self._refuse(*self.server.refusal)
            elif path.startswith(f"/api/models/{REPOSITORY}"):
                self._send(json.dumps(self._listing()).encode())
            else:
                self._refuse(401, "RepoNotFound")
        elif self.server.refused_files:
            self._refuse(*self.server.refused_files)
        else:
            self._send((self.server.folder / path.rsplit("/", 1)[1]).read_bytes())

    def _listing(self) -> dict[str, object]:
        files = [
            {"rfilename": path.relative_to(self.server.folder).as_posix(), "size": size}
            for path in sorted(self.server.folder.rglob("*"))
            if path.is_file() and (size := path.stat().st_size)
        ]
        return {"id": REPOSITORY, "modelId": REPOSITORY, "sha": REVISION, "siblings": files}

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def hub(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """A hub with a GPT-NeoX checkpoint, and beside it what must not be fetched."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for path in checkpoint_of("gpt_neox").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name in ("modeling_evil.py", "pytorch_model.bin", "README.md", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    server = Hub(folder)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_model_is_fetched_converted_and_then_needs_no_hub(
    hub: Hub, store: ModelStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = resolve(REPOSITORY)
    steps: list[Progress] = []
    made = store.ensure(source, Precision.INT8, progress=steps.append)
    assert made.key == "some-org--tiny.model"
    assert made.manifest.source.kind == "hub"
    assert made.manifest.source.location == REPOSITORY
    assert made.manifest.source.revision == REVISION
    assert [step.stage.value for step in steps[:2]] == ["fetching", "fetching"]
    fetched = {path.name for path in (settings.downloads_dir / source.key).iterdir()}
    assert fetched >= {"model.safetensors", "tokenizer.json", "config.json"}
    assert fetched.isdisjoint({"modeling_evil.py", "pytorch_model.bin", "README.md", "onnx"})

    asked = len(hub.asked)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert store.ensure(source, Precision.FP16).manifest.source.revision == REVISION
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (401, "RepoNotFound", UnknownModelError, "has no model some-org/tiny.model"),
        (404, "RepoNotFound", UnknownModelError, "has no model some-org/tiny.model"),
        (403, "GatedRepo", GatedModelError, "accept its licence"),
        (500, "", HubError, "answered 500"),
        (403, "", HubError, "answered 403"),
    ],
)
def test_refusal_of_the_hub_is_one_sentence(
    hub: Hub, tmp_path: Path, status: int, code: str, kind: type[Exception], words: str
) -> None:
    hub.refusal = (status, code)
    with pytest.raises(kind, match=words) as caught:
        fetch(REPOSITORY, tmp_path / "there", ignore_progress)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert completed(tmp_path / "there") is None


def test_gated_files_of_a_visible_repository(hub: Hub, tmp_path: Path) -> None:
    hub.refused_files = (401, "GatedRepo")
    with pytest.raises(GatedModelError, match="HF_TOKEN"):
        fetch(REPOSITORY, tmp_path / "there", ignore_progress)


def test_no_network_is_told_at_once(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    began = time.monotonic()
    with pytest.raises(HubError, match=r"some-org/tiny\.model is not on this machine"):
        store.ensure(resolve(REPOSITORY), Precision.INT8)
    assert time.monotonic() - began < 5
    assert store.list() == []


def test_offline_mode_is_named(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        store.ensure(resolve(REPOSITORY), Precision.INT8)


def test_network_lost_on_the_way_leaves_no_complete_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    folder = tmp_path / "there"

    def stop_early(*_arguments: object, **_options: object) -> str:
        (folder / "model.safetensors").write_bytes(b"half")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", stop_early)
    with pytest.raises(HubError, match="stopped before"):
        fetch(REPOSITORY, folder, ignore_progress)
    assert completed(folder) is None


def test_download_that_does_not_fit_is_not_begun(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda _path: Usage)
    with pytest.raises(DiskFullError, match="make room"):
        fetch(REPOSITORY, tmp_path / "there", ignore_progress)
    assert not any("/resolve/" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        (
            ["model.safetensors", "pytorch_model.bin", "config.json"],
            ["config.json", "model.safetensors"],
        ),
        (
            ["pytorch_model.bin", "config.json", "training_args.bin"],
            ["config.json", "pytorch_model.bin"],
        ),
        (
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "consolidated.safetensors",
            ],
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
        ),
        (
            ["openvino_model.xml", "openvino_model.bin"],
            ["openvino_model.bin", "openvino_model.xml"],
        ),
        (["model.safetensors", "openvino_model.xml", "openvino_model.bin"], ["model.safetensors"]),
        (
            ["original/model.safetensors", "pytorch_model.bin", "../model.safetensors"],
            ["pytorch_model.bin"],
        ),
        (["model.safetensors.index.json", "pytorch_model.bin"], ["pytorch_model.bin"]),
    ],
)
def test_only_what_makes_the_model_is_wanted(present: list[str], wanted: list[str]) -> None:
    assert wanted_files(present) == wanted


def test_repository_without_weights_is_not_a_model() -> None:
    with pytest.raises(NotAModelError, match="neither safetensors"):
        wanted_files(["README.md", "model.gguf", "config.json"])
