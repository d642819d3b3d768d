"""Keeps the paths of people who do not sit at the machine within one folder."""

from __future__ import annotations

from pathlib import Path

from core.errors import AccessDeniedError
from core.store.resolver import is_catalogue_or_hub_name, is_gguf

MOST_FILES = 10_000
"""Files and folders of a model that are looked at; no model has a hundredth of it."""


def check_confined(name: str, root: Path) -> None:
    """Refuse what would lead out of ``root``: a catalogue key or a hub's name may pass.

    What is refused and what is not there are told apart by nothing that is said.

    Args:
        name: what a person typed for a model.
        root: the folder below which model folders are taken from.

    Raises:
        AccessDeniedError: it is a path to somewhere else, or one with a link to somewhere else.
    """
    if is_catalogue_or_hub_name(name):
        return
    refusal = AccessDeniedError(
        f"From elsewhere than the machine itself, model folders and GGUF files are taken from "
        f"{root} only; put them there, or give a catalogue key or a Hugging Face id."
    )
    try:
        outermost = root.resolve()
        folder = Path(name.strip()).expanduser().resolve()
        if outermost not in folder.parents or not (folder.is_dir() or is_gguf(folder)):
            raise refusal
        for number, path in enumerate(folder.rglob("*")):
            if number >= MOST_FILES or outermost not in path.resolve().parents:
                raise refusal
    except (OSError, RuntimeError, ValueError) as error:  # too long, NUL, a loop of links
        raise refusal from error
