"""Routes for sign-in, registration, password change and account deletion.

Each answers ``GET`` with the form, and ``POST`` with a redirect or with the form and an error next
to the field. Passwords are never sent back.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from core.auth import Accounts, Client, ProviderUser, SignedIn
from core.auth.names import parse_name
from core.auth.passwords import checked_password
from core.errors import (
    AccessDeniedError,
    AccountInputError,
    InvitationError,
    PaddockError,
    RecordsError,
    ResourceError,
    SignInError,
    TooManyAttemptsError,
    UserError,
)
from core.server import cookies, form_pages
from core.server.form_pages import Button, Card, Field
from core.server.forms import BadForm, CsrfTokens, read_form
from core.server.paths import (
    ACCOUNT_PAGE,
    DELETE,
    FIRST_PAGE,
    PASSWORD,
    REGISTER,
    SIGN_IN,
    SIGN_OUT,
    safe_next,
)
from core.server.visitor import Visitor, Visitors
from core.settings import Registration, Settings

T = TypeVar("T")

MAX_CONCURRENT = 16
"""Forms processed at the same time; fewer passwords are hashed. Further ones wait, so that they
never take all threads of the server."""

CSRF_FIELD = "csrf_token"
OWN = "own"
"""Query parameter of the sign-in link that shows the password form in spite of a provider."""
_EXPIRED_FORM = "This form has expired or was already submitted. Check it and submit it again."
_NO_DATABASE = "The database cannot be read at the moment. Try again in a minute."
_NOTES = {
    "left": "You are signed out.",
    "ended": "Your session has ended. Sign in again.",
    "deleted": "Your account and its data were deleted.",
}

logger = logging.getLogger(__name__)


class Providers:
    """OpenID Connect providers; this class is for a server without any."""

    def links(self) -> list[tuple[str, str]]:
        """Return address and text of the link to each provider."""
        return []

    def user(self, request: Request) -> ProviderUser | None:
        """Return the user whom a provider has authenticated in this browser."""
        return None

    def forget(self, request: Request, response: Response) -> None:
        """Delete the provider's cookie; Paddock's own session replaces it."""


@dataclass
class FormPages:
    """The form routes of one server."""

    visitors: Callable[[], Visitors]
    accounts: Callable[[], Accounts]
    load_settings: Callable[[], Settings]
    csrf_tokens: CsrfTokens = field(default_factory=CsrfTokens)
    on_sessions_ended: Callable[[], None] = lambda: None
    """Called after sessions have ended, to disconnect open pages."""
    before_deletion: Callable[[str], None] = lambda owner: None
    """Called in a thread before an account is deleted, to stop its running answers."""
    providers: Providers = field(default_factory=lambda: Providers())

    def routes(self, prefix: str = "") -> list[BaseRoute]:
        """Return all routes.

        Args:
            prefix: ``server.baseUrlPath``, with a leading and without a trailing slash.
        """
        self._limiter = anyio.CapacityLimiter(MAX_CONCURRENT)
        pages: dict[str, Callable[[Request, Visitor], Awaitable[Response]]] = {
            SIGN_IN: self._sign_in,
            REGISTER: self._register,
            SIGN_OUT: self._sign_out,
            PASSWORD: self._change_password,
            DELETE: self._delete,
        }
        return [
            *(
                Route(f"{prefix}/{path}", self._endpoint(path, page), methods=["GET", "POST"])
                for path, page in pages.items()
            ),
            Route(f"{prefix}/{form_pages.STYLE_PATH}", _file(form_pages.STYLE, "text/css")),
            Route(f"{prefix}/{form_pages.ICON_PATH}", _file(form_pages.ICON, "image/svg+xml")),
        ]

    # Common to all forms

    @cached_property
    def settings(self) -> Settings:
        """The settings, read at the first request."""
        return self.load_settings()

    def _endpoint(
        self, path: str, page: Callable[[Request, Visitor], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                visitor = await self._in_thread(lambda: self.visitors().of(request))
                response = await page(request, visitor)
            except RecordsError:
                logger.exception("The database failed while a form was processed")
                card = Card("Not available", path, (), error=_NO_DATABASE)
                return form_pages.response(card, 503)
            except UserError as error:  # an invalid setting
                return form_pages.response(Card("Not available", path, (), error=str(error)), 500)
            if visitor.stale and not _sets(response, cookies.SESSION):
                cookies.drop(response, cookies.SESSION, secure=visitor.secure)
            return response

        return answer

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    async def _submitted(self, request: Request, form: str, visitor: Visitor) -> dict[str, str]:
        """Return the fields of a submitted form.

        Raises:
            BadForm: it is invalid, expired or already submitted.
        """
        fields = await read_form(request)
        nonce = self._nonce(request, visitor)
        if not self.csrf_tokens.is_valid(fields.get(CSRF_FIELD, ""), form, nonce, visitor.token):
            raise _ExpiredForm(fields)
        return fields

    def _nonce(self, request: Request, visitor: Visitor) -> str | None:
        found = cookies.read(request.cookies, cookies.FORM, secure=visitor.secure)
        return found if self.csrf_tokens.is_nonce(found) else None

    def _show(self, request: Request, visitor: Visitor, card: Card, status: int = 200) -> Response:
        """Return a form with a CSRF token for this browser."""
        nonce = self._nonce(request, visitor)
        new = None if nonce else self.csrf_tokens.new_nonce()
        csrf_token = self.csrf_tokens.issue(card.action, nonce or new or "", visitor.token)
        if not visitor.secure and not visitor.place.on_this_machine:
            card = replace(
                card,
                warning="This connection is not encrypted. Others on the network can read your "
                "input.",
            )
        card = replace(card, hidden=(*card.hidden, (CSRF_FIELD, csrf_token)))
        response = form_pages.response(card, status)
        if new:
            cookies.put(response, cookies.FORM, new, secure=visitor.secure, strict=True)
        return response

    def _enter(
        self, signed_in: SignedIn, visitor: Visitor, fields: Mapping[str, str], where: str
    ) -> Response:
        """Set the cookies of a new session and redirect."""
        self.csrf_tokens.mark_used(fields.get(CSRF_FIELD, ""))
        response = _redirect(where)
        secure = visitor.secure
        longest = timedelta(hours=self.settings.session_max_h)
        cookies.put(response, cookies.SESSION, signed_in.token, secure=secure, age=longest)
        cookies.put(
            response, cookies.DEVICE, signed_in.device, secure=secure, age=cookies.DEVICE_AGE
        )
        cookies.drop(response, cookies.FORM, secure=secure)  # invalidates forms shown before
        return response

    # Sign-in and registration

    async def _sign_in(self, request: Request, visitor: Visitor) -> Response:
        where = safe_next(request.query_params.get("next"))
        if request.method != "POST" and visitor.account is not None:
            return _redirect(where)
        note = next((_NOTES[key] for key in _NOTES if key in request.query_params), "")
        own = OWN in request.query_params
        user = self.providers.user(request) if visitor.account is None and not own else None

        def card(name: str = "", **changes: Any) -> Card:
            registering = self.settings.registration is not Registration.CLOSED
            links = [(f"{REGISTER}{_next(where)}", "Create an account")] if registering else []
            links += self.providers.links()
            if visitor.access.use and visitor.account is None:
                links.append((where, "Continue as guest"))
            return Card(
                "Sign in to Paddock",
                SIGN_IN,
                [Button("Sign in")],
                fields=(
                    Field("name", "User name", value=name, autocomplete="username"),
                    Field("password", "Password", kind="password", autocomplete="current-password"),
                ),
                links=links,
                hidden=[("next", where)],
                **changes,
            )

        if request.method != "POST" and user is not None and not note:
            return await self._sign_in_with_provider(request, visitor, user, where, card)
        if request.method != "POST":
            response = self._show(request, visitor, card(note=note))
            if own:
                self.providers.forget(request, response)
            return response
        name = ""
        try:
            fields = await self._submitted(request, SIGN_IN, visitor)
            name, where = fields.get("name", ""), safe_next(fields.get("next"))
            password = fields.get("password", "")
            signed_in = await self._in_thread(
                lambda: self.accounts().sign_in(name, password, visitor.client)
            )
        except _ExpiredForm as expired:
            name, where = expired.fields.get("name", ""), safe_next(expired.fields.get("next"))
            return self._show(request, visitor, card(_short(name), error=str(expired)), 403)
        except (BadForm, PaddockError) as error:
            shown = card(_short(name), error=str(error))
            return self._show(request, visitor, shown, _status(error))
        await self._end_previous_session(visitor)
        response = self._enter(signed_in, visitor, fields, where)
        self.providers.forget(request, response)
        return response

    async def _end_previous_session(self, visitor: Visitor) -> None:
        if visitor.token is not None:
            token = visitor.token
            await self._in_thread(lambda: self.accounts().sign_out(token))
            self.on_sessions_ended()

    async def _sign_in_with_provider(
        self,
        request: Request,
        visitor: Visitor,
        user: ProviderUser,
        where: str,
        card: Callable[..., Card],
    ) -> Response:
        """Sign in a provider's user, or redirect to registration if they have no account."""
        try:
            signed_in = await self._in_thread(
                lambda: self.accounts().sign_in_with_provider(user, visitor.client)
            )
        except PaddockError as error:
            response = self._show(request, visitor, card(error=str(error)), _status(error))
            self.providers.forget(request, response)
            return response
        if signed_in is None:
            return _redirect(f"{REGISTER}{_next(where)}")
        response = self._enter(signed_in, visitor, {}, where)
        self.providers.forget(request, response)
        return response

    async def _register(self, request: Request, visitor: Visitor) -> Response:
        where = safe_next(request.query_params.get("next"))
        rule = self.settings.registration
        if request.method != "POST" and visitor.account is not None:
            return _redirect(where)
        back = (f"{SIGN_IN}{_next(where, OWN)}", "I have an account")
        if rule is Registration.CLOSED:
            sentence = "Ask an administrator for an account."
            response = form_pages.response(
                Card("Registration is closed", REGISTER, (), lead=sentence, links=[back]), 403
            )
            self.providers.forget(request, response)
            return response
        user = self.providers.user(request)

        def card(values: Mapping[str, str] | None = None, **errors: str) -> Card:
            values = values or ({"name": user.name} if user else {})
            fields = [
                Field(
                    "name",
                    "User name",
                    value=_short(values.get("name", "")),
                    autocomplete="username",
                    hint="2 to 32 letters and digits, with single dots, hyphens or underscores.",
                    error=errors.get("name", ""),
                ),
            ]
            if user is None:
                fields.append(_new_password("Password", errors.get("password", "")))
                fields.append(_confirm_password(errors.get("again", "")))
            if rule is Registration.INVITATION:
                fields.append(
                    Field(
                        "code",
                        "Invitation code",
                        value=_short(values.get("code", "")),
                        hint="Ask an administrator for a code.",
                        error=errors.get("code", ""),
                    )
                )
            return Card(
                "Create an account",
                REGISTER,
                [Button("Create account")],
                fields=fields,
                lead=""
                if rule is Registration.OPEN
                else "Registration requires an invitation code from an administrator.",
                error=errors.get("form", ""),
                links=[back],
                hidden=[("next", where)],
            )

        if request.method != "POST":
            return self._show(request, visitor, card())
        fields: dict[str, str] = {}
        try:
            fields = await self._submitted(request, REGISTER, visitor)
            where = safe_next(fields.get("next"))
            if errors := _field_errors(fields, with_password=user is None):
                return self._show(request, visitor, card(fields, **errors), 422)
            signed_in = await self._in_thread(
                lambda: self._registered(fields, visitor.client, user)
            )
        except _ExpiredForm as expired:
            return self._show(request, visitor, card(expired.fields, form=str(expired)), 403)
        except InvitationError as error:
            return self._show(request, visitor, card(fields, code=str(error)), 422)
        except AccountInputError as error:
            return self._show(request, visitor, card(fields, name=str(error)), 422)
        except (BadForm, PaddockError) as error:
            return self._show(request, visitor, card(fields, form=str(error)), _status(error))
        await self._end_previous_session(visitor)
        response = self._enter(signed_in, visitor, fields, where)
        self.providers.forget(request, response)
        return response

    def _registered(
        self, fields: Mapping[str, str], client: Client, user: ProviderUser | None
    ) -> SignedIn:
        accounts, name, code = self.accounts(), fields["name"], fields.get("code")
        if user is not None:
            return accounts.register_with_provider(user, name, client, code=code)
        return accounts.register(name, fields["password"], client, code=code)

    # Sign-out

    async def _sign_out(self, request: Request, visitor: Visitor) -> Response:
        if visitor.account is None:
            return _redirect(f"{SIGN_IN}?left")
        card = Card(
            "Sign out?",
            SIGN_OUT,
            [
                Button("Sign out", value="here"),
                Button("Sign out everywhere", kind="plain", value="everywhere"),
            ],
            lead=f"You are signed in as {visitor.account.name}. Open pages are disconnected.",
            links=[(ACCOUNT_PAGE, "Cancel")],
        )
        if request.method != "POST":
            return self._show(request, visitor, card)
        try:
            fields = await self._submitted(request, SIGN_OUT, visitor)
            everywhere = fields.get("do") == "everywhere"
            await self._in_thread(lambda: self._end(visitor, everywhere=everywhere))
        except (BadForm, PaddockError) as error:
            shown = replace(card, error=str(error))
            return self._show(request, visitor, shown, _status(error))
        return self._leave(f"{SIGN_IN}?left", visitor, fields)

    def _end(self, visitor: Visitor, *, everywhere: bool) -> None:
        assert visitor.token is not None
        if everywhere:
            self.accounts().sign_out_everywhere(visitor.token)
        else:
            self.accounts().sign_out(visitor.token)

    def _leave(self, where: str, visitor: Visitor, fields: Mapping[str, str]) -> Response:
        self.csrf_tokens.mark_used(fields.get(CSRF_FIELD, ""))
        self.on_sessions_ended()
        response = _redirect(where)
        cookies.drop(response, cookies.SESSION, secure=visitor.secure)
        cookies.drop(response, cookies.FORM, secure=visitor.secure)
        return response

    # Password change and account deletion

    async def _change_password(self, request: Request, visitor: Visitor) -> Response:
        if visitor.account is None:
            return _redirect(SIGN_IN)
        if visitor.account.subject is not None:
            sentence = "You sign in with a provider. Change your password there."
            back = [(ACCOUNT_PAGE, "Back")]
            return form_pages.response(Card("No password", PASSWORD, (), lead=sentence, links=back))
        token = visitor.token or ""

        def card(**errors: str) -> Card:
            return Card(
                "Change your password",
                PASSWORD,
                [Button("Change password")],
                fields=(
                    Field(
                        "old",
                        "Current password",
                        kind="password",
                        autocomplete="current-password",
                        error=errors.get("old", ""),
                    ),
                    _new_password("New password", errors.get("password", "")),
                    _confirm_password(errors.get("again", "")),
                ),
                lead="This signs you out in all other browsers.",
                error=errors.get("form", ""),
                links=[(ACCOUNT_PAGE, "Cancel")],
            )

        if request.method != "POST":
            return self._show(request, visitor, card())
        try:
            fields = await self._submitted(request, PASSWORD, visitor)
            old, new = fields.get("old", ""), fields.get("password", "")
            if new != fields.get("again", ""):
                return self._show(request, visitor, card(again=_PASSWORDS_DIFFER), 422)
            signed_in = await self._in_thread(
                lambda: self.accounts().change_password(token, old, new, visitor.client)
            )
        except AccountInputError as error:
            return self._show(request, visitor, card(password=str(error)), 422)
        except SignInError:
            return self._show(request, visitor, card(old="Incorrect password."), 403)
        except (BadForm, PaddockError) as error:
            return self._show(request, visitor, card(form=str(error)), _status(error))
        self.on_sessions_ended()
        return self._enter(signed_in, visitor, fields, ACCOUNT_PAGE)

    async def _delete(self, request: Request, visitor: Visitor) -> Response:
        if visitor.account is None:
            return _redirect(SIGN_IN)
        owner, token = visitor.account.id, visitor.token or ""
        own, name = visitor.account.subject is None, visitor.account.name

        def card(**errors: str) -> Card:
            return Card(
                "Delete your account?",
                DELETE,
                [Button("Delete account", kind="danger")],
                fields=(
                    Field(
                        "password",
                        "Password" if own else f"Type {name} to confirm",
                        kind="password" if own else "text",
                        autocomplete="current-password" if own else "off",
                        error=errors.get("password", ""),
                    ),
                ),
                lead="This also deletes your answers, votes, settings and sessions. "
                "It cannot be undone.",
                error=errors.get("form", ""),
                links=[(ACCOUNT_PAGE, "Cancel")],
            )

        if request.method != "POST":
            return self._show(request, visitor, card())

        def delete() -> None:
            self.accounts().delete_account(
                token, fields.get("password", ""), first=lambda: self.before_deletion(owner)
            )

        try:
            fields = await self._submitted(request, DELETE, visitor)
            await self._in_thread(delete)
        except SignInError as error:
            return self._show(request, visitor, card(password=str(error)), 403)
        except (BadForm, PaddockError) as error:
            return self._show(request, visitor, card(form=str(error)), _status(error))
        response = self._leave(f"{SIGN_IN}?deleted", visitor, fields)
        cookies.drop(response, cookies.DEVICE, secure=visitor.secure)
        return response


class _ExpiredForm(BadForm):
    """The CSRF token is not valid; the form is shown again with its input."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(403, _EXPIRED_FORM)
        self.fields = fields


_PASSWORDS_DIFFER = "The passwords do not match. Enter the same password twice."


def _new_password(label: str, error: str) -> Field:
    return Field(
        "password",
        label,
        kind="password",
        autocomplete="new-password",
        hint="8 to 256 characters, such as several words.",
        error=error,
    )


def _confirm_password(error: str) -> Field:
    return Field(
        "again", "Confirm password", kind="password", autocomplete="new-password", error=error
    )


def _field_errors(fields: Mapping[str, str], *, with_password: bool) -> dict[str, str]:
    """Return the errors of a registration by field, before the database is read."""
    wrong: dict[str, str] = {}
    name = None
    try:
        name = parse_name(fields.get("name", ""))
    except AccountInputError as error:
        wrong["name"] = str(error)
    if not with_password:
        return wrong
    try:
        checked_password(fields.get("password", ""), name)
    except AccountInputError as error:
        wrong["password"] = str(error)
    if "password" not in wrong and fields.get("password", "") != fields.get("again", ""):
        wrong["again"] = _PASSWORDS_DIFFER
    return wrong


def _status(error: Exception) -> int:
    match error:
        case BadForm():
            return error.status
        case TooManyAttemptsError():
            return 429
        case SignInError() | AccessDeniedError():
            return 403
        case ResourceError() | RecordsError():
            return 503
    return 422


def _redirect(where: str) -> Response:
    return RedirectResponse(where, 303, headers={"Cache-Control": "no-store"})


def _next(where: str, *more: str) -> str:
    """Return the query of a link to another form that keeps the redirect after sign-in."""
    query = [*more, *([] if where == FIRST_PAGE else [f"next={quote(where, safe='')}"])]
    return f"?{'&'.join(query)}" if query else ""


def _short(text: str) -> str:
    """Return a submitted value, shortened to be shown in its field again."""
    return text[:128].encode("utf-8", "replace").decode("utf-8")


def _sets(response: Response, cookie: str) -> bool:
    return any(
        name == b"set-cookie" and cookie.encode() in value.partition(b"=")[0]
        for name, value in response.raw_headers
    )


def _file(path: Any, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "max-age=3600"})

    return send
