"""List the files of a model on a hub, after checking that it is supported."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import NotAModelError, UnknownModelError
from core.store.checkpoint import check_not_packed, may_be_packed, tensor_types
from core.store.download import RemoteFile
from core.store.gguf.hub_files import GgufChoice, choices_text, choose, gguf_choices, read_headers
from core.store.gguf.summary import GgufSummary, summarise
from core.store.model_files import ModelFiles
from core.store.supported import check_kind, check_supported, has_whole_model
from core.store.weights import WeightReport

if TYPE_CHECKING:
    from core.store.hub import HubAccess

RESPONSE_TIMEOUT_S = 10.0
"""Timeout of requests for the file list and for ``config.json``."""

LARGEST_JSON = 32 * 2**20
"""Largest JSON file in bytes that is read before a download: the index of a large model."""

_SAFETENSORS_START = 256 * 2**10
"""Bytes of a safetensors file that are requested at first; most headers are shorter."""


class InvalidHubResponse(Exception):
    """The server's response is not that of a Hugging Face hub."""


@dataclass(frozen=True)
class HubModel:
    """Description of a model on the hub, before it is downloaded."""

    hub_id: str
    revision: str
    """Commit of the hub's repository."""
    needed: tuple[RemoteFile, ...]
    """Files that would be downloaded, configuration and tokenizer before weights."""
    gated: bool
    """Whether the download requires an accepted licence and a token."""
    config: dict[str, Any] | None
    """Its ``config.json``; None if access is not granted yet, it is too large, or for GGUF."""
    ir: WeightReport | None = None
    """The weights of an OpenVINO model, read from its XML; None for others, and without access."""
    gguf: GgufSummary | None = None
    """The header of a GGUF file; None for others."""

    @property
    def files(self) -> dict[str, int]:
        """Name and size in bytes of each needed file."""
        return {file.name: file.size for file in self.needed}

    @property
    def total_bytes(self) -> int:
        """Size of all needed files."""
        return sum(file.size for file in self.needed)


def request_headers(access: HubAccess) -> dict[str, str]:
    """Return the headers of a request for a file: user agent, and the token if there is one."""
    from huggingface_hub.utils import build_hf_headers

    _disable_telemetry()
    return build_hf_headers(token=access.token or False)


def _disable_telemetry() -> None:
    """Disable the telemetry of ``huggingface_hub``.

    It would download a list of known programs from huggingface.co, whatever the endpoint, and send
    the name of the calling program and the version of torch with each request.
    """
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


def list_files(hub_id: str, access: HubAccess) -> HubModel:
    """List the files of a model on the hub, after checking that it is supported.

    Args:
        hub_id: org/name, or org/name:quantisation for a GGUF file.

    Raises:
        NotAModelError, CorruptModelError: see :func:`core.store.supported.check_supported` and
            :func:`core.store.gguf.summary.summarise`.
        UnknownModelError: there are GGUF files of which one must be chosen, or not the chosen one.
        InvalidHubResponse: the server is not a Hugging Face hub.
        huggingface_hub.errors.HfHubHTTPError, httpx.HTTPError: the hub refused the request, or
            cannot be reached.
    """
    repo_id, _, selector = hub_id.partition(":")
    repository = Repository(repo_id, access)
    files = ModelFiles(repo_id, frozenset(repository.known), repository.read_json, repository.card)
    choices = repository.only_gguf() if not selector else []
    if selector or choices:
        check_kind(files)
    if choices:
        raise UnknownModelError(f"{repo_id} contains GGUF files. {choices_text(repo_id, choices)}")
    gated = bool(repository.info.gated)
    if selector:
        choice = choose(repo_id, selector, gguf_choices(repository.gguf_sizes()))
        parts = {name: repository.file(name) for name in choice.files}
        header = read_headers(
            {name: part.size for name, part in parts.items()},
            lambda name, count: read_start(parts[name], access, count),
        )
        summary = summarise(header)
        needed = tuple(parts.values())
        return HubModel(hub_id, repository.revision, needed, gated, None, gguf=summary)
    selection = check_supported(files)
    needed = tuple(repository.file(name) for name in (*selection.others, *selection.weights))
    size = sum(file.size for file in needed[len(selection.others) :])
    if selection.safetensors and may_be_packed(selection.config or {}, size):
        _check_tensors(repo_id, needed[-1], access)
    return HubModel(hub_id, repository.revision, needed, gated, selection.config)


def _check_tensors(repo_id: str, file: RemoteFile, access: HubAccess) -> None:
    """Raise NotAModelError if the header of a safetensors file has quantised weights, which the
    configuration may not tell."""
    from huggingface_hub.errors import GatedRepoError

    try:
        start = read_start(file, access, _SAFETENSORS_START)
        length = int.from_bytes(start[:8], "little")
        if 8 + length > min(file.size, LARGEST_JSON):
            return  # the check after the download reports it
        if 8 + length > len(start):
            start = read_start(file, access, 8 + length)
        types = tensor_types(json.loads(start[8 : 8 + length]))
    except (GatedRepoError, ValueError, KeyError, TypeError, AttributeError):
        return
    check_not_packed(repo_id, types)


class Repository:
    """A repository as the hub describes it."""

    def __init__(self, hub_id: str, access: HubAccess) -> None:
        """Ask the hub; errors as in :func:`list_files`."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        _disable_telemetry()
        self.hub_id = hub_id
        self.access = access
        api = HfApi(endpoint=access.endpoint, token=access.token or False)
        try:
            self.info = api.model_info(hub_id, files_metadata=True, timeout=RESPONSE_TIMEOUT_S)
        except (HfHubHTTPError, HFValidationError):
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InvalidHubResponse(str(error)) from error
        self.revision = self.info.sha or "main"
        self.known = {item.rfilename: item for item in self.info.siblings or []}
        """The hub's description of each file, by its name."""

    def card(self) -> dict[str, Any]:
        """Return what the hub derived from the model card; its tags have the relation to the
        base."""
        tags = self.info.tags or []
        return {
            "base_model": [tag.rpartition(":")[2] for tag in tags if tag.startswith("base_model:")],
            "pipeline_tag": self.info.pipeline_tag,
            "library_name": self.info.library_name,
        }

    def file(self, name: str) -> RemoteFile:
        """Return a file with its size and checksum, which the file list of some mirrors lacks."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        item, endpoint, token = self.known[name], self.access.endpoint, self.access.token or False
        url = hf_hub_url(self.hub_id, name, revision=self.revision, endpoint=endpoint)
        size = item.size
        sha256, git_sha1 = (item.lfs.sha256, None) if item.lfs else (None, item.blob_id)
        if size is None:
            found = get_hf_file_metadata(
                url, token=token, timeout=RESPONSE_TIMEOUT_S, endpoint=endpoint
            )
            size, etag = found.size, found.etag or ""
            if size is None:
                raise InvalidHubResponse(f"the size of {name} is missing")
            sha256 = etag if re.fullmatch("[0-9a-f]{64}", etag) else None
            git_sha1 = etag if re.fullmatch("[0-9a-f]{40}", etag) else None
        return RemoteFile(name, url, size, sha256, git_sha1, self.revision)

    def gguf_sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of the GGUF files by name."""
        names = [name for name in self.known if name.lower().endswith(".gguf")]
        return {name: self.file(name).size for name in names}

    def only_gguf(self) -> list[GgufChoice]:
        """Return the GGUF files, unless there are other weights of a whole model."""
        return [] if has_whole_model(self.known) else gguf_choices(self.gguf_sizes())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the object in a JSON file; None if access is not granted yet, or too large.

        Raises:
            NotAModelError: it is not a JSON object.
        """
        content = read_content(self.file(name), self.access)
        if content is None:
            return None
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise NotAModelError(
                f"The {name} of {self.hub_id} is not readable. Choose the original repository of "
                "the model."
            )
        return found


def read_content(file: RemoteFile, access: HubAccess, limit: int | None = None) -> bytes | None:
    """Download a small file into memory; None if access is not granted yet, or it is too large.

    Args:
        limit: bytes; by default :data:`LARGEST_JSON`.
    """
    from huggingface_hub.errors import GatedRepoError

    limit = LARGEST_JSON if limit is None else limit
    if file.size > limit:
        return None
    try:
        content = read_start(file, access, limit + 1)
    except GatedRepoError:
        return None
    return content if len(content) <= limit else None


def read_start(file: RemoteFile, access: HubAccess, count: int) -> bytes:
    """Download the first ``count`` bytes of a file, or all if it is shorter."""
    import httpx
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = request_headers(access)
    if count < file.size:
        headers |= {"Range": f"bytes=0-{count - 1}", "Accept-Encoding": "identity"}
    content = bytearray()
    with get_session().stream(
        "GET",
        file.url,
        headers=headers,
        timeout=httpx.Timeout(RESPONSE_TIMEOUT_S),
        follow_redirects=True,
    ) as response:
        hf_raise_for_status(response)
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) >= count:  # a server without ranges sends the whole file
                break
    return bytes(content[:count])
