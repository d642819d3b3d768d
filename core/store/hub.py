"""List a model's files on a Hugging Face hub, and download those that are needed.

A complete download is not requested again, so a downloaded model works without a network. The
user's own setup of ``huggingface_hub`` (a stored token, a cache) is not used: a call only uses the
:class:`HubAccess` it is given.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from core.catalogue import Precision
from core.errors import DiskFullError, UnknownModelError, UserError
from core.store.download import Meter, fetch_file
from core.store.files import free_bytes
from core.store.gguf.hub_files import GgufChoice
from core.store.hub_errors import offline_error, readable_errors
from core.store.hub_listing import HubModel, Repository, list_files, read_content, request_headers
from core.store.progress import Progress, ProgressCallback, Stage
from core.store.weights import IR_XML, WeightReport, read_graph

COMPLETE_MARK = "paddock-download.json"
"""Written last; contains the revision and the file sizes of a complete download."""

_LARGEST_XML = 256 * 2**20

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".xml", ".index.json", ".part")

READY_PUBLISHER = "OpenVINO"

_YES = frozenset({"1", "ON", "YES", "TRUE"})
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class HubAccess:
    """Token, endpoint and offline mode for requests to a hub."""

    token: str | None = field(default=None, repr=False)
    """Never logged, shown or stored."""
    endpoint: str | None = None
    """URL of a mirror or private hub; None for huggingface.co."""
    offline: bool = False
    """Send no requests."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", (self.token or "").strip() or None)
        object.__setattr__(self, "endpoint", (self.endpoint or "").strip().rstrip("/") or None)

    @classmethod
    def from_environment(cls) -> HubAccess:
        """Read ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE``."""
        return cls(
            token=os.environ.get("HF_TOKEN"),
            endpoint=os.environ.get("HF_ENDPOINT"),
            offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES,
        )


def describe(hub_id: str, access: HubAccess | None = None) -> HubModel:
    """List the files of ``hub_id`` on the hub and read its ``config.json``; download nothing else.

    Args:
        hub_id: org/name, or org/name:quantisation for a GGUF file.

    Raises:
        UnknownModelError: the model does not exist on the hub, or is not visible to this user; or a
            GGUF file must be chosen.
        GatedModelError: the token is not accepted.
        NotAModelError, CorruptModelError: see :func:`core.store.supported.check_supported`.
        HubError: no network, offline, or the hub failed.
        UserError: the token or the endpoint is not valid.
    """
    access = _checked(hub_id, access)
    with readable_errors(hub_id, access):
        found = list_files(hub_id, access)
        return replace(found, ir=_read_ir(found, access))


def gguf_files(hub_id: str, access: HubAccess | None = None) -> list[GgufChoice]:
    """Return the GGUF files to choose from in a repository; none if it has other weights. Errors
    as in :func:`describe`."""
    access = _checked(hub_id, access)
    with readable_errors(hub_id, access):
        return Repository(hub_id, access).only_gguf()


def find_ready(hub_id: str, access: HubAccess | None = None) -> dict[Precision, HubModel]:
    """Return the repositories with INT4 and INT8 weights of a model, as far as they exist.

    Intel publishes many models as OpenVINO IR, compressed with NNCF, under names made from the
    original's: ``OpenVINO/Qwen3-8B-int4-ov``. The precision is that of the name; it is checked
    before the weights are downloaded. Errors as in :func:`describe`.

    Args:
        hub_id: org/name of the original.
    """
    publisher, _, name = hub_id.partition("/")
    found: dict[Precision, HubModel] = {}
    if publisher == READY_PUBLISHER:  # it is one itself
        return found
    for precision in (Precision.INT4, Precision.INT8):
        with suppress(UnknownModelError):
            found[precision] = describe(f"{READY_PUBLISHER}/{name}-{precision.value}-ov", access)
    return found


def _read_ir(model: HubModel, access: HubAccess) -> WeightReport | None:
    """Read the weights' formats from the XML of an OpenVINO model, without its weights."""
    xml = next((file for file in model.needed if file.name == IR_XML), None)
    content = read_content(xml, access, _LARGEST_XML) if xml is not None else None
    if content is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / IR_XML
        path.write_bytes(content)
        return read_graph(path)


def fetch(
    hub_id: str, folder: Path, on_progress: ProgressCallback, *, access: HubAccess | None = None
) -> str:
    """Download ``hub_id`` into ``folder``, and return its commit; return it at once if the download
    is complete already.

    The next call resumes a download that failed, or whose process was killed. Checksums reported by
    the hub are verified.

    Args:
        hub_id: org/name, or org/name:quantisation for a GGUF file.
        folder: folder of this model alone; created if missing. Only one process at a time may
            download into it.
        on_progress: called with bytes, rate and time left, about four times a second.

    Raises:
        DiskFullError: not enough free disk space.
        PaddockError: what :func:`describe` raises; HubError also if the connection broke too
            often, a checksum differs, or the folder cannot be written to.
    """
    done = completed(folder)
    if done is not None:
        return done
    access = _checked(hub_id, access)
    on_progress(Progress(Stage.FETCHING, f"Listing the files of {hub_id}.", None))
    with readable_errors(hub_id, access):
        model = list_files(hub_id, access)
        folder.mkdir(parents=True, exist_ok=True)
        # Partial files and weights that are not, or no longer, in the repository.
        current = {name for file in model.needed for name in (file.name, file.part_name)}
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if name.endswith(_WEIGHT_SUFFIXES) and name not in current and path.is_file():
                path.unlink()
        meter = Meter(model.needed, folder, on_progress)
        free = free_bytes(folder)
        if meter.missing > free:
            raise DiskFullError(
                f"Downloading {hub_id} needs {meter.missing / 1e9:.1f} GB more and the disk has "
                f"{free / 1e9:.1f} GB free. Free disk space, or set PADDOCK_HOME to a larger disk."
            )
        for file in model.needed:
            meter.message = f"Downloading {hub_id} ({file.name})."
            fetch_file(file, folder, request_headers(access), meter)
        meter.report()
        beside = folder / f"{COMPLETE_MARK}.new"
        mark = {"revision": model.revision, "files": model.files}
        beside.write_text(json.dumps(mark), encoding="utf-8")
        beside.replace(folder / COMPLETE_MARK)
    return model.revision


def completed(folder: Path) -> str | None:
    """Return the commit of the download in ``folder``, or None if it is not complete."""
    try:
        mark = json.loads((folder / COMPLETE_MARK).read_text(encoding="utf-8"))
        files = mark["files"]
        sizes = {name: (folder / name).stat().st_size for name in files}
        if not isinstance(files, list) and sizes != files:  # earlier versions noted no sizes
            return None
        return str(mark["revision"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _checked(hub_id: str, access: HubAccess | None) -> HubAccess:
    """Return the access to use, after checks for mistakes that httpx reports incomprehensibly."""
    access = access or HubAccess.from_environment()
    if access.offline:
        raise offline_error(hub_id)
    if access.token is not None and not _TOKEN.fullmatch(access.token):
        raise UserError(
            "The access token contains invalid characters. Copy it again from the settings of "
            "your Hugging Face account."
        )
    if access.endpoint is not None and not _is_web_address(access.endpoint):
        raise UserError(
            "The address of the hub is not a valid URL. Set HF_ENDPOINT to a URL that begins with "
            "https://."
        )
    return access


def _is_web_address(text: str) -> bool:
    try:
        address = urlsplit(text)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        return False
