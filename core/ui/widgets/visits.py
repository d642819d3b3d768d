"""Visitors and open page connections, shared by the HTTP server and the pages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from streamlit import config, file_util, runtime
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core.remotes.registry import parse_setting
from core.server.connections import Connections
from core.server.paths import SIGN_IN
from core.server.visitor import Visitors
from core.settings import load_settings

if TYPE_CHECKING:
    from core.auth import Accounts

ENDED = f"{SIGN_IN}?ended"
"""Where a page whose session has ended is redirected to."""
first_screen_drawn = threading.Event()
"""Set by the shell after it has drawn a page."""


def accounts() -> Accounts:
    """Return the accounts of the shared engine."""
    from core.ui.widgets.resources import shared_engine

    return shared_engine().accounts


@cache
def visitors() -> Visitors:
    """Return the object that identifies the visitor of each request."""
    settings = load_settings()
    parse_setting(settings.remotes or "")
    return Visitors(accounts, settings, lambda: config.get_option("server.address"))


def page_presence() -> Callable[[], bool]:
    """Return a function that tells whether this page is still connected to a browser.

    It can be called from any thread. Without a server, as in tests, the page is always there.
    """
    context = get_script_run_ctx()
    if context is None or not runtime.exists():
        return lambda: True
    server, session = runtime.get_instance(), context.session_id
    return lambda: server.is_active_session(session)


def redirect_message(where: str = ENDED) -> ForwardMsg:
    """Return a message that redirects a page; by default to sign-in because its session has ended.

    Args:
        where: a relative path from :mod:`core.server.paths`, so that it works below any prefix.
    """
    message = ForwardMsg()
    message.auth_redirect.url = where
    return message


def media_in(message: bytes) -> set[str]:
    """Return the ids of the media files whose URLs are in a message to a page.

    Only fields in which Streamlit itself puts URLs are read, because texts of users and models may
    look like such a URL.
    """
    if b"/media/" not in message:
        return set()
    parsed = ForwardMsg.FromString(message)
    match parsed.WhichOneof("type"):
        case "delta":
            element = parsed.delta.new_element
            urls = [element.download_button.url, *(image.url for image in element.imgs.imgs)]
        case "logo":
            urls = [parsed.logo.image, parsed.logo.icon_image]
        case "page_config_changed":
            urls = [parsed.page_config_changed.favicon]
        case "backend_operation_response":
            urls = [parsed.backend_operation_response.deferred_file.url]
        case _:
            urls = []
    return {Path(url).name.partition(".")[0] for url in urls if url.startswith("/media/")}


connections = Connections(
    accounts, redirect=lambda: redirect_message().SerializeToString(), media_in=media_in
)
"""Open connections of the pages."""


def url_prefix() -> str:
    """Return ``server.baseUrlPath`` with a leading and without a trailing slash."""
    path = (config.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{path}" if path else ""


def index_page() -> Path:
    """Return the path of Streamlit's ``index.html``."""
    return Path(file_util.get_static_dir(), "index.html")
