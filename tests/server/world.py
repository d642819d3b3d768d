"""The middleware and forms around a fake page, in this process, with cheap hashing."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from core.server.connections import Connections
from core.server.cross_site import CrossSiteMiddleware
from core.server.headers import SecurityHeaders
from core.server.middleware import AuthMiddleware
from core.server.routes import FormPages
from core.server.visitor import Visitors
from tests.auth.samples import GOOD, World

HERE = "http://localhost:8501"
ELSEWHERE = "http://paddock.example"
CSRF_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
_ERROR = re.compile(r'<p class="(?:box )?error"[^>]*>(.*?)</p>')


class Site(World):
    """A server with middleware and forms; its page records that it ran."""

    def __init__(self, home: Path, loop: BlockingPortal, **settings: Any) -> None:
        super().__init__(home, **settings)
        self.loop = loop
        self.ran: list[str] = []
        """Paths that reached the page."""
        self.stopped: list[str] = []
        """Accounts whose answers were stopped."""
        self.headers: dict[str, str] = {}
        """Headers of the latest websocket, as the page sees them."""
        self.visitors = Visitors(lambda: self.accounts, self.settings, lambda: "127.0.0.1")
        self.connections = Connections(
            lambda: self.accounts, redirect=lambda: b"redirect", media_in=self._media_in
        )
        self.pages = FormPages(
            lambda: self.visitors,
            lambda: self.accounts,
            lambda: self.settings,
            on_sessions_ended=self.connections.check_now,
            before_deletion=self.stopped.append,
        )
        self.app = Starlette(
            routes=[
                *self.pages.routes(),
                Route("/healthz", self._page),
                WebSocketRoute("/_stcore/stream", self._stream),
                Route("/{path:path}", self._page, methods=["GET", "POST", "PUT", "DELETE"]),
            ],
            middleware=[
                Middleware(SecurityHeaders, policy="default-src 'self'"),
                Middleware(CrossSiteMiddleware),
                Middleware(
                    AuthMiddleware, visitors=lambda: self.visitors, connections=self.connections
                ),
            ],
        )

    def browser(self, base: str = HERE, peer: str = "127.0.0.1", **headers: str) -> Browser:
        """A browser at this address that requests this host."""
        return Browser(self, base, peer, headers)

    def person(self, name: str = "Ada", base: str = ELSEWHERE) -> Browser:
        """A browser in which a user is signed in; the account is created if needed."""
        if self.accounts.find(name) is None:
            self.accounts.register(name, GOOD, self.browser().client_facts)
        browser = self.browser(base)
        assert browser.sign_in(name).status_code == 303
        return browser

    @staticmethod
    def _media_in(message: bytes) -> list[str]:
        return re.findall(r"(?<=^give:)\w+$", message.decode("latin-1"))

    async def _page(self, request: Request) -> Response:
        self.ran.append(request.url.path)
        return PlainTextResponse("the page")

    async def _stream(self, websocket: WebSocket) -> None:
        self.headers = dict(websocket.headers)
        self.ran.append("stream")
        await websocket.accept()
        try:
            while True:
                await websocket.send_bytes(await websocket.receive_bytes())
        except WebSocketDisconnect:
            self.ran.append("disconnected")


class Browser:
    """Keeps cookies, and submits forms as a browser does."""

    def __init__(self, site: Site, base: str, peer: str, headers: dict[str, str]) -> None:
        self.site = site
        self.base = base
        self.http = TestClient(
            site.app,
            base_url=base,
            headers={"user-agent": "Browser 1.0", "accept": "text/html,*/*", **headers},
            follow_redirects=False,
            client=(peer, 50_000),
        )
        self.http.portal = site.loop

    @property
    def client_facts(self) -> Any:
        from core.auth import Client

        return Client("127.0.0.1", "Browser 1.0")

    @property
    def cookies(self) -> dict[str, str]:
        """Its cookies by name."""
        return {cookie.name: cookie.value or "" for cookie in self.http.cookies.jar}

    @property
    def token(self) -> str:
        """The session token."""
        return self.cookies.get("paddock_session") or self.cookies["__Host-paddock_session"]

    def get(self, path: str, **options: Any) -> Any:
        """Open a page."""
        return self.http.get(f"/{path}", **options)

    def stream(self, path: str = "_stcore/stream", **headers: str) -> Any:
        """Open the websocket of a page."""
        base = self.base.replace("http", "ws", 1)
        return self.http.websocket_connect(f"{base}/{path}", headers=headers)

    def csrf_token(self, form: str) -> str:
        """Open a form and return its CSRF token."""
        found = CSRF_TOKEN.search(self.get(form).text)
        assert found, f"{form} has no form"
        return found[1]

    def send(self, form: str, headers: dict[str, str] | None = None, **fields: str) -> Any:
        """Open a form, fill it in and send it."""
        data = {"csrf_token": self.csrf_token(form)} | fields
        return self.http.post(f"/{form}", data=data, headers=headers)

    def sign_in(self, name: str, password: str = GOOD) -> Any:
        """Submit the sign-in form."""
        return self.send("sign-in", name=name, password=password)


def errors(answer: Any) -> list[str]:
    """The errors in a form."""
    return [unescape(text) for text in _ERROR.findall(answer.text)]
