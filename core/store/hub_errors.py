"""What a hub, the network or the disk says during a download, as sentences for a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from core.errors import DiskFullError, GatedModelError, HubError, PaddockError, UnknownModelError
from core.store.download import BrokenDownload, WrongContent
from core.store.files import has_no_space
from core.store.hub_listing import NotAHub

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

    from core.store.hub import HubAccess

PUBLIC_HUB = "https://huggingface.co"


def offline_error(hub_id: str) -> HubError:
    """The model would have to be fetched, and that is switched off."""
    return HubError(
        f"{hub_id} is not on this machine and Paddock is set to stay offline; turn the offline "
        "switch off and unset HF_HUB_OFFLINE, or give the path of a local folder."
    )


@contextmanager
def readable_errors(hub_id: str, access: HubAccess) -> Iterator[None]:
    """Raise errors of Paddock's for whatever asking the hub for ``hub_id`` may raise.

    None of their texts holds the token, and neither do the errors behind them.
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
            f"{hub_id} is not a Hugging Face id; give it as org/name, as it stands on the model's "
            "page."
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refusal(hub_id, access, error) from error
    except BrokenDownload as error:
        raise HubError(
            f"The connection broke while {error} of {hub_id} was fetched; check the network and "
            "try again, it will go on from there."
        ) from error
    except WrongContent as error:
        raise HubError(
            f"What came as {error} of {hub_id} does not have the checksum that the hub states, so "
            "it was thrown away; try again, and if that does not help, use another network."
        ) from error
    except (httpx.HTTPError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise HubError(
            f"{hub_id} is not on this machine and {_name(access)} cannot be reached; check the "
            "network, or give the path of a local folder."
        ) from error
    except OSError as error:
        if has_no_space(error):
            raise DiskFullError(
                f"The disk became full while {hub_id} was fetched; make room and try again, it "
                "will go on from there."
            ) from error
        raise HubError(
            f"What was fetched of {hub_id} cannot be saved ({error.strerror or error}); check the "
            "permissions of the home folder, or set PADDOCK_HOME to a folder of yours."
        ) from error
    except NotAHub as error:
        raise HubError(
            f"{_name(access).capitalize()} did not answer as a Hugging Face hub does when asked "
            f"for {hub_id}; check HF_ENDPOINT."
        ) from error


def _refusal(hub_id: str, access: HubAccess, error: HfHubHTTPError) -> HubError | UnknownModelError:
    from huggingface_hub import errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        page = f"{access.endpoint or PUBLIC_HUB}/{hub_id}"
        if status == 403:
            return GatedModelError(
                f"{hub_id} is gated and the account of the token has no access yet: accept its "
                f"licence at {page} and wait until access is granted, or use a token (HF_TOKEN) "
                "that may read gated repositories."
            )
        return GatedModelError(
            f"{hub_id} is gated: accept its licence at {page}, then give a token of the same "
            "account (HF_TOKEN, or the field on the Models page)."
        )
    if status == 401 and access.token:
        return GatedModelError(
            f"The hub does not accept the token when asked for {hub_id}; make a new one in your "
            "account's settings at the hub, and give that (HF_TOKEN, or the field on the Models "
            "page)."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UnknownModelError(
            f"The hub has no model {hub_id}, or it is private; check the spelling, or set "
            "HF_TOKEN to a token that may read it."
        )
    return HubError(
        f"{_name(access).capitalize()} answered {status} when asked for {hub_id}; try again later."
    )


def _name(access: HubAccess) -> str:
    """The hub as a subject; credentials in its address are not repeated."""
    if access.endpoint is None:
        return "the hub"
    address = urlsplit(access.endpoint)
    port = f":{address.port}" if address.port else ""
    return f"the hub at {address.hostname}{port}"
