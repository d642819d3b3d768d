"""File helpers of the store: checksums, fingerprints, sizes, free space."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from functools import lru_cache
from pathlib import Path

from core.errors import ModelBusyError, ModelFilesError
from core.store import checkpoint
from core.store.names import part_names
from core.store.resolver import Source, SourceKind
from core.store.supported import needed_files
from core.units import bytes_text


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_VERSION = "3:"
_WEIGHTS = (".safetensors", ".bin", ".gguf")
"""Too large to be read each time."""


def fingerprint(source: Source) -> str | None:
    """Return a value that changes when a file of a local source changes that a conversion reads.

    Small files count by their content, weights by size and time.

    Returns None for models of the hub, and for a folder that is missing or cannot be read: models
    converted from it remain valid.
    """
    folder = Path(source.location)
    try:
        if source.kind is SourceKind.HUB:
            return None
        if source.model is not None and source.model.package is not None:
            return _VERSION + source.model.package.sha256  # wherever it is installed
        if source.kind is SourceKind.GGUF:
            paths = [folder.with_name(name) for name in part_names(folder.name)]
        else:
            paths = [folder / name for name in needed_files(checkpoint.model_files(folder))]
        digest = hashlib.sha256()
        for path in paths:
            state = path.stat()
            text = f"{path.name} {state.st_size} {state.st_mtime_ns}"
            # A checkout changes the times of embedded weights.
            if path.suffix not in _WEIGHTS or source.kind is SourceKind.EMBEDDED:
                times = state.st_mtime_ns, state.st_ctime_ns  # not every editor changes the first
                text = f"{path.name} {_cached_sha256(path, state.st_size, times)}"
            digest.update(f"{text}\n".encode("utf-8", "surrogateescape"))
    except (OSError, ModelFilesError):
        return None
    return _VERSION + digest.hexdigest() if paths else None


def has_changed(source: Source, recorded: str | None) -> bool:
    """Return whether a local source has changed since its fingerprint was recorded."""
    if recorded and not recorded.startswith(_VERSION):  # by an earlier version of Paddock
        return False
    return fingerprint(source) not in (None, recorded)


@lru_cache(maxsize=1024)
def _cached_sha256(path: Path, _size: int, _times_ns: tuple[int, int]) -> str:
    return sha256(path)


def folder_bytes(folder: Path) -> int:
    """Return the total size in bytes of all files below ``folder``, 0 if it does not exist.

    Files that are removed meanwhile are skipped.
    """
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
        except OSError:
            continue
    return total


def remove_folder(folder: Path, what: str) -> int:
    """Remove a folder and its content, and return the bytes freed.

    Args:
        what: its content, for the error message: "random weights".

    Raises:
        ModelBusyError: a file cannot be removed.
    """
    before = folder_bytes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    left = folder_bytes(folder)
    if left:
        raise ModelBusyError(
            f"Some {what} in {folder} could not be removed ({bytes_text(left)}). Close the "
            "programs that use them and try again."
        )
    return before


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk where ``folder`` is or would be created."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def has_no_space(error: BaseException | None) -> bool:
    """Return whether an error was caused by a full disk or quota.

    Checks the causes of the error too, and the texts of libraries that raise no ``OSError``.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC).lower() in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False
