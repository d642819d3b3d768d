"""Registration, sign-in and sign-out, password change and account deletion.

An unknown name and an incorrect password give the same error and take one hashing each. Errors
raised before that do not depend on the account.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core.auth.administration import Administration, check_found, not_found
from core.auth.hashing import Hasher
from core.auth.keys import Keys
from core.auth.names import Name, name_key, parse_name
from core.auth.passwords import checked_password
from core.auth.rate_limit import Attempts, address_key
from core.auth.sessions import Sessions
from core.auth.tokens import code_hash, device_nonce, new_device, new_device_key, new_token
from core.db import Account, AccountStore, Role, Session
from core.db.run_values import utc_now
from core.errors import (
    AccessDeniedError,
    AccountInputError,
    InvitationError,
    PaddockError,
    SignInError,
)
from core.settings import Registration, Settings

_INCORRECT = "Incorrect user name or password."
_DISABLED = "This account is disabled. Ask an administrator to enable it."
_CHANGED = "The account was changed or disabled at the same time. Sign in again."
_INVALID_CODE = (
    "This invitation code is incorrect, used up or expired. Ask an administrator for another one."
)
"""The same for each of the three, so that codes cannot be guessed step by step."""
_NAME_LIMIT = 128
"""Characters of a name that are used at sign-in; all names are much shorter."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Client:
    """The browser of a request."""

    address: str | None = None
    """Its address, by which failures are counted."""
    agent: str = ""
    """Its ``User-Agent``, shown in the list of sessions."""
    device: str | None = field(default=None, repr=False)
    """Device cookie of an earlier sign-in; see :attr:`SignedIn.device`."""


@dataclass(frozen=True)
class ProviderUser:
    """A user authenticated by an OpenID Connect provider."""

    subject: str
    """The provider's issuer and the subject, which it never reassigns."""
    name: str = ""
    """Suggested user name."""


@dataclass(frozen=True)
class SignedIn:
    """A new session, and the cookies for the browser."""

    account: Account
    session: Session
    token: str = field(repr=False)
    """Session token, which signs in."""
    device: str = field(repr=False)
    """Device cookie, which identifies this browser when failed attempts are counted. It does not
    sign in, and may be kept after sign-out."""


class Accounts:
    """The accounts of one database; shared by pages, routes and threads.

    Every method raises :class:`core.errors.RecordsError` if the database fails. What takes a
    password raises :class:`core.errors.TooManyAttemptsError` after too many failed attempts, and
    :class:`core.errors.TooBusyError` while too many passwords are being hashed. What takes a
    session token raises :class:`core.errors.AccessDeniedError` if it is not valid.
    """

    def __init__(
        self,
        store: AccountStore,
        settings: Settings,
        *,
        hasher: Hasher | None = None,
        attempts: Attempts | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """
        Args:
            hasher: by default one with the recommended cost and the settings' concurrency.
            attempts: by default one with the settings' window.
            clock: returns the time in UTC.
        """
        self._store = store
        self._settings = settings
        self._hasher = hasher or Hasher(max_concurrent=settings.max_hashings)
        self._attempts = attempts or Attempts(settings.failure_window_s)
        self._clock = clock
        self.sessions = Sessions(store, settings, clock)
        self.keys = Keys(store, clock)
        self.administration = Administration(store, self.sessions, settings, clock)

    # Registration and sign-in

    def register(
        self,
        name: str,
        password: str | None,
        client: Client,
        *,
        code: str | None = None,
        subject: str | None = None,
    ) -> SignedIn:
        """Create an account and sign in.

        Args:
            name: see :func:`core.auth.names.parse_name`.
            password: see :func:`core.auth.passwords.checked_password`; not used with a subject.
            code: invitation code, if registration requires one.
            subject: of a provider's user, who has no password; see :attr:`ProviderUser.subject`.

        Raises:
            AccessDeniedError: registration is closed.
            AccountInputError: name, password or code is not allowed.
            TooManyAttemptsError: too many registrations from this address.
        """
        if self._settings.registration is Registration.CLOSED:
            raise AccessDeniedError("Registration is closed. Ask an administrator for an account.")
        wanted = parse_name(name)
        random_password = new_token()  # known to nobody
        password = random_password if subject else checked_password(password or "", wanted)
        bucket = f"registration {address_key(client.address)}"
        # Successful registrations are limited, too.
        attempt = self._attempts.begin({bucket: self._settings.registrations_per_address})
        try:
            account = self._registered(wanted, password, code, subject)
        except PaddockError as error:
            if not isinstance(error, AccountInputError):
                self._attempts.forgive(attempt)
            raise
        logger.info("Account %s was registered", account.id)
        return self._signed_in(account, client)

    def sign_in(self, name: str, password: str, client: Client) -> SignedIn:
        """Begin a session.

        Raises:
            SignInError: incorrect name or password, or the account is disabled.
        """
        key = name_key(name.strip()[:_NAME_LIMIT])
        account = self._store.find(key=key)
        self._check_password(account, password, self._sign_in_limits(account, key, client))
        if account is None:  # for the type checker: verification has failed already
            raise SignInError(_INCORRECT)
        if account.disabled:
            raise SignInError(_DISABLED)
        return self._signed_in(self._rehashed(account, password), client)

    def sign_in_with_provider(self, subject: str, client: Client) -> SignedIn | None:
        """Begin a session of a provider's user; return None if the user has no account.

        Raises:
            SignInError: the account is disabled.
        """
        account = self._store.find(subject=subject)
        if account is None:
            return None
        if account.disabled:
            raise SignInError(_DISABLED)
        return self._signed_in(account, client)

    # The user's own account

    def change_password(self, token: str, old: str, new: str, client: Client) -> SignedIn:
        """Change the password, end all sessions, and begin a new one for this browser.

        Raises:
            SignInError: the current password is incorrect.
            AccountInputError: the new password is not allowed.
        """
        account = self.sessions.account(token)
        new = checked_password(new, Name(account.name, account.key, account.look))
        self._check_owner(account, old)
        changes = self._with_password(new)
        if not self._store.change(account.id, account.password_hash, end_sessions=True, **changes):
            raise SignInError(_CHANGED)
        logger.info("The password of account %s was changed", account.id)
        return self._signed_in(self._account(account.id), client)

    def delete_account(
        self, token: str, password: str, *, first: Callable[[], None] = lambda: None
    ) -> None:
        """Delete the user's account with its runs, votes, settings, sessions and invitations.

        Args:
            password: confirmation: the password, or the user name for an account without one, which
                signs in with a provider.
            first: called after the confirmation, before anything is deleted.

        Raises:
            SignInError: the confirmation is incorrect.
        """
        account = self.sessions.account(token)
        if account.subject is None:
            self._check_owner(account, password)
        elif name_key(password.strip()[:_NAME_LIMIT]) != account.key:
            raise SignInError("Incorrect user name. Enter it as shown.")
        first()
        if not self._store.delete(account.id, old_hash=account.password_hash):
            raise SignInError(_CHANGED)
        logger.info("Account %s was deleted by its owner", account.id)

    def sign_out_everywhere(self, token: str) -> None:
        """End all sessions of the user, including this one, and invalidate all device cookies."""
        account = self.sessions.account(token)
        self._store.change(account.id, end_sessions=True, device_key=new_device_key())

    def preferences(self, account_id: str) -> dict[str, str]:
        """Return the stored settings of the pages."""
        return self._store.preferences(account_id)

    def save_preferences(self, account_id: str, choices: Mapping[str, str]) -> bool:
        """Store the settings of the pages; return False if the account does not exist."""
        return self._store.save_preferences(account_id, choices, self._clock())

    # The command line

    def find(self, name: str) -> Account | None:
        """Return the account with this name, or None.

        Raises:
            AccountInputError: the name is not allowed.
        """
        return self._store.find(key=parse_name(name).key)

    def make_administrator(self, name: str, password: str | None) -> Account:
        """Create an administrator, or make an existing account one.

        An existing account is enabled, and keeps its password and sessions unless a password is
        given.

        Raises:
            AccountInputError: name or password is not allowed, or a new account has no password.
        """
        wanted = parse_name(name)
        account = self._store.find(key=wanted.key)
        if account is None:
            if password is None:
                raise AccountInputError(
                    f"The new account {wanted.display} needs a password. Enter one."
                )
            return self._added(wanted, checked_password(password, wanted), Role.ADMINISTRATOR)
        changes: dict[str, Any] = {"role": Role.ADMINISTRATOR, "disabled": False}
        if password is not None:
            changes |= self._with_password(checked_password(password, wanted))
        check_found(self._store.change(account.id, end_sessions=password is not None, **changes))
        return self._account(account.id)

    # Helpers

    def _registered(
        self, wanted: Name, password: str, code: str | None, subject: str | None
    ) -> Account:
        hashed_code = None
        if self._settings.registration is Registration.INVITATION:
            hashed_code = code_hash(code or "")
            if not (hashed_code and self._store.invitation_is_valid(hashed_code, self._clock())):
                raise InvitationError(_INVALID_CODE)
        if wanted.reserved or self._store.taken(wanted.key, wanted.look):
            raise _taken(wanted)
        return self._added(wanted, password, Role.USER, hashed_code, subject)

    def _added(
        self,
        wanted: Name,
        password: str,
        role: Role,
        hashed_code: str | None = None,
        subject: str | None = None,
    ) -> Account:
        hashed = self._with_password(password)
        account = Account(
            name=wanted.display,
            key=wanted.key,
            look=wanted.look,
            role=role,
            created_at=hashed["password_changed_at"],
            subject=subject,
            **hashed,
        )
        added = self._store.add(account, hashed_code)
        if added is None:
            raise InvitationError(_INVALID_CODE)
        if not added:
            raise _taken(wanted)
        return account

    def _with_password(self, password: str) -> dict[str, Any]:
        """Return what changes in an account with its password; no browser is known any more."""
        return {
            "password_hash": self._hasher.hash(password),
            "device_key": new_device_key(),
            "password_changed_at": self._clock(),
        }

    def _signed_in(self, account: Account, client: Client) -> SignedIn:
        begun = self.sessions.begin(account, client.agent)
        if begun is None:
            raise SignInError(_CHANGED)
        token, session = begun
        device = client.device  # a browser keeps its count of failures
        if device is None or not device_nonce(device, account.id, account.device_key):
            device = new_device(account.id, account.device_key)
        return SignedIn(account, session, token, device)

    def _sign_in_limits(
        self, account: Account | None, key: str, client: Client
    ) -> Mapping[str, int]:
        settings = self._settings
        if account is not None:
            nonce = device_nonce(client.device, account.id, account.device_key)
            if nonce is not None:
                return {f"device {account.id}.{nonce}": settings.failures_per_device}
        return {
            f"address {address_key(client.address)}": settings.failures_per_address,
            f"name {key}": settings.failures_per_account,
        }

    def _check_owner(self, account: Account, password: str) -> None:
        limits = {f"owner {account.id}": self._settings.failures_per_device}
        self._check_password(account, password, limits)

    def _check_password(
        self, account: Account | None, password: str, limits: Mapping[str, int]
    ) -> None:
        """Verify the password with one hashing, which counts as a failure unless it succeeds.

        Raises:
            SignInError: the password is incorrect.
            TooManyAttemptsError: too many failed attempts; nothing was hashed.
        """
        attempt = self._attempts.begin(limits)
        try:
            correct = self._hasher.verify(account.password_hash if account else None, password)
        except PaddockError:  # not a failed attempt
            self._attempts.forgive(attempt)
            raise
        if not correct:
            raise SignInError(_INCORRECT)
        self._attempts.forgive(attempt)

    def _rehashed(self, account: Account, password: str) -> Account:
        """Hash the password again if the parameters have changed; return the account."""
        if not self._hasher.outdated(account.password_hash):
            return account
        try:
            new = self._hasher.hash(password)
            replaced = self._store.change(account.id, account.password_hash, password_hash=new)
        except PaddockError as error:  # the old hash remains valid
            logger.warning(
                "The password of account %s could not be rehashed: %s", account.id, error
            )
            return account
        return self._account(account.id) if replaced else account

    def _account(self, account_id: str) -> Account:
        account = self._store.get(account_id)
        if account is None:
            raise not_found()
        return account


def _taken(wanted: Name) -> AccountInputError:
    return AccountInputError(
        f"The user name {wanted.display}, or one that looks like it, is taken. Choose another one."
    )
