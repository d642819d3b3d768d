"""Accounts and permissions: user names, passwords, sessions, invitations, API keys and roles.

Pages, routes and commands use :class:`Accounts`; :func:`access` returns the permissions of a
request. The package does not depend on HTTP, except for the names of headers.
"""

# ruff: noqa: F401  names for other packages

from core.auth.permissions import Access, Place, access
from core.auth.service import Accounts, Client, ProviderUser, SignedIn
