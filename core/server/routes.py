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

from core.auth import Accounts, ProviderUser, SignedIn
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
from core.server.form_pages import FORM, Button, Card, Field
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

_PASSWORDS_DIFFER = "The passwords do not match. Enter the same password twice."

_NAME = Field("name", "User name", autocomplete="username")
_NEW_NAME = replace(
    _NAME, hint="2 to 32 letters and digits, with single dots, hyphens or underscores."
)
_NEW_PASSWORD = Field(
    "password",
    "Password",
    kind="password",
    autocomplete="new-password",
    hint="8 to 256 characters, such as several words.",
)
_AGAIN = Field("again", "Confirm password", kind="password", autocomplete="new-password")
_CODE = Field("code", "Invitation code", hint="Ask an administrator for a code.")
_CANCEL = [(ACCOUNT_PAGE, "Cancel")]

_SIGN_IN = Card(
    "Sign in to Paddock",
    SIGN_IN,
    [Button("Sign in")],
    [_NAME, Field("password", "Password", kind="password", autocomplete="current-password")],
)
_REGISTER = Card("Create an account", REGISTER, [Button("Create account")])
_SIGN_OUT = Card(
    "Sign out?",
    SIGN_OUT,
    [
        Button("Sign out", value="here"),
        Button("Sign out everywhere", kind="plain", value="everywhere"),
    ],
    links=_CANCEL,
)
_CHANGE_PASSWORD = Card(
    "Change your password",
    PASSWORD,
    [Button("Change password")],
    [
        Field("old", "Current password", kind="password", autocomplete="current-password"),
        replace(_NEW_PASSWORD, label="New password"),
        _AGAIN,
    ],
    lead="This signs you out in all other browsers.",
    links=_CANCEL,
)
_DELETE = Card(
    "Delete your account?",
    DELETE,
    [Button("Delete account", kind="danger")],
    lead="This also deletes your answers, votes, settings and sessions. It cannot be undone.",
    links=_CANCEL,
)

logger = logging.getLogger(__name__)

Show = Callable[[Mapping[str, str], Mapping[str, str], int], Response]
"""Returns a form with values, errors and this status."""


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
        """Return all routes."""
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
            *(
                Route(f"{prefix}/{name}", _file(form_pages.FONTS / name, "font/woff2"))
                for name in form_pages.FONT_PATHS
            ),
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
            unavailable = Card("Not available", path)
            try:
                visitor = await self._in_thread(lambda: self.visitors().of(request))
                response = await page(request, visitor)
            except _Rejected as rejected:
                response = rejected.response
            except RecordsError:
                logger.exception("The database failed while a form was processed")
                return form_pages.response(unavailable, 503, errors={FORM: _NO_DATABASE})
            except UserError as error:  # an invalid setting
                return form_pages.response(unavailable, 500, errors={FORM: str(error)})
            if visitor.stale and not _sets(response, cookies.SESSION):
                cookies.drop(response, cookies.SESSION, secure=visitor.secure)
            return response

        return answer

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    async def _processed(
        self,
        request: Request,
        visitor: Visitor,
        form: str,
        show: Show,
        work: Callable[[dict[str, str]], T],
        at: Mapping[type[PaddockError], str] | None = None,
    ) -> tuple[dict[str, str], T]:
        """Return the fields of a submitted form, and what was done with them in a thread.

        Args:
            at: errors that belong to a field, the most specific kind first.

        Raises:
            _Rejected: it has an error, has expired or was already submitted; the form is shown
                again with its input.
        """
        fields: dict[str, str] = {}
        try:
            fields = await read_form(request)
            token, nonce = fields.get(CSRF_FIELD, ""), self._nonce(request, visitor)
            if not self.csrf_tokens.is_valid(token, form, nonce, visitor.token):
                raise BadForm(403, _EXPIRED_FORM)
            return fields, await self._in_thread(lambda: work(fields))
        except _InvalidFields as invalid:
            raise _Rejected(show(fields, invalid.errors, 422)) from invalid
        except (BadForm, PaddockError) as error:
            kinds = (at or {}).items()
            name = next((name for kind, name in kinds if isinstance(error, kind)), FORM)
            raise _Rejected(show(fields, {name: str(error)}, _status(error))) from error

    def _nonce(self, request: Request, visitor: Visitor) -> str | None:
        found = cookies.read(request.cookies, cookies.FORM, secure=visitor.secure)
        return found if self.csrf_tokens.is_nonce(found) else None

    def _show(
        self,
        request: Request,
        visitor: Visitor,
        card: Card,
        status: int = 200,
        *,
        values: Mapping[str, str] | None = None,
        errors: Mapping[str, str] | None = None,
        note: str = "",
    ) -> Response:
        """Return a form with a CSRF token for this browser."""
        nonce = self._nonce(request, visitor)
        new = None if nonce else self.csrf_tokens.new_nonce()
        csrf_token = self.csrf_tokens.issue(card.action, nonce or new or "", visitor.token)
        warning = ""
        if not visitor.secure and not visitor.place.on_this_machine:
            warning = "This connection is not encrypted. Others on the network can read your input."
        response = form_pages.response(
            replace(card, hidden=(*card.hidden, (CSRF_FIELD, csrf_token))),
            status,
            values={name: _short(value) for name, value in (values or {}).items()},
            errors=errors,
            note=note,
            warning=warning,
        )
        if new:
            cookies.put(response, cookies.FORM, new, secure=visitor.secure, strict=True)
        return response

    async def _enter(
        self, signed_in: SignedIn, visitor: Visitor, fields: Mapping[str, str], where: str
    ) -> Response:
        """End the session before, set the cookies of the new one, and redirect."""
        self.csrf_tokens.mark_used(fields.get(CSRF_FIELD, ""))
        if (earlier := visitor.token) is not None:
            await self._in_thread(lambda: self.accounts().sessions.end(earlier))
            self.on_sessions_ended()
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
        posted = request.method == "POST"
        if not posted and visitor.account is not None:
            return _redirect(where)
        note = next((_NOTES[key] for key in _NOTES if key in request.query_params), "")
        own = OWN in request.query_params
        user = self.providers.user(request) if visitor.account is None and not own else None

        def show(
            values: Mapping[str, str], errors: Mapping[str, str], status: int, note: str = ""
        ) -> Response:
            to = safe_next(values.get("next")) if "next" in values else where
            registering = self.settings.registration is not Registration.CLOSED
            links = [(f"{REGISTER}{_next(to)}", "Create an account")] if registering else []
            links += self.providers.links()
            if visitor.access.use and visitor.account is None:
                links.append((to, "Continue as guest"))
            card = replace(_SIGN_IN, links=links, hidden=[("next", to)])
            options: dict[str, Any] = {"values": values, "errors": errors, "note": note}
            return self._show(request, visitor, card, status, **options)

        fields: dict[str, str] = {}
        if posted:
            fields, signed_in = await self._processed(
                request,
                visitor,
                SIGN_IN,
                show,
                lambda sent: self.accounts().sign_in(
                    sent.get("name", ""), sent.get("password", ""), visitor.client
                ),
            )
            where = safe_next(fields.get("next"))
        elif user is None or note:
            response = show({}, {}, 200, note)
            if own:
                self.providers.forget(request, response)
            return response
        else:
            try:
                known = await self._in_thread(
                    lambda: self.accounts().sign_in_with_provider(user, visitor.client)
                )
            except PaddockError as error:
                response = show({}, {FORM: str(error)}, _status(error))
                self.providers.forget(request, response)
                return response
            if known is None:
                return _redirect(f"{REGISTER}{_next(where)}")
            signed_in = known
        response = await self._enter(signed_in, visitor, fields, where)
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
            card = Card("Registration is closed", lead=sentence, links=[back])
            response = form_pages.response(card, 403)
            self.providers.forget(request, response)
            return response
        user = self.providers.user(request)
        inputs = [_NEW_NAME] if user is not None else [_NEW_NAME, _NEW_PASSWORD, _AGAIN]
        lead = ""
        if rule is Registration.INVITATION:
            inputs.append(_CODE)
            lead = "Registration requires an invitation code from an administrator."

        def show(values: Mapping[str, str], errors: Mapping[str, str], status: int) -> Response:
            to = safe_next(values.get("next")) if "next" in values else where
            card = replace(_REGISTER, fields=inputs, lead=lead, links=[back], hidden=[("next", to)])
            return self._show(request, visitor, card, status, values=values, errors=errors)

        def register(sent: Mapping[str, str]) -> SignedIn:
            _check_fields(sent, with_password=user is None)
            accounts, name, code = self.accounts(), sent["name"], sent.get("code")
            if user is not None:
                return accounts.register_with_provider(user, name, visitor.client, code=code)
            return accounts.register(name, sent["password"], visitor.client, code=code)

        if request.method != "POST":
            return show({"name": user.name} if user else {}, {}, 200)
        fields, signed_in = await self._processed(
            request,
            visitor,
            REGISTER,
            show,
            register,
            {InvitationError: _CODE.name, AccountInputError: _NAME.name},
        )
        response = await self._enter(signed_in, visitor, fields, safe_next(fields.get("next")))
        self.providers.forget(request, response)
        return response

    # Sign-out

    async def _sign_out(self, request: Request, visitor: Visitor) -> Response:
        if visitor.account is None:
            return _redirect(f"{SIGN_IN}?left")
        lead = f"You are signed in as {visitor.account.name}. Open pages are disconnected."
        show = self._shower(request, visitor, replace(_SIGN_OUT, lead=lead))
        token = visitor.token or ""

        def end(sent: Mapping[str, str]) -> None:
            if sent.get("do") == "everywhere":
                self.accounts().sign_out_everywhere(token)
            else:
                self.accounts().sessions.end(token)

        if request.method != "POST":
            return show({}, {}, 200)
        fields, _ = await self._processed(request, visitor, SIGN_OUT, show, end)
        return self._leave(f"{SIGN_IN}?left", visitor, fields)

    def _shower(self, request: Request, visitor: Visitor, card: Card) -> Show:
        """Return a function that shows this card, without what was submitted."""
        return lambda values, errors, status: self._show(
            request, visitor, card, status, errors=errors
        )

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
            return form_pages.response(Card("No password", lead=sentence, links=back))
        show, token = self._shower(request, visitor, _CHANGE_PASSWORD), visitor.token or ""

        def change(sent: Mapping[str, str]) -> SignedIn:
            old, new = sent.get("old", ""), sent.get("password", "")
            if new != sent.get("again", ""):
                raise _InvalidFields({"again": _PASSWORDS_DIFFER})
            try:
                return self.accounts().change_password(token, old, new, visitor.client)
            except SignInError as error:
                raise SignInError("Incorrect password.") from error

        if request.method != "POST":
            return show({}, {}, 200)
        at = {AccountInputError: "password", SignInError: "old"}
        fields, signed_in = await self._processed(request, visitor, PASSWORD, show, change, at)
        return await self._enter(signed_in, visitor, fields, ACCOUNT_PAGE)

    async def _delete(self, request: Request, visitor: Visitor) -> Response:
        if visitor.account is None:
            return _redirect(SIGN_IN)
        owner, token, name = visitor.account.id, visitor.token or "", visitor.account.name
        confirm = Field("password", f"Type {name} to confirm")
        if visitor.account.subject is None:
            confirm = Field("password", "Password", "password", "current-password")
        show = self._shower(request, visitor, replace(_DELETE, fields=[confirm]))

        def delete(sent: Mapping[str, str]) -> None:
            self.accounts().delete_account(
                token, sent.get("password", ""), first=lambda: self.before_deletion(owner)
            )

        if request.method != "POST":
            return show({}, {}, 200)
        at = {SignInError: "password"}
        fields, _ = await self._processed(request, visitor, DELETE, show, delete, at)
        response = self._leave(f"{SIGN_IN}?deleted", visitor, fields)
        cookies.drop(response, cookies.DEVICE, secure=visitor.secure)
        return response


class _Rejected(Exception):
    """A submitted form has an error; the response shows it again."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class _InvalidFields(Exception):
    """Errors by field, found before the database is read."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__()
        self.errors = errors


def _check_fields(fields: Mapping[str, str], *, with_password: bool) -> None:
    """Check a registration.

    Raises:
        _InvalidFields: it has errors.
    """
    errors: dict[str, str] = {}
    name = None
    try:
        name = parse_name(fields.get("name", ""))
    except AccountInputError as error:
        errors["name"] = str(error)
    if with_password:
        try:
            checked_password(fields.get("password", ""), name)
            if fields.get("password", "") != fields.get("again", ""):
                errors["again"] = _PASSWORDS_DIFFER
        except AccountInputError as error:
            errors["password"] = str(error)
    if errors:
        raise _InvalidFields(errors)


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
