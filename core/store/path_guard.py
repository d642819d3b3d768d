"""Restrict the paths that remote users may name to one folder."""

from __future__ import annotations

from pathlib import Path

from core.errors import AccessDeniedError
from core.store.resolver import is_catalogue_or_hub_name, is_gguf

MOST_FILES = 10_000
"""Files and folders of a model that are checked; no model has a hundredth of it."""


def check_confined(name: str, root: Path) -> None:
    """Refuse a path outside ``root``; catalogue keys and Hugging Face ids are allowed.

    The error is the same for a path that is not allowed and one that does not exist, so that it
    reveals nothing about the file system.

    Args:
        name: the model as the user typed it.
        root: folder that must contain the model's folder.

    Raises:
        AccessDeniedError: the path is outside ``root``, or contains a link to a path outside.
    """
    if is_catalogue_or_hub_name(name):
        return
    refusal = AccessDeniedError(
        f"Remote users can only use model folders and GGUF files below {root}. Put the model "
        "there, or enter a catalogue key or a Hugging Face id."
    )
    try:
        outermost = root.resolve()
        folder = Path(name.strip()).expanduser().resolve()
        if outermost not in folder.parents or not (folder.is_dir() or is_gguf(folder)):
            raise refusal
        for number, path in enumerate(folder.rglob("*")):
            if number >= MOST_FILES or outermost not in path.resolve().parents:
                raise refusal
    except (OSError, RuntimeError, ValueError) as error:  # too long, NUL, circular links
        raise refusal from error
