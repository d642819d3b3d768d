"""Remote servers with an OpenAI-compatible API: addresses, API keys, model lists and requests."""

from core.remotes.address import MARK, RemoteModelName, is_remote, model_name, split_name
from core.remotes.models import Directory, Listing
from core.remotes.registry import Remote, RemoteRegistry

__all__ = [
    "MARK",
    "Directory",
    "Listing",
    "Remote",
    "RemoteModelName",
    "RemoteRegistry",
    "is_remote",
    "model_name",
    "split_name",
]
