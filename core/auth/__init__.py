"""Who may use Paddock: names, passwords, sessions, invitations, roles, and where guests may.

:class:`Accounts` is what pages, routes and commands use; :func:`access` says what a request may
do. Nothing here knows of HTTP beyond the names of headers.
"""

from core.auth.hashing import Hasher
from core.auth.permissions import Access, Place, access
from core.auth.service import Accounts, Client, Outsider, SignedIn
from core.auth.sessions import Visit

__all__ = [
    "Access",
    "Accounts",
    "Client",
    "Hasher",
    "Outsider",
    "Place",
    "SignedIn",
    "Visit",
    "access",
]
