"""Errors of the hub, the network and the disk during a download, as messages for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from core.errors import DiskFullError, GatedModelError, HubError, PaddockError, UnknownModelError
from core.store.download import BrokenDownload, ChecksumMismatch
from core.store.files import has_no_space
from core.store.hub_listing import InvalidHubResponse

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

    from core.store.hub import HubAccess

PUBLIC_HUB = "https://huggingface.co"


def offline_error(hub_id: str) -> HubError:
    """Return the error for a model that must be downloaded while Paddock is offline."""
    return HubError(
        f"{hub_id} is not on this machine and Paddock is offline. Turn off the Offline switch and "
        "unset HF_HUB_OFFLINE, or enter the path of a local folder."
    )


@contextmanager
def readable_errors(hub_id: str, access: HubAccess) -> Iterator[None]:
    """Convert the exceptions of requests for ``hub_id`` to ``PaddockError``.

    Neither the messages nor the causes of the errors contain the token.
    """
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except PaddockError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise offline_error(hub_id) from error
    except errors.HFValidationError as error:
        raise UnknownModelError(
            f"{hub_id} is not a Hugging Face id. Enter it as org/name, as shown on the model's "
            "page."
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refusal(hub_id, access, error) from error
    except BrokenDownload as error:
        raise HubError(
            f"The connection broke while downloading {error} of {hub_id}. Check the network and "
            "try again; the download resumes where it stopped."
        ) from error
    except ChecksumMismatch as error:
        raise HubError(
            f"The downloaded {error} of {hub_id} does not match the checksum on the hub and was "
            "deleted. Try again, and if that does not help, use another network."
        ) from error
    except (httpx.HTTPError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise HubError(
            f"{hub_id} is not on this machine and {_name(access)} cannot be reached. Check the "
            "network, or enter the path of a local folder."
        ) from error
    except OSError as error:
        if has_no_space(error):
            raise DiskFullError(
                f"The disk became full while downloading {hub_id}. Free disk space and try again; "
                "the download resumes where it stopped."
            ) from error
        raise HubError(
            f"The download of {hub_id} cannot be saved ({error.strerror or error}). Check the "
            "permissions of the home folder, or set PADDOCK_HOME to a folder you can write to."
        ) from error
    except InvalidHubResponse as error:
        raise HubError(
            f"{_subject(access)} did not respond like a Hugging Face hub to a request for "
            f"{hub_id}. Check HF_ENDPOINT."
        ) from error


def _refusal(hub_id: str, access: HubAccess, error: HfHubHTTPError) -> HubError | UnknownModelError:
    from huggingface_hub import errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        page = f"{access.endpoint or PUBLIC_HUB}/{hub_id.partition(':')[0]}"
        if status == 403:
            return GatedModelError(
                f"{hub_id} is gated and the account of the token has no access yet. Accept its "
                f"licence at {page} and wait until access is granted, or use a token (HF_TOKEN) "
                "with permission to read gated repositories."
            )
        return GatedModelError(
            f"{hub_id} is gated. Accept its licence at {page}, then provide a token of the same "
            "account (HF_TOKEN, or the field on the Models page)."
        )
    if status == 401 and access.token:
        return GatedModelError(
            f"{_subject(access)} rejected the token in a request for {hub_id}. Create a new token "
            "in the settings of your account and provide it (HF_TOKEN, or the field on the Models "
            "page)."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UnknownModelError(
            f"{_subject(access)} has no model {hub_id}, or it is private. Check the spelling, or "
            "set HF_TOKEN to a token with permission to read it."
        )
    return HubError(
        f"{_subject(access)} responded with status {status} to a request for {hub_id}. Try again "
        "later."
    )


def _subject(access: HubAccess) -> str:
    name = _name(access)
    return name[0].upper() + name[1:]


def _name(access: HubAccess) -> str:
    """Return the name of the hub for messages, without credentials in its address."""
    if access.endpoint is None:
        return "the Hugging Face Hub"
    address = urlsplit(access.endpoint)
    port = f":{address.port}" if address.port else ""
    return f"the hub at {address.hostname}{port}"
