"""A small local Hugging Face hub with the protocol that the real client expects.

``GET /api/models/ORG/NAME`` lists a repository; ``/ORG/NAME/resolve/REVISION/FILE`` gives a small
file, and redirects requests for large files to a second server, as the real hub does to its
storage. Responses for tokens, gated models and refusals have the status and headers from which
``huggingface_hub`` derives its errors; ``Range`` is supported. Failures of hub and network can be
simulated.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"
_LARGE = (".safetensors", ".bin", ".model", ".gguf")
"""Kept in LFS, as on the real hub."""
_CHUNK = 2048


@dataclass(frozen=True)
class Asked:
    """A received request."""

    method: str
    path: str
    range: str | None
    token: str | None
    storage: bool
    """Whether it was sent to the second server, which serves large files."""
    agent: str


@dataclass
class _Repository:
    folder: Path
    gated: bool
    private: bool
    token: str | None
    revision: str
    tags: tuple[str, ...]
    task: str | None


@dataclass
class _Faults:
    """Simulated failures; several can be set at once."""

    cut: int | None = None
    cuts_left: int = 0
    delay: float = 0.0
    corrupt: set[str] = field(default_factory=set)
    ignore_ranges: bool = False
    refusal: tuple[int, str] | None = None
    no_sizes: bool = False


class Hub:
    """The hub; a context manager that serves until its block ends.

    Attributes:
        asked: all requests so far.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.repositories: dict[str, _Repository] = {}
        self.tokens: set[str] = set()
        self.faults = _Faults()
        self._closing = threading.Event()
        self._servers = [_Server(self, storage=False), _Server(self, storage=True)]
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; connections are refused from now on."""
        self._closing.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    @property
    def url(self) -> str:
        """Value for ``HF_ENDPOINT``."""
        return self._servers[0].url

    @property
    def storage_url(self) -> str:
        """URL to which requests for large files are redirected."""
        return self._servers[1].url

    # Repositories

    def add(
        self,
        repo_id: str,
        folder: Path,
        *,
        gated: bool = False,
        private: bool = False,
        token: str | None = None,
        revision: str = REVISION,
        tags: Sequence[str] = (),
        task: str | None = None,
    ) -> None:
        """Serve ``folder`` as a repository.

        Args:
            repo_id: org/name.
            folder: read at each request, including subfolders.
            gated: the list of files is public; downloads require ``token``.
            private: without ``token`` the repository does not exist.
            token: of the account with access.
            revision: latest commit.
            tags: tags that the hub derives from the model card.
            task: ``pipeline_tag``, likewise.
        """
        self.repositories[repo_id] = _Repository(
            folder, gated, private, token, revision, tuple(tags), task
        )
        if token:
            self.tokens.add(token)

    def know(self, token: str) -> None:
        """Register ``token`` for an account without access to gated or private repositories."""
        self.tokens.add(token)

    # Simulated failures

    def cut_after(self, count: int, *, times: int = 1) -> None:
        """Break the connection after ``count`` bytes of a large file, ``times`` times."""
        self.faults.cut, self.faults.cuts_left = count, times

    def delay(self, seconds: float) -> None:
        """Wait before each 2 KB of a large file."""
        self.faults.delay = seconds

    def corrupt(self, name: str) -> None:
        """Send this file with a wrong last byte."""
        self.faults.corrupt.add(name)

    def ignore_ranges(self) -> None:
        """Ignore ranges: send whole files."""
        self.faults.ignore_ranges = True

    def refuse(self, status: int, code: str = "") -> None:
        """Respond to every request with this status and ``X-Error-Code``."""
        self.faults.refusal = (status, code)

    def tell_no_sizes(self) -> None:
        """List only names, like simple mirrors."""
        self.faults.no_sizes = True

    def heal(self) -> None:
        """End all simulated failures."""
        self.faults = _Faults()

    # Received requests

    def fetched(self, ending: str = "") -> list[Asked]:
        """Return the requests for the content of files whose path ends with ``ending``."""
        return [
            asked
            for asked in self.asked
            if asked.method == "GET"
            and asked.path.endswith(ending)
            and (asked.storage or ("/resolve/" in asked.path and not _is_large(asked.path)))
        ]

    def rest(self, seconds: float) -> bool:
        """Wait, and return whether the hub was closed meanwhile."""
        return self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: Hub, *, storage: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.storage = storage

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that closed the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""

    @property
    def _faults(self) -> _Faults:
        return self.server.hub.faults

    def _answer(self) -> None:
        hub, path = self.server.hub, urlsplit(self.path).path
        if hub.rest(0):  # a connection that was kept open
            self.close_connection = True
            return
        credentials = self.headers.get("Authorization", "")
        token = credentials.removeprefix("Bearer ") or None
        hub.asked.append(
            Asked(
                method=self.command,
                path=path,
                range=self.headers.get("Range"),
                token=token,
                storage=self.server.storage,
                agent=self.headers.get("User-Agent", ""),
            )
        )
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or file
        if self._faults.refusal:
            self._refuse(*self._faults.refusal)
        elif self.server.storage and (stored := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path)):
            self._send_content(hub.repositories[stored[1]].folder / stored[2], {})
        elif found is None:
            self._refuse(404)
        elif token is not None and token not in hub.tokens:
            self._refuse(401, message="Invalid credentials in Authorization header")
        else:
            repository = hub.repositories.get(found[1])
            if repository is None or (repository.private and token != repository.token):
                self._refuse(401 if token is None else 404, "RepoNotFound")
            elif found[2] not in (None, "main", repository.revision):
                self._refuse(404, "RevisionNotFound")
            elif api:
                self._send(json.dumps(self._listing(found[1], repository)).encode())
            elif repository.gated and token != repository.token:
                self._refuse(401 if token is None else 403, "GatedRepo")
            else:
                self._send_file(found[1], repository, found[3])

    def _listing(self, repo_id: str, repository: _Repository) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for path in sorted(repository.folder.rglob("*")):
            if not path.is_file():
                continue
            item: dict[str, Any] = {"rfilename": path.relative_to(repository.folder).as_posix()}
            if "blobs" in urlsplit(self.path).query and not self._faults.no_sizes:
                size = path.stat().st_size
                item |= {"size": size, "blobId": _git_sha1(path)}
                if _is_large(path.name):
                    item["lfs"] = {"sha256": _sha256(path), "size": size, "pointerSize": 134}
            siblings.append(item)
        return {
            "_id": "0",
            "id": repo_id,
            "modelId": repo_id,
            "sha": repository.revision,
            "private": repository.private,
            "gated": "auto" if repository.gated else False,
            "tags": list(repository.tags),
            "pipeline_tag": repository.task,
            "siblings": siblings,
        }

    def _send_file(self, repo_id: str, repository: _Repository, name: str) -> None:
        path = repository.folder / name
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": repository.revision}
        if not _is_large(name):
            self._send_content(path, headers | {"ETag": f'"{_git_sha1(path)}"'})
            return
        self.send_response(302)
        headers |= {
            "X-Linked-Etag": f'"{_sha256(path)}"',
            "X-Linked-Size": str(path.stat().st_size),
            "Location": f"{self.server.hub.storage_url}/storage/{repo_id}/{name}",
            "Content-Length": "0",
        }
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _send_content(self, path: Path, headers: dict[str, str]) -> None:
        size, start = path.stat().st_size, 0
        end = size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        ranged = asked is not None and not self._faults.ignore_ranges
        if ranged:
            start = int(asked[1])
            end = min(size, int(asked[2]) + 1) if asked[2] else size
            if start >= size:
                self._refuse(416)
                return
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self.send_response(206 if ranged else 200)
        for key, value in (headers | {"Content-Length": str(end - start)}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send_bytes(path, start, end)

    def _send_bytes(self, path: Path, start: int, end: int) -> None:
        faults, sent = self._faults, 0
        large = self.server.storage
        cut = None
        if large and faults.cut is not None and faults.cuts_left:
            faults.cuts_left -= 1
            cut = faults.cut
        chunk = _CHUNK if large and (faults.delay or cut is not None) else 2**20
        with path.open("rb") as file:
            file.seek(start)
            size = path.stat().st_size
            while block := file.read(min(chunk, end - file.tell())):
                if path.name in faults.corrupt and file.tell() == size:
                    block = block[:-1] + bytes([block[-1] ^ 1])
                if cut is not None and sent + len(block) >= cut:
                    self.wfile.write(block[: cut - sent])
                    self.close_connection = True
                    return
                if self.server.hub.rest(faults.delay if large else 0):
                    self.close_connection = True
                    return
                self.wfile.write(block)
                sent += len(block)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _is_large(name: str) -> bool:
    return name.endswith(_LARGE)


def _sha256(path: Path) -> str:
    return _digest(path, "sha256", path.stat().st_mtime_ns)


def _git_sha1(path: Path) -> str:
    return _digest(path, "sha1", path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, name: str, _changed: int) -> str:
    begin = b"" if name == "sha256" else b"blob %d\0" % path.stat().st_size
    digest = hashlib.new(name, begin)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":  # to try the pages with it: python -m tests.store.hub_server
    import sys

    with Hub() as hub:
        for argument in sys.argv[1:]:
            name, _, where = argument.partition("=")
            hub.add(name, Path(where))
        print(hub.url, flush=True)
        while True:
            time.sleep(3600)
