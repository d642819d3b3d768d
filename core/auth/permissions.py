"""Permissions of a request, as pure functions of the request and the settings.

A browser on this machine may use Paddock without an account. A request counts as local if the
server listens on loopback, the ``Host`` header names loopback, and no proxy forwarded it. ``Host``
is checked because another site can make its own name resolve to loopback (DNS rebinding), and
proxy headers because a proxy on this machine forwards requests from the network through loopback.
In case of doubt a request counts as coming from the network.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from core.db import Account
from core.errors import AccessDeniedError
from core.settings import KIOSK_ERROR, AuthMode

_FORWARDING = frozenset(
    (
        *("forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip"),
        *("x-original-host", "x-original-url", "client-ip", "true-client-ip"),
        *("cf-connecting-ip", "fastly-client-ip", "x-envoy-external-address", "x-proxyuser-ip"),
    )
)
"""Headers that reverse proxies and tunnels add (RFC 7239, RFC 9110 §7.6.3 and common usage), in
addition to those that begin with ``x-forwarded``."""

ADMINISTRATOR_REQUIRED = "Requires the administrator role. Ask an administrator."

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Place:
    """Where a request comes from, as far as the server can determine."""

    bound: str | None
    """Address that the server listens on; None or empty for all."""
    hosts: tuple[str, ...]
    """Values of the ``Host`` header; a valid request has one."""
    forwarded: bool
    """Whether a header shows that a proxy forwarded the request."""
    peer: str | None = None
    """Remote address of the connection; None if it is unknown."""

    @classmethod
    def of(
        cls, headers: Iterable[tuple[str, str]], *, bound: str | None, peer: str | None = None
    ) -> Place:
        """Determine the place from a request's headers, whose names have any letter case."""
        given = [(name.strip().lower().replace("_", "-"), value) for name, value in headers]
        return cls(
            bound=bound,
            hosts=tuple(value for name, value in given if name == "host"),
            forwarded=any(
                name in _FORWARDING or name.startswith("x-forwarded") for name, _ in given
            ),
            peer=peer,
        )

    @property
    def on_this_machine(self) -> bool:
        """Whether the request certainly comes from a client on this machine."""
        return (
            is_loopback(self.bound)
            and len(self.hosts) == 1
            and is_loopback_host(self.hosts[0])
            and not self.forwarded
            and (self.peer is None or is_loopback(self.peer))
        )


@dataclass(frozen=True)
class Access:
    """Permissions of a user or guest."""

    use: bool
    """Use pages and models; False shows only the sign-in form."""
    manage: bool
    """Download, convert and delete models, and run benchmarks."""
    administer: bool
    """View and change accounts."""
    kiosk: bool = False
    """Whether kiosk mode is on, in which nobody has the Manage permission."""

    def check_use(self) -> None:
        """Check that the user may use Paddock.

        Raises:
            AccessDeniedError: the user must sign in.
        """
        if not self.use:
            raise AccessDeniedError("Sign-in is required. Sign in and try again.")

    def check_manage(self) -> None:
        """Check the Manage permission.

        Raises:
            AccessDeniedError: the user does not have it.
        """
        self.check_use()
        if self.kiosk:
            raise AccessDeniedError(KIOSK_ERROR)
        if not self.manage:
            raise AccessDeniedError("Requires the Manage permission. Ask an administrator.")


def access(place: Place, auth: AuthMode, account: Account | None, *, kiosk: bool = False) -> Access:
    """Return the permissions of an account, or of a guest, for a request from this place.

    Guests on this machine have the Manage permission, and so have signed-in users there, because
    sign-in must not remove a permission. In kiosk mode nobody has it.
    """
    guests = auth is AuthMode.AUTO and place.on_this_machine
    if account is not None and account.disabled:
        account = None
    return Access(
        use=guests or account is not None,
        manage=(guests or (account is not None and account.role.manages)) and not kiosk,
        administer=account is not None and account.role.administers,
        kiosk=kiosk,
    )


def is_loopback(address: str | None) -> bool:
    """Whether an address is a loopback address."""
    if address is None:
        return False
    address = address.strip().lower()
    if address == "localhost":
        return True
    try:
        parsed = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def is_loopback_host(host: str) -> bool:
    """Whether a ``Host`` header names loopback, with or without a port.

    Only ``localhost`` and loopback addresses count; any other name could resolve to loopback on
    purpose (DNS rebinding).
    """
    found = _HOST.fullmatch(host.strip(" \t").lower())
    return found is not None and is_loopback(found["name"])
