"""The app in a process of its own, as it is started by everybody, for measurements from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from core.catalogue import DEFAULT_PRECISION
from core.errors import GenerationError
from core.settings import CHECKOUT, Settings

APP = Path("streamlit_app.py")
ENDLESS_APP = Path("core/endless_app.py")
"""The same app, whose models answer with as many tokens as they are asked for."""
QUESTION = "Suggest three names for a sailing boat."
START_S = 90.0
"""Longest wait for the server, and for anything the page shows before it answers."""


@dataclass(frozen=True)
class Served:
    """Where the app listens, and the process it runs in."""

    url: str
    process: int
    """Its id; the models' processes are children of it."""


@contextmanager
def serving(app: Path, home: Path, port: int | None = None) -> Iterator[Served]:
    """The app on this port, or on one of its own.

    Raises:
        GenerationError: it did not start.
    """
    port = port or free_port()
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PADDOCK_")}
    with tempfile.TemporaryFile() as told:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "streamlit", "run", str(app)),
                *("--server.port", str(port), "--server.headless", "true"),
            ],
            cwd=CHECKOUT,
            env=kept | {"PADDOCK_HOME": str(home), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _await_server(server, url)
            yield Served(url, server.pid)
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def use_once(settings: Settings, key: str) -> None:
    """Have the model answer once, so that it is the last used one of this home folder."""
    subprocess.run(
        [
            *(sys.executable, "-m", "core", "generate", key, QUESTION),
            *("--precision", DEFAULT_PRECISION.value, "--device", "CPU"),
        ],
        cwd=CHECKOUT,
        env=dict(os.environ) | {"PADDOCK_HOME": str(settings.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def forget_libraries() -> int:
    """Ask the system to forget what it has of the libraries' files; how many it was asked for."""
    if not hasattr(os, "posix_fadvise"):
        return 0
    count = 0
    for name in ("streamlit", "openvino", "openvino_genai", "openvino_tokenizers", "tokenizers"):
        spec = find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            for path in Path(place).rglob("*"):
                if path.is_file():
                    descriptor = os.open(path, os.O_RDONLY)
                    try:
                        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    finally:
                        os.close(descriptor)
                    count += 1
    return count


def _await_server(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/healthz"):
            return
        time.sleep(0.02)
    raise GenerationError(
        "The app did not start for the measurement; `streamlit run streamlit_app.py` shows why."
    )
