"""File helpers of the store: checksums, fingerprints, sizes, free space."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from functools import lru_cache
from pathlib import Path

from core.errors import ModelBusyError
from core.store.resolver import Source, SourceKind
from core.store.weights import IR_BIN
from core.units import bytes_text


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(source: Source) -> str | None:
    """Return a value that changes when the weights of a local source change.

    Returns None for models of the hub, and for a folder that is missing or cannot be read: models
    converted from it remain valid.
    """
    if source.kind is SourceKind.HUB:
        return None
    try:
        return _local_fingerprint(source)
    except OSError:
        return None


def _local_fingerprint(source: Source) -> str | None:
    folder = Path(source.location)
    if source.kind is SourceKind.GGUF:
        package = source.model.package if source.model else None
        if package is not None:
            return package.sha256  # does not depend on where or how often it is installed
        state = folder.stat()
        text = f"{folder.name} {state.st_size} {state.st_mtime_ns}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    if source.kind is SourceKind.EMBEDDED:
        weights = folder / "model.safetensors"
        if not weights.is_file():
            return None
        state = weights.stat()
        return _cached_sha256(weights, state.st_size, state.st_mtime_ns)
    digest = hashlib.sha256()
    names = ("*.safetensors", "pytorch_model*.bin", IR_BIN, "config.json", "tokenizer*")
    paths = sorted({path for name in names for path in folder.glob(name)})
    for path in paths:
        state = path.stat()
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest() if paths else None


@lru_cache(maxsize=32)
def _cached_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
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
        folder: the folder.
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
