"""Where a model comes from: catalogue key, Hugging Face id, local folder or GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path, PurePath

from core.catalogue import DEFAULT_PRECISION, EMBEDDED_DIR, CatalogueModel, Precision, catalogue
from core.errors import UnknownModelError
from core.remotes import is_remote
from core.store import checkpoint

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95}", re.ASCII)
_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+?)(?:/tree/main)?/?", re.ASCII
)
"""Address of a model's page, as copied from a browser."""
_GGUF_SUFFIX = ".gguf"
_UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-]+")


class SourceKind(StrEnum):
    """The places a model can come from."""

    EMBEDDED = "embedded"
    HUB = "hub"
    CHECKPOINT = "checkpoint"
    IR = "ir"
    GGUF = "gguf"


@dataclass(frozen=True)
class Source:
    """A model that has been found, though perhaps not fetched."""

    key: str
    """Name of its folder in the store; safe on every file system."""
    kind: SourceKind
    location: Path | str
    """Folder, file for :attr:`SourceKind.GGUF`, or Hugging Face id for :attr:`SourceKind.HUB`."""
    model: CatalogueModel | None
    """Its row in the catalogue, where it has one."""
    title: str

    @property
    def name(self) -> str:
        """The model's key for programs; see :func:`name_of`."""
        return name_of(self.key, self.kind, self.location)

    @property
    def default_precision(self) -> Precision:
        """What it is used in where nobody chose: a GGUF file's weights are compressed already."""
        return Precision.STORED if self.kind is SourceKind.GGUF else DEFAULT_PRECISION


_LOCAL: dict[str, Source] = {}
"""Folders and GGUF files that were resolved in this process, by key: a model is named by its key
before anything of it is stored."""


def name_of(key: str, kind: str, location: Path | str) -> str:
    """A model's key for programs, the same in links, records, ``/v1`` and on the command line:
    that of the catalogue, the id at the hub, or the one that :func:`folder_key` gives."""
    if kind == SourceKind.HUB and key not in catalogue():
        return str(location)
    return key


@lru_cache(maxsize=4096)
def recorded_name(model: str, source: str = "") -> str:
    """The key for programs of a model in a record, which may be of an earlier version.

    Args:
        model: as the record names it: the key, a folder, or the folder's name in the store.
        source: where its weights came from, where the record tells.
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
    """What people call a recorded model now: a row's title may be another than it was then.

    Args:
        name: as :func:`recorded_name` gives it.
        title: as the record has it.
    """
    row = catalogue().get(name)
    return title if row is None else row.title


@cache
def _row_keys() -> dict[str, str]:
    """Keys of the catalogue's rows by their ids at the hub in lower case."""
    return {row.hub_id.lower(): key for key, row in catalogue().items() if row.hub_id}


def marked_title(title: str, name: str) -> str:
    """A title with what tells the model from others of that title: ``tiny (3ce6a9a9)``."""
    return f"{title} ({name.removeprefix(f'{title}-')})"


def local_titles() -> dict[str, str]:
    """Titles of the folders and GGUF files that were resolved in this process, by key."""
    return {key: source.title for key, source in list(_LOCAL.items())}


def path_of(name: str) -> str:
    """The folder or GGUF file that a key stands for in this process; any other name as it is."""
    source = _LOCAL.get(name.strip())
    return name if source is None else str(source.location)


def resolve(model: str) -> Source:
    """Find a model by catalogue key, local path or Hugging Face id, in this order.

    Nothing is fetched. A folder is looked into, cheaply: configuration, tokenizer, presence and
    length of the weights; of a GGUF file the metadata is read.

    Args:
        model: what the person typed; a Hugging Face id of a catalogue row means that row, the
            address of a model's page at the hub means its id, and the key of a folder or GGUF
            file that was resolved before means that.

    Raises:
        UnknownModelError: it is none of the three, or a folder of several GGUF files.
        NotAModelError: the path does not hold a causal language model that can be used.
        CorruptModelError: the file, or one in the folder, is cut off or unreadable.
    """
    name = model.strip()
    if is_remote(name):
        raise UnknownModelError(
            f"{name} is a model of a server elsewhere: it can answer, but it cannot be fetched, "
            "converted, measured or tuned here."
        )
    rows = catalogue()
    if name in rows:
        return _from_row(rows[name])
    path = _existing_path(path_of(name))
    if path is not None:
        return _local(path)
    page = _PAGE.fullmatch(name)
    name = page[1] if page else name
    if not _HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise UnknownModelError(
            f"There is no model {_shortened(name)!r}: give a catalogue key "
            f"({', '.join(rows)}), a Hugging Face id (org/name), or the path of a model folder or "
            "GGUF file."
        )
    if row_key := _row_keys().get(name.lower()):
        return _from_row(rows[row_key])
    return Source(name.replace("/", "--"), SourceKind.HUB, name, None, name)


def is_catalogue_or_hub_name(model: str) -> bool:
    """Whether :func:`resolve` looks at no path of this machine for a name."""
    name = model.strip()
    if name in catalogue():
        return True
    page = _PAGE.fullmatch(name)
    name = page[1] if page else name
    return bool(_HUB_ID.fullmatch(name)) and ".." not in name and _existing_path(name) is None


def _from_row(row: CatalogueModel) -> Source:
    if row.hub_id is None:
        return Source(row.key, SourceKind.EMBEDDED, EMBEDDED_DIR / row.key, row, row.title)
    packaged = package_file(row)
    if packaged is not None:
        return Source(row.key, SourceKind.GGUF, packaged, row, row.title)
    return Source(row.key, SourceKind.HUB, row.hub_id, row, row.title)


def package_file(row: CatalogueModel) -> Path | None:
    """The GGUF file of a row in its Python package, or None where that is not installed.

    The package is looked for and not imported: none of its code runs.
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
    """The files to choose from where a name is that of a folder of GGUF files; else empty."""
    folder = _existing_path(name.strip())
    files = _gguf_files(folder) if folder is not None and folder.is_dir() else []
    return files if len(files) > 1 else []


def _gguf_files(folder: Path) -> list[Path]:
    """The GGUF files of a folder by name; empty where it holds a checkpoint or an IR."""
    try:
        if (folder / "config.json").is_file():
            return []
        return sorted(path for path in folder.iterdir() if is_gguf(path))
    except OSError:  # it may not be read: whoever looks into it next says so
        return []


def is_gguf(path: Path) -> bool:
    """Whether a path is a file whose name says GGUF."""
    return path.suffix.lower() == _GGUF_SUFFIX and path.is_file()


def _existing_path(name: str) -> Path | None:
    """The folder or GGUF file of that name, or None; a name no file system can hold is neither."""
    if not name or "\0" in name:
        return None
    try:
        path = Path(name).expanduser().resolve()
        return path if path.is_dir() or is_gguf(path) else None
    except (OSError, RuntimeError, UnicodeError):
        return None


def _local(path: Path) -> Source:
    source = _from_folder(path) if path.is_dir() else _from_gguf(path)
    _LOCAL[source.key] = source
    return source


def _from_gguf(path: Path) -> Source:
    from core.store.gguf.reader import summary

    summary(path)
    return Source(folder_key(path), SourceKind.GGUF, path, None, path.stem)


def _from_folder(folder: Path) -> Source:
    files = _gguf_files(folder)
    if len(files) == 1:
        return _from_gguf(files[0])
    if files:
        raise UnknownModelError(
            f"{folder} holds several GGUF files ({', '.join(file.name for file in files)}); give "
            "the path of one."
        )
    kind = SourceKind.IR if checkpoint.is_ir(folder) else SourceKind.CHECKPOINT
    if kind is SourceKind.IR:
        checkpoint.check_folder(folder)
    else:
        checkpoint.inspect_checkpoint(folder)
    return Source(folder_key(folder), kind, folder, None, folder.name)


def folder_key(folder: PurePath) -> str:
    """Key of the model in an absolute folder or GGUF file, on whatever machine that is."""
    digest = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    name = folder.stem if folder.suffix.lower() == _GGUF_SUFFIX else folder.name
    safe = _UNSAFE_IN_NAMES.sub("-", name).strip("-")[:64] or "model"
    return f"{safe}-{digest}"


def _shortened(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}…"
