"""Who visits this server, and the pages that are open: shared by the server and the pages."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from streamlit import config, file_util
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from core.remotes.registry import parse_setting
from core.server.connections import Connections
from core.server.paths import SIGN_IN
from core.server.visitor import Visitors
from core.settings import load_settings

if TYPE_CHECKING:
    from core.auth import Accounts

first_screen_drawn = threading.Event()
"""Set by the shell once it has drawn a page."""


def accounts() -> Accounts:
    """The accounts of the shared engine."""
    from core.ui.widgets.resources import shared_engine

    return shared_engine().accounts


@cache
def visitors() -> Visitors:
    """Tells who visits this server.

    Raises:
        PersonMistake: a setting holds what it cannot.
    """
    settings = load_settings()
    parse_setting(settings.remotes or "")
    return Visitors(accounts, settings, lambda: config.get_option("server.address"))


def redirect_message(where: str = f"{SIGN_IN}?ended") -> ForwardMsg:
    """Tells a page in the browser to go elsewhere; by default its session has ended.

    Args:
        where: one of :mod:`core.server.paths`, relative, so that it holds below any prefix.
    """
    message = ForwardMsg()
    message.auth_redirect.url = where
    return message


def media_in(message: bytes) -> set[str]:
    """Ids of the media files whose address a message to a page holds.

    Only the fields are read in which Streamlit itself puts addresses: what people and models write
    may look like one.
    """
    if b"/media/" not in message:
        return set()
    said = ForwardMsg.FromString(message)
    match said.WhichOneof("type"):
        case "delta":
            element = said.delta.new_element
            urls = [element.download_button.url, *(image.url for image in element.imgs.imgs)]
        case "logo":
            urls = [said.logo.image, said.logo.icon_image]
        case "page_config_changed":
            urls = [said.page_config_changed.favicon]
        case "backend_operation_response":
            urls = [said.backend_operation_response.deferred_file.url]
        case _:
            urls = []
    return {Path(url).name.partition(".")[0] for url in urls if url.startswith("/media/")}


connections = Connections(
    accounts, redirect=lambda: redirect_message().SerializeToString(), media_in=media_in
)
"""The pages that are open."""


def url_prefix() -> str:
    """``server.baseUrlPath``, with a slash before and none behind."""
    path = (config.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{path}" if path else ""


def index_page() -> Path:
    """Streamlit's own page, into which everything is drawn."""
    return Path(file_util.get_static_dir(), "index.html")
