"""Accounts and permissions: user names, passwords, sessions, invitations, API keys and roles.

Pages, routes and commands use :class:`Accounts`; :func:`access` returns the permissions of a
request. The package does not depend on HTTP, except for the names of headers.
"""

from core.auth.hashing import Hasher
from core.auth.permissions import Access, Place, access
from core.auth.service import Accounts, Client, ProviderUser, SignedIn
from core.auth.sessions import Visit

__all__ = [
    "Access",
    "Accounts",
    "Client",
    "Hasher",
    "Place",
    "ProviderUser",
    "SignedIn",
    "Visit",
    "access",
]
