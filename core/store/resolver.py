"""Resolve a model name to its source: catalogue key, Hugging Face id, local folder or GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path, PurePath

from core.catalogue import (
    DEFAULT_PRECISION,
    EMBEDDED_DIR,
    CatalogueModel,
    Int4Settings,
    Precision,
    catalogue,
    int4_settings,
)
from core.errors import (
    AccessDeniedError,
    CorruptModelError,
    ModelFilesError,
    NotAModelError,
    UnknownModelError,
)
from core.remotes import is_remote
from core.store import checkpoint
from core.store.formats import usual_precision
from core.store.names import hub_name, is_model, part_names, stem_of
from core.store.supported import has_whole_model
from core.store.weights import IR_XML, read_graph

_GGUF_SUFFIX = ".gguf"
_MAX_CHECKED_FILES = 10_000
"""Files and folders that :func:`check_confined` checks; no model has a hundredth of it."""
_UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-]+")


class SourceKind(StrEnum):
    """Kinds of sources of a model."""

    EMBEDDED = "embedded"
    HUB = "hub"
    CHECKPOINT = "checkpoint"
    IR = "ir"
    GGUF = "gguf"


@dataclass(frozen=True)
class Source:
    """A resolved model, which may not be downloaded yet."""

    key: str
    """Name of its folder in the store; safe on every file system."""
    kind: SourceKind
    location: Path | str
    """Folder, file for :attr:`SourceKind.GGUF`, or Hugging Face id for :attr:`SourceKind.HUB`; with
    ``:quantisation`` for a GGUF file on the hub."""
    model: CatalogueModel | None
    """Its row in the catalogue, or None."""
    title: str

    @property
    def name(self) -> str:
        """The model's key for programs; see :func:`name_of`."""
        return name_of(self.key, self.kind, self.location)

    def int4_settings(
        self, precision: Precision = Precision.INT4, parameters: int | None = None
    ) -> Int4Settings:
        """Return the settings of a recipe for this model; see
        :func:`core.catalogue.recipes.int4_settings`."""
        return int4_settings(precision, self.model, self.title, parameters)

    @property
    def is_gguf(self) -> bool:
        """Whether it is a GGUF file, on disk or on the hub."""
        return self.kind is SourceKind.GGUF or (
            self.kind is SourceKind.HUB and ":" in str(self.location)
        )

    @property
    def default_precision(self) -> Precision:
        """Precision if none is specified: for GGUF files as stored, as they are compressed; for an
        OpenVINO model that cannot be converted to the default its own."""
        if self.kind is SourceKind.GGUF:
            from core.store.gguf.summary import summary

            with suppress(ModelFilesError):
                return summary(Path(self.location)).default_precision
        if self.is_gguf:
            return Precision.STORED
        if self.kind is SourceKind.IR:
            with suppress(CorruptModelError):
                return usual_precision(read_graph(Path(self.location) / IR_XML).formats)
        return DEFAULT_PRECISION


_LOCAL: dict[str, Source] = {}
"""Folders and GGUF files resolved in this process, by key, so that a model can be named by its key
before it is stored."""


def name_of(key: str, kind: str, location: Path | str) -> str:
    """Return a model's key for programs, the same in links, records, ``/v1`` and command line.

    It is the catalogue key, the Hugging Face id, or the key from :func:`folder_key`.
    """
    if kind == SourceKind.HUB and key not in catalogue():
        return str(location)
    return key


@lru_cache(maxsize=4096)
def recorded_name(model: str, source: str = "") -> str:
    """Return the key for programs of a model in a record, including records of earlier versions.

    Args:
        model: as in the record: the key, a folder, or the folder's name in the store.
        source: source of its weights, if recorded.
    """
    if model in catalogue() or is_remote(model):
        return model
    for place in (source, model):
        if (path := PurePath(place)).is_absolute():
            return folder_key(path)
    hub_id = source if "/" in source else model
    if "/" not in hub_id:
        return model
    return _row_keys().get(hub_id.lower(), hub_id)


def recorded_title(name: str, title: str) -> str:
    """Return the current title of a recorded model: titles in the catalogue may have changed."""
    row = catalogue().get(name)
    return title if row is None else row.title


@cache
def _row_keys() -> dict[str, str]:
    """Catalogue keys by Hugging Face id in lower case."""
    return {row.hub_id.lower(): key for key, row in catalogue().items() if row.hub_id}


def unique_title(title: str, name: str) -> str:
    """Return a title that differs from other models of the same title: ``tiny (3ce6a9a9)``."""
    return f"{title} ({name.removeprefix(f'{title}-')})"


def local_titles() -> dict[str, str]:
    """Return the titles of the folders and GGUF files resolved in this process, by key."""
    return {key: source.title for key, source in list(_LOCAL.items())}


def path_of(name: str) -> str:
    """Return the path of a folder or GGUF file resolved in this process; other names unchanged."""
    source = _LOCAL.get(name.strip())
    return name if source is None else str(source.location)


def resolve(model: str) -> Source:
    """Find a model by catalogue key, local path or Hugging Face id, in this order.

    Nothing is downloaded. A folder is checked quickly: configuration, tokenizer, presence and
    size of the weights. Of a GGUF file the metadata is read.

    Args:
        model: name as the user typed it. A Hugging Face id of a catalogue row resolves to that
            row, the URL of a model's page on the hub to its id, and the key of a folder or GGUF
            file that was resolved before to that path.

    Raises:
        UnknownModelError: it is none of the three, or a folder with several GGUF files.
        NotAModelError: the path does not contain a supported causal language model.
        CorruptModelError: the file, or one in the folder, is truncated or unreadable.
    """
    name = model.strip()
    if is_remote(name):
        raise UnknownModelError(
            f"{name} is a model of a remote server: it can answer, but it cannot be downloaded, "
            "converted, measured or tuned here. Choose a local model."
        )
    rows = catalogue()
    if name in rows:
        return _from_row(rows[name])
    path = _existing_path(path_of(name))
    if path is not None:
        source = _from_folder(path) if path.is_dir() else _from_gguf(path)
        _LOCAL[source.key] = source
        return source
    found = hub_name(name)
    if found is None:
        _refuse_other_file(name)
        similar = get_close_matches(name.lower(), rows, 2)
        hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
        raise UnknownModelError(
            f"There is no model {name[:80]!r}.{hint} Specify a catalogue key (the Models page and "
            "`python -m core models` list them), a Hugging Face id (org/name), or the path of a "
            "model folder or GGUF file."
        )
    hub_id, quantisation = found
    if quantisation is not None:
        name = f"{hub_id}:{quantisation}"
        key = f"{hub_id.replace('/', '--')}--{quantisation}"
        return Source(key, SourceKind.HUB, name, None, name)
    if row_key := _row_keys().get(hub_id.lower()):
        return _from_row(rows[row_key])
    return Source(hub_id.replace("/", "--"), SourceKind.HUB, hub_id, None, hub_id)


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
    name = name.strip()
    if name in catalogue() or (hub_name(name) is not None and _existing_path(name) is None):
        return
    refusal = AccessDeniedError(
        f"Remote users can only use model folders and GGUF files below {root}. Put the model "
        "there, or enter a catalogue key or a Hugging Face id."
    )
    try:
        outermost = root.resolve()
        folder = Path(name).expanduser().resolve()
        if outermost not in folder.parents or not (folder.is_dir() or is_gguf(folder)):
            raise refusal
        for number, path in enumerate(folder.rglob("*")):
            if number >= _MAX_CHECKED_FILES or outermost not in path.resolve().parents:
                raise refusal
    except (OSError, RuntimeError, ValueError) as error:  # too long, NUL, circular links
        raise refusal from error


def _from_row(row: CatalogueModel) -> Source:
    if row.hub_id is None:
        return Source(row.key, SourceKind.EMBEDDED, EMBEDDED_DIR / row.key, row, row.title)
    packaged = package_file(row)
    if packaged is not None:
        return Source(row.key, SourceKind.GGUF, packaged, row, row.title)
    return Source(row.key, SourceKind.HUB, row.hub_id, row, row.title)


def package_file(row: CatalogueModel) -> Path | None:
    """Return the GGUF file of a row in its Python package, or None if that is not installed.

    The package is located without importing it, so none of its code runs.
    """
    if row.package is None:
        return None
    name, _, rest = row.package.file.partition("/")
    try:
        found = importlib.util.find_spec(name)
        for folder in (found.submodule_search_locations or ()) if found else ():
            path = Path(folder) / rest
            if path.is_file() and path.stat().st_size == row.package.bytes:
                return path
    except (ImportError, ValueError, OSError):
        pass
    return None


def several_gguf_files(name: str) -> list[Path]:
    """Return the files to choose from if the name is a folder with several GGUF files."""
    folder = _existing_path(name.strip())
    files = _gguf_files(folder) if folder is not None and folder.is_dir() else []
    return files if len(files) > 1 else []


def _gguf_files(folder: Path) -> list[Path]:
    """Return the GGUF models of a folder by name, of a split model the first; none if the folder
    contains a checkpoint or an IR."""
    try:
        paths = [path for path in folder.iterdir() if path.is_file()]
    except OSError:  # not readable: the caller reports it when it reads the folder
        return []
    if has_whole_model(path.name for path in paths):
        return []
    files = [path for path in paths if is_gguf(path)]
    # A model may have "lora" in its name, too; what is none is told when it is read.
    files = [path for path in files if is_model(path.name)] or files
    return sorted(path for path in files if path.name == part_names(path.name)[0])


def is_gguf(path: Path) -> bool:
    """Return whether a path is a file with the suffix ``.gguf``."""
    return path.suffix.lower() == _GGUF_SUFFIX and path.is_file()


def _existing_path(name: str) -> Path | None:
    """Return the path if it is a folder or GGUF file, else None, also for invalid paths."""
    if not name or "\0" in name:
        return None
    try:
        path = Path(name).expanduser()
        if is_gguf(path):  # the file itself may be a link to one without the suffix
            return path.parent.resolve() / path.name
        path = path.resolve()
        return path if path.is_dir() else None
    except (OSError, RuntimeError, UnicodeError):
        return None


def _from_gguf(path: Path) -> Source:
    from core.store.gguf.summary import summary

    path = path.with_name(part_names(path.name)[0])
    summary(path)
    return Source(folder_key(path), SourceKind.GGUF, path, None, stem_of(path.name))


def _snapshot(folder: Path) -> Path:
    """Return the current snapshot if this is the folder of a model in Hugging Face's cache."""
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        snapshot = folder / "snapshots" / revision
        return snapshot if re.fullmatch(r"[0-9a-f]{40}", revision) and snapshot.is_dir() else folder
    except (OSError, ValueError):
        return folder


def _refuse_other_file(name: str) -> None:
    """Raise NotAModelError if the name is that of an existing file."""
    with suppress(OSError, RuntimeError, ValueError):
        path = Path(name).expanduser()
        if path.is_file():
            raise NotAModelError(
                f"{path} is not a GGUF file (their names end in .gguf). Specify the model's "
                "folder, or a GGUF file."
            )


def _from_folder(folder: Path) -> Source:
    folder = _snapshot(folder)
    files = _gguf_files(folder)
    if len(files) == 1:
        return _from_gguf(files[0])
    if files:
        raise UnknownModelError(
            f"{folder} contains several GGUF files ({', '.join(file.name for file in files)}). "
            "Specify the path of one of them."
        )
    kind = SourceKind.IR if checkpoint.is_ir(folder) else SourceKind.CHECKPOINT
    if kind is SourceKind.IR:
        checkpoint.check_folder(folder)
    else:
        checkpoint.inspect_checkpoint(folder)
    return Source(folder_key(folder), kind, folder, None, folder.name)


def folder_key(folder: PurePath) -> str:
    """Return the key of a model by the absolute path of its folder or GGUF file.

    The path may be of another machine and operating system.
    """
    digest = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    name = folder.stem if folder.suffix.lower() == _GGUF_SUFFIX else folder.name
    safe = _UNSAFE_IN_NAMES.sub("-", name).strip("-")[:64] or "model"
    return f"{safe}-{digest}"
