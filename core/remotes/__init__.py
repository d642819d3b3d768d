"""Servers elsewhere that speak OpenAI's protocol: their addresses, keys and lists of models."""

from core.remotes.address import MARK, RemoteModelName, is_remote, model_name, split_name
from core.remotes.book import Remote, RemoteBook
from core.remotes.directory import Directory, Listing

__all__ = [
    "MARK",
    "Directory",
    "Listing",
    "Remote",
    "RemoteBook",
    "RemoteModelName",
    "is_remote",
    "model_name",
    "split_name",
]
