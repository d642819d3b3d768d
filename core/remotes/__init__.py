"""Remote servers with an OpenAI-compatible API: addresses, API keys, model lists and requests."""

# ruff: noqa: F401  names for other packages

from core.remotes.address import MARK, is_remote, model_name, split_name
from core.remotes.models import Directory, Listing
from core.remotes.registry import Remote, RemoteRegistry
