"""What people do with their accounts: register, sign in and out, change the password, delete.

A wrong name and a wrong password are answered alike, and cost one hashing each; what is refused
before that is refused whoever asks.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from core.auth.administration import Administration, check_found, not_found
from core.auth.hashing import Hasher
from core.auth.invitations import Invitations, refused
from core.auth.keys import Keys
from core.auth.names import Name, name_key, parse_name
from core.auth.passwords import checked_password
from core.auth.rate_limit import Attempts, Bucket, Kind, address_key
from core.auth.sessions import Sessions, Visit
from core.auth.tokens import device_nonce, new_device, new_device_key, new_token
from core.db import (
    Account,
    AccountStore,
    Deleted,
    KeyStore,
    Role,
    Session,
)
from core.db.run_values import utc_now
from core.errors import (
    AccessDeniedError,
    AccountInputError,
    PaddockError,
    SignInError,
    UnknownAccountError,
)
from core.settings import Registration, Settings

_NAME_LIMIT = 128
"""Characters of a name that are looked at when somebody signs in; none is nearly as long."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Client:
    """The browser of a request."""

    address: str | None = None
    """Where it is; failures are counted by it."""
    agent: str = ""
    """What it calls itself; shown to the person in the list of sessions."""
    device: str | None = field(default=None, repr=False)
    """:attr:`SignedIn.device` of an earlier time, if it has one."""


@dataclass(frozen=True)
class Outsider:
    """Somebody whom a provider vouches for."""

    subject: str
    """Who they are to it: its address and the name that it never gives to another."""
    name: str = ""
    """What it calls them; a suggestion."""


@dataclass(frozen=True)
class SignedIn:
    """What a browser keeps after signing in."""

    account: Account
    session: Session
    token: str = field(repr=False)
    """Of the session: the cookie that signs in."""
    device: str = field(repr=False)
    """Tells this browser from a stranger's when attempts are counted; it signs nobody in, and may
    stay when the person signs out."""


class Accounts:
    """The accounts of one database; pages, routes and threads share it.

    Every method raises :class:`core.errors.RecordsError` where the database fails.
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
            store: where accounts are kept.
            settings: limits, expiry and who may register.
            hasher: by default one of the recommended cost and the settings' bound.
            attempts: by default one of the settings' window.
            clock: the time in UTC.
        """
        self._store = store
        self._settings = settings
        self._hasher = hasher or Hasher(at_once=settings.max_hashings)
        self._attempts = attempts or Attempts(settings.failure_window_s)
        self._clock = clock
        self._sessions = Sessions(store, settings, clock)
        self._invitations = Invitations(store, settings, clock)
        self.keys = Keys(KeyStore(store.database), clock)
        self.administration = Administration(store, self._sessions, self._invitations, clock)

    # Coming and going

    def register(
        self, name: str, password: str, client: Client, *, code: str | None = None
    ) -> SignedIn:
        """Make an account for whoever asks, and sign them in.

        Args:
            name: see :func:`core.auth.names.parse_name`.
            password: see :func:`core.auth.passwords.checked_password`.
            client: the browser.
            code: an invitation, where the settings ask for one.

        Raises:
            AccessDeniedError: nobody may register here.
            AccountInputError: name, password or code cannot be taken.
            TooManyAttemptsError: this address has tried too often.
            TooBusyError: too many passwords are being hashed.
        """
        return self._register(name, password, client, code=code)

    def _register(
        self,
        name: str,
        password: str,
        client: Client,
        *,
        code: str | None,
        subject: str | None = None,
    ) -> SignedIn:
        if self._settings.registration is Registration.CLOSED:
            raise AccessDeniedError("Nobody can register here; ask an administrator to let you in.")
        wanted = parse_name(name)
        password = checked_password(password, wanted)
        bucket = Bucket(
            Kind.REGISTRATION,
            address_key(client.address),
            self._settings.registrations_per_address,
        )
        attempt = self._attempts.begin([bucket])  # counts whatever comes of it: accounts are few
        try:
            account = self._registered(wanted, password, code, subject)
        except AccountInputError:
            raise
        except PaddockError:
            self._attempts.forgive(attempt)
            raise
        logger.info("Account %s was registered", account.id)
        return self._signed_in(account, client)

    def sign_in(self, name: str, password: str, client: Client) -> SignedIn:
        """Begin a session.

        Raises:
            SignInError: no account has this name and password, or it is disabled.
            TooManyAttemptsError: too many failed before.
            TooBusyError: too many passwords are being checked.
        """
        key = name_key(name.strip()[:_NAME_LIMIT])
        account = self._store.by_key(key)
        self._check_password(account, password, self._sign_in_buckets(account, key, client))
        if account is None:  # for the type checker: nobody's password is never right
            raise _wrong()
        if account.disabled:
            raise _disabled()
        return self._signed_in(self._rehashed(account, password), client)

    def sign_in_outsider(self, outsider: Outsider, client: Client) -> SignedIn | None:
        """Begin a session of the account that a provider's person has; None where they have none.

        Raises:
            SignInError: it is disabled.
        """
        account = self._store.by_subject(outsider.subject)
        if account is None:
            return None
        if account.disabled:
            raise _disabled()
        return self._signed_in(account, client)

    def register_outsider(
        self, outsider: Outsider, name: str, client: Client, *, code: str | None = None
    ) -> SignedIn:
        """Make an account, without a password of ours, for a provider's person, and sign them in.

        Raises:
            AccessDeniedError: nobody may register here.
            AccountInputError: name or code cannot be taken.
            TooManyAttemptsError: this address has tried too often.
            TooBusyError: too many passwords are being hashed.
        """
        nobodys = new_token()  # a password that nobody has
        return self._register(name, nobodys, client, code=code, subject=outsider.subject)

    def visit(self, token: str | None) -> Visit | None:
        """Whose session a token is; None where nobody is signed in by it."""
        return self._sessions.find(token)

    def holding(self, tokens: Collection[str]) -> set[str]:
        """Those of the tokens that sign somebody in now; it does not count as a visit."""
        return self._sessions.holding(tokens)

    def sign_out(self, token: str | None) -> bool:
        """End the session of a token; False where there is none."""
        return self._sessions.end(token)

    # One's own account

    def change_password(self, token: str, old: str, new: str, client: Client) -> SignedIn:
        """Set another password, end all sessions, and begin a new one for this browser.

        Raises:
            AccessDeniedError: nobody is signed in by this token.
            SignInError: the old password is wrong.
            AccountInputError: the new one cannot be taken.
            TooManyAttemptsError: the old one was wrong too often.
            TooBusyError: too many passwords are being hashed.
        """
        account = self._visitor(token)
        new = checked_password(new, _name_of(account))
        self._check_owner(account, old)
        new_hash, now = self._hasher.hash(new), self._clock()
        device_key = new_device_key()
        if not self._store.set_password(
            account.id, new_hash, device_key, now, old_hash=account.password_hash
        ):
            raise _changed_meanwhile()
        logger.info("The password of account %s was changed", account.id)
        return self._signed_in(self._account(account.id), client)

    def delete_account(
        self, token: str, password: str, *, first: Callable[[], None] = lambda: None
    ) -> Deleted:
        """Remove one's account with its runs, votes, settings, sessions and invitations.

        Args:
            token: of a session of the account.
            password: asked for once more; of an account that signs in by a provider, and has none,
                its name instead.
            first: called when the password was right, before anything is removed.

        Raises:
            AccessDeniedError: nobody is signed in by this token.
            SignInError: the password is wrong.
            TooManyAttemptsError: it was wrong too often.
            TooBusyError: too many passwords are being hashed.
        """
        account = self._visitor(token)
        if account.subject is None:
            self._check_owner(account, password)
        elif name_key(password.strip()[:_NAME_LIMIT]) != account.key:
            raise SignInError("This is not the name of the account; type it as it is shown.")
        first()
        gone = self._store.delete(account.id, old_hash=account.password_hash)
        if gone is None:
            raise _changed_meanwhile()
        logger.info("Account %s was deleted by its owner", account.id)
        return gone

    def my_sessions(self, token: str) -> list[Session]:
        """Browsers in which one is signed in, the one seen last first.

        Raises:
            AccessDeniedError: nobody is signed in by this token.
        """
        return self._sessions.listing(self._visitor(token).id)

    def end_my_session(self, token: str, session_id: str) -> None:
        """Sign out one of one's browsers.

        Raises:
            AccessDeniedError: nobody is signed in by this token.
            UnknownAccountError: one has no such session.
        """
        if not self._store.end_session_by_id(self._visitor(token).id, session_id):
            raise UnknownAccountError("This session has ended; look at the list again.")

    def sign_out_everywhere(self, token: str) -> None:
        """End all of one's sessions, this one too; known browsers are strangers again.

        Raises:
            AccessDeniedError: nobody is signed in by this token.
        """
        self._store.forget_devices(self._visitor(token).id, new_device_key())

    def preferences(self, account_id: str) -> dict[str, str]:
        """What a person last set the pages to."""
        return self._store.preferences(account_id)

    def save_preferences(self, account_id: str, choices: Mapping[str, str]) -> bool:
        """Keep them in the place of earlier ones; False where the account is gone."""
        return self._store.save_preferences(account_id, choices, self._clock())

    # Whoever holds the machine

    def find(self, name: str) -> Account | None:
        """The account of this name, for the command line.

        Raises:
            AccountInputError: no account can have this name.
        """
        return self._store.by_key(parse_name(name).key)

    def make_administrator(self, name: str, password: str | None) -> Account:
        """Make an administrator, of an account that is there or of a new one.

        One that is there is enabled, and keeps its password and its sessions unless another
        password is given.

        Raises:
            AccountInputError: name or password cannot be taken, or a new account got no password.
        """
        wanted = parse_name(name)
        account = self._store.by_key(wanted.key)
        if account is None:
            if password is None:
                raise AccountInputError(f"The new account {wanted.display} needs a password.")
            return self._added(wanted, checked_password(password, wanted), Role.ADMINISTRATOR)
        if password is not None:
            new_hash = self._hasher.hash(checked_password(password, wanted))
            check_found(
                self._store.set_password(account.id, new_hash, new_device_key(), self._clock())
            )
        check_found(self._store.set_role(account.id, Role.ADMINISTRATOR))
        check_found(self._store.set_disabled(account.id, False))
        return self._account(account.id)

    # What these are made of

    def _registered(
        self, wanted: Name, password: str, code: str | None, subject: str | None
    ) -> Account:
        invited = self._settings.registration is Registration.INVITATION
        hashed_code = self._invitations.checked(code) if invited else None
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
        password_hash, now = self._hasher.hash(password), self._clock()
        account = Account(
            name=wanted.display,
            key=wanted.key,
            look=wanted.look,
            password_hash=password_hash,
            device_key=new_device_key(),
            role=role,
            created_at=now,
            password_changed_at=now,
            subject=subject,
        )
        if hashed_code is None:
            added: bool | None = self._store.add(account)
        else:
            added = self._store.add_invited(account, hashed_code, now)
        if added is None:
            raise refused()
        if not added:
            raise _taken(wanted)
        return account

    def _signed_in(self, account: Account, client: Client) -> SignedIn:
        begun = self._sessions.begin(account, client.agent)
        if begun is None:
            raise _changed_meanwhile()
        device = new_device(account.id, account.device_key)
        if device_nonce(client.device, account.id, account.device_key):
            device = client.device or device  # one browser keeps one count
        return SignedIn(account, begun.session, begun.token, device)

    def _sign_in_buckets(
        self, account: Account | None, key: str, client: Client
    ) -> Sequence[Bucket]:
        settings = self._settings
        if account is not None:
            nonce = device_nonce(client.device, account.id, account.device_key)
            if nonce is not None:
                known = f"{account.id}.{nonce}"
                return [Bucket(Kind.DEVICE, known, settings.failures_per_device)]
        named = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return [
            Bucket(Kind.ADDRESS, address_key(client.address), settings.failures_per_address),
            Bucket(Kind.ACCOUNT, named, settings.failures_per_account),
        ]

    def _check_owner(self, account: Account, password: str) -> None:
        limit = self._settings.failures_per_device
        self._check_password(account, password, [Bucket(Kind.OWNER, account.id, limit)])

    def _check_password(
        self, account: Account | None, password: str, buckets: Sequence[Bucket]
    ) -> None:
        """One hashing, counted as a failure unless the password is right.

        Raises:
            SignInError: it is wrong.
            TooManyAttemptsError: too many failed before; nothing was hashed.
        """
        attempt = self._attempts.begin(buckets)
        try:
            right = self._hasher.verify(account.password_hash if account else None, password)
        except PaddockError:  # not the person's fault
            self._attempts.forgive(attempt)
            raise
        if not right:
            raise _wrong()
        self._attempts.forgive(attempt)

    def _rehashed(self, account: Account, password: str) -> Account:
        """The account, its password hashed anew where more work is asked for now."""
        if not self._hasher.outdated(account.password_hash):
            return account
        try:
            new = self._hasher.hash(password)
            replaced = self._store.replace_hash(account.id, account.password_hash, new)
        except PaddockError as error:  # the old hash still holds
            logger.warning("The password of account %s keeps its hash: %s", account.id, error)
            return account
        return self._account(account.id) if replaced else account

    def _visitor(self, token: str) -> Account:
        visit = self._sessions.find(token)
        if visit is None:
            raise AccessDeniedError("You are signed out; sign in and try again.")
        return visit.account

    def _account(self, account_id: str) -> Account:
        account = self._store.get(account_id)
        if account is None:
            raise not_found()
        return account


def _name_of(account: Account) -> Name:
    return Name(account.name, account.key, account.look)


def _wrong() -> SignInError:
    return SignInError("Name and password do not go together; check both and try again.")


def _disabled() -> SignInError:
    return SignInError("This account is disabled; ask an administrator to enable it.")


def _changed_meanwhile() -> SignInError:
    return SignInError("The account was changed or disabled at the same time; sign in again.")


def _taken(wanted: Name) -> AccountInputError:
    return AccountInputError(
        f"The name {wanted.display}, or one that looks like it, is taken; choose another."
    )
