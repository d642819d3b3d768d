"""Who may do what from where: pure functions of the request and the settings.

Whoever sits at the machine may use everything without an account: the server listens on loopback,
the browser asked for a loopback name, and no proxy stands between. The name that was asked for
counts because a page from elsewhere can have its own name resolve to loopback (DNS rebinding);
the proxy's headers count because a proxy on the same machine lets the network in through loopback.
Whatever cannot be told is taken for the network.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from core.db import Account
from core.errors import AccessDeniedError
from core.settings import KIOSK_ERROR, AuthMode, Registration

_FORWARDING = frozenset(
    {
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "x-original-url",
        "client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
        "x-envoy-external-address",
        "x-proxyuser-ip",
    }
)
"""Headers that reverse proxies and tunnels add (RFC 7239, RFC 9110 §7.6.3 and usage), those that
begin with ``x-forwarded`` aside."""

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Place:
    """Where a request comes from, as far as the server can tell."""

    bound: str | None
    """Address that the server listens on; None or empty for all."""
    hosts: tuple[str, ...]
    """Values of the ``Host`` header; a proper request has one."""
    forwarded: bool
    """Whether a header tells of a proxy."""
    peer: str | None = None
    """Address of the other end of the connection; None where it is not known."""

    @classmethod
    def of(
        cls, headers: Iterable[tuple[str, str]], *, bound: str | None, peer: str | None = None
    ) -> Place:
        """The place that a request's headers tell of.

        Args:
            headers: names, in any letter case, and values.
            bound: address that the server listens on.
            peer: address of the other end of the connection.
        """
        given = [(name.strip().lower(), value) for name, value in headers]
        return cls(
            bound=bound,
            hosts=tuple(value for name, value in given if name == "host"),
            forwarded=any(is_forwarding(name) for name, _ in given),
            peer=peer,
        )

    @property
    def on_this_machine(self) -> bool:
        """Whether it is certain that the request comes from a browser on this machine."""
        return (
            is_loopback(self.bound)
            and len(self.hosts) == 1
            and is_loopback_host(self.hosts[0])
            and not self.forwarded
            and (self.peer is None or is_loopback(self.peer))
        )


@dataclass(frozen=True)
class Access:
    """What a person, or a guest, may do."""

    use: bool
    """Ask models and see pages; False shows the sign-in form and nothing else."""
    manage: bool
    """Fetch, convert and delete models, run sweeps."""
    administer: bool
    """See and change accounts."""
    register: Registration
    """How an account can be had."""
    account: str | None = None
    """Whose data may be seen beside that of the browser session; None for guests."""
    kiosk: bool = False
    """Whether nobody may manage, as :attr:`core.settings.Settings.kiosk` wants it."""

    @property
    def must_sign_in(self) -> bool:
        """Whether nothing goes without signing in."""
        return not self.use

    def check_use(self) -> None:
        """
        Raises:
            AccessDeniedError: the person must sign in.
        """
        if not self.use:
            raise AccessDeniedError("Sign in first: this Paddock is for people with an account.")

    def check_manage(self) -> None:
        """
        Raises:
            AccessDeniedError: the person has not the right to manage.
        """
        self.check_use()
        if self.kiosk:
            raise AccessDeniedError(KIOSK_ERROR)
        if not self.manage:
            raise AccessDeniedError(
                "Models and benchmarks are managed by people with the right to; ask an "
                "administrator for it."
            )

    def check_administer(self) -> None:
        """
        Raises:
            AccessDeniedError: the person is no administrator.
        """
        self.check_use()
        if not self.administer:
            raise AccessDeniedError("Only administrators see and change accounts; ask one.")


def access(
    place: Place,
    auth: AuthMode,
    registration: Registration,
    account: Account | None,
    *,
    kiosk: bool = False,
) -> Access:
    """What may be done in this place by this account, or by a guest.

    On this machine, where guests may manage, whoever has signed in may too: signing in takes no
    right away. In a kiosk nobody may.
    """
    guests = auth is AuthMode.AUTO and place.on_this_machine
    if account is None or account.disabled:
        return Access(
            use=guests,
            manage=guests and not kiosk,
            administer=False,
            register=registration,
            kiosk=kiosk,
        )
    return Access(
        use=True,
        manage=(guests or account.role.manages) and not kiosk,
        administer=account.role.administers,
        register=registration,
        account=account.id,
        kiosk=kiosk,
    )


def is_forwarding(header: str) -> bool:
    """Whether a header of this name tells of a proxy."""
    name = header.strip().lower().replace("_", "-")
    return name in _FORWARDING or name.startswith("x-forwarded")


def is_loopback(address: str | None) -> bool:
    """Whether an address is this machine's own, and reached from it alone."""
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
    """Whether a ``Host`` header names this machine itself, with or without a port.

    Only ``localhost`` and addresses written in full do; everything else may be a name that
    somebody has pointed here.
    """
    found = _HOST.fullmatch(host.strip(" \t").lower())
    return found is not None and is_loopback(found["name"])
