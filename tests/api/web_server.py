"""The API with a fake model, behind a real web server."""

from __future__ import annotations

import json
import socket
import threading

import httpx
import uvicorn

from tests.api.stand_ins import StandIn, chat
from tests.waiting import PATIENCE_S, eventually

CHAT = "/v1/chat/completions"
BODY = json.dumps(chat()).encode()


class Server:
    """The API on a port of the loopback address, run by uvicorn."""

    def __init__(self) -> None:
        self.stand_in = StandIn()
        config = uvicorn.Config(self.stand_in.app(), port=0, lifespan="off", log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="server", daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        eventually(lambda: self._server.started)
        self._address = self._server.servers[0].sockets[0].getsockname()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"http://{self._address[0]}:{self._address[1]}"

    @property
    def idle(self) -> bool:
        """Whether there are no connections and no requests."""
        state = self._server.server_state
        return not state.connections and not state.tasks

    def begin(self, sent: bytes) -> socket.socket:
        """Announce the whole body, but send only ``sent``."""
        client = socket.create_connection(self._address, timeout=PATIENCE_S)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + sent)
        return client

    def ask(self) -> int:
        """Send a valid request and return its status."""
        return httpx.post(f"{self.url}{CHAT}", json=chat(), timeout=PATIENCE_S).status_code
