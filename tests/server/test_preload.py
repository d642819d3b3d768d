"""The script in Streamlit's page: where it is inserted, and where it is not."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from core.server.preload import PreloadMiddleware
from core.ui.widgets import scripts

PAGE = "<html><head><title>é</title></head><body>No second </head> here</body></html>"
BROWSER = {"accept": "text/html,*/*;q=0.8"}


@pytest.fixture
def client(tmp_path) -> TestClient:
    (tmp_path / "index.html").write_text(PAGE, encoding="utf-8")

    def page(request: Request) -> Response:
        return FileResponse(tmp_path / "index.html")

    def form(request: Request) -> Response:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": "default-src 'none'"})

    def lost(request: Request) -> Response:
        return HTMLResponse(PAGE, 404)

    def text(request: Request) -> Response:
        return PlainTextResponse(f"{request.headers.get('accept-encoding')} {PAGE}")

    routes = [Route(f"/{each.__name__}", each) for each in (page, form, lost, text)]
    return TestClient(
        Starlette(routes=routes, middleware=[Middleware(PreloadMiddleware, script="let a;")])
    )


def test_script_is_inserted_once_and_the_content_length_is_correct(client: TestClient) -> None:
    answer = client.get("/page", headers=BROWSER)
    assert answer.text == PAGE.replace("</head>", "<script>let a;</script></head>", 1)
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert not {"etag", "last-modified"} & set(answer.headers), "the response differs from the file"


@pytest.mark.parametrize("path", ["/form", "/lost", "/text"])
def test_other_responses_are_unchanged(client: TestClient, path: str) -> None:
    assert "<script>" not in client.get(path, headers=BROWSER).text


def test_requests_that_do_not_accept_html_are_unchanged(client: TestClient) -> None:
    assert client.get("/page", headers={"accept": "application/json"}).text == PAGE
    packed = client.get("/text", headers={"accept": "*/*", "accept-encoding": "br"})
    assert packed.text.startswith("br ")
    assert not client.head("/page", headers=BROWSER).content


def test_script_exists_for_this_streamlit_and_is_in_the_policy() -> None:
    assert "PlotlyChart." in scripts.LOAD_CHARTS
    assert scripts.LOAD_CHARTS in scripts.ALL
    assert not scripts._preload("NoSuchPartOfIt")
