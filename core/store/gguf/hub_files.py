"""Choose a GGUF file of a repository on a hub by its quantisation, and read its header.

A repository has one model in many quantisations: one file each, or several if it is split. A model
is named by repository and quantisation, ``org/name:Q4_K_M``, or by the file's name without suffix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from core.errors import UnknownModelError
from core.store.gguf.reader import GgufFile, MoreNeeded, joined, parse
from core.store.names import is_model, part_names, quantisation_of, stem_of
from core.units import bytes_text

_FIRST_READ = 2 * 2**20
"""Bytes of a header that are requested at first: enough for a vocabulary of 50,000 tokens."""
_LARGEST_HEADER = 128 * 2**20


@dataclass(frozen=True)
class GgufChoice:
    """One quantisation of the model in a repository."""

    name: str
    """Quantisation; if that is not unique the stem, or else :attr:`path_name`."""
    quantisation: str
    """Quantisation from the name of the file or its folder, or else the stem."""
    stem: str
    """Name of its file without suffix and number of the part."""
    files: tuple[str, ...]
    """Paths in the repository; several if it is split."""
    bytes: int

    @property
    def text(self) -> str:
        """Name and size, for users."""
        return f"{self.name} ({bytes_text(self.bytes)})"

    @property
    def path_name(self) -> str:
        """Names of its folders and stem, as in :func:`core.store.names.hub_name`."""
        return "-".join((*PurePosixPath(self.files[0]).parent.parts, self.stem))


def gguf_choices(sizes: Mapping[str, int]) -> list[GgufChoice]:
    """Return the complete models among the files of a repository, the smallest first.

    Args:
        sizes: bytes by path.
    """
    found: dict[tuple[str, str], tuple[str, ...]] = {}  # by folder and stem
    for name in sorted(sizes):
        path = PurePosixPath(name)
        if path.suffix.lower() != ".gguf" or not is_model(path.name):
            continue
        parts = tuple(str(path.with_name(part)) for part in part_names(path.name))
        if all(part in sizes for part in parts):
            found[str(path.parent), stem_of(path.name)] = parts
    choices = []
    for (folder, stem), parts in found.items():
        name = quantisation_of(stem) or quantisation_of(PurePosixPath(folder).name) or stem
        choices.append(GgufChoice(name, name, stem, parts, sum(sizes[part] for part in parts)))
    counts = Counter(each.name.upper() for each in choices)
    stems = Counter(each.stem for each in choices)
    choices = [
        replace(each, name=each.stem if stems[each.stem] == 1 else each.path_name)
        if counts[each.name.upper()] > 1
        else each
        for each in choices
    ]
    return sorted(choices, key=lambda each: (each.bytes, each.name))


def choose(hub_id: str, selector: str, choices: list[GgufChoice]) -> GgufChoice:
    """Return the choice with this name, path, quantisation or stem.

    Of files in several folders that have both quantisation and stem in common, the first is
    returned if the folder is not named.

    Raises:
        UnknownModelError: there is none; the message lists all with their sizes.
    """
    wanted = selector.lower()
    found = [each for each in choices if wanted in (each.name.lower(), each.path_name.lower())]
    if not found:
        found = [
            each for each in choices if wanted in (each.quantisation.lower(), each.stem.lower())
        ]
        if len({(each.quantisation, each.stem) for each in found}) == 1:
            found = [min(found, key=lambda each: each.files)]
    if len(found) == 1:
        return found[0]
    if not choices:
        raise UnknownModelError(
            f"{hub_id} contains no GGUF file. Enter {hub_id} alone to use its other weights."
        )
    raise UnknownModelError(
        f"{hub_id} has {'several' if found else 'no'} GGUF file{'s' if found else ''} "
        f"{selector[:80]!r}. {choices_text(hub_id, choices)}"
    )


def choices_text(hub_id: str, choices: list[GgufChoice]) -> str:
    """Return a sentence that lists the choices and says how to name one."""
    middle = choices[len(choices) // 2].name
    return f"Choose {', '.join(each.text for each in choices)}, for example as {hub_id}:{middle}."


def read_headers(files: Mapping[str, int], read: Callable[[str, int], bytes]) -> GgufFile:
    """Return the metadata and tensors of a model, without weights, from the beginning of its files.

    Args:
        files: sizes in bytes by name.
        read: returns the first bytes of a file, by name and number.

    Raises:
        CorruptModelError, NotAModelError: see :func:`core.store.gguf.reader.parse`.
    """
    parts = []
    for name, size in files.items():
        wanted, label, part = _FIRST_READ, PurePosixPath(name).name, None
        while part is None:
            wanted = min(wanted, size)
            data = np.frombuffer(read(name, wanted), dtype=np.uint8)
            try:
                part = parse(label, data, size)
            except MoreNeeded:
                if wanted >= min(size, _LARGEST_HEADER):
                    parse(label, data, len(data))  # raises: it is truncated
                wanted *= 4
        parts.append(part)
    return joined(parts)
