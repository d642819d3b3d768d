"""Runs the app in its own process, as users start it, for measurements from outside."""

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

QUESTION = "Suggest three names for a sailing boat."
START_S = 90.0
"""Timeout for the start of the server, and for elements of the page before an answer."""
FORCED_TOKENS = 960
"""Fits the context length of the tiny demo models, together with a prompt."""
MIDDLE_TOKENS = 200
"""The same for the 410 M shape."""
ROUNDS = 5
"""Answers of each kind, after a first one that is not counted."""


@dataclass(frozen=True)
class Served:
    """Address and process of a running app."""

    url: str
    process: int
    """Process id; the models' processes are its children."""


@contextmanager
def serving(home: Path, port: int | None = None, *, endless: bool = False) -> Iterator[Served]:
    """Run the app on this port, or on a free one.

    Args:
        endless: whether models always generate the requested number of tokens.

    Raises:
        GenerationError: the app did not start.
    """
    port = port or free_port()
    streamlit = "core.benchmark.speed.endless" if endless else "streamlit"
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PADDOCK_")}
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", streamlit, "run", "streamlit_app.py"),
                *("--server.port", str(port), "--server.headless", "true"),
            ],
            cwd=CHECKOUT,
            env=kept | {"PADDOCK_HOME": str(home), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
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
    """Return a port that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def generate_once(settings: Settings, key: str) -> None:
    """Run the model once, so that it is the last used one of this home folder."""
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


def evict_libraries() -> int:
    """Remove the libraries' files from the operating system's cache; return the number of files."""
    if not hasattr(os, "posix_fadvise"):
        return 0
    count = 0
    for name in ("streamlit", "openvino", "openvino_genai", "openvino_tokenizers", "tokenizers"):
        spec = find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in Path(folder).rglob("*"):
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
        "The app did not start for the measurement. Run `streamlit run streamlit_app.py` to see "
        "why."
    )
