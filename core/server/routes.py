"""Routes for sign-in, registration, password change and account deletion.

Each answers ``GET`` with the form, and ``POST`` with a redirect or with the form and an error next
to the field. Passwords are never sent back.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from core.server import cookies, forms
from core.server.forms import FORM, BadForm, Button, Card, CsrfTokens, Field, read_form
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


@dataclass(frozen=True)
class _Form:
    """A form for one visitor."""

    card: Card
    work: Callable[[], SignedIn | None]
    """What is done with the submitted form, in a thread; signs in or out."""
    where: str
    """Path that is opened after that."""
    at: Mapping[type[PaddockError], str] = field(default_factory=dict)
    """Fields to which errors belong, the most specific error first."""
    drops: Sequence[str] = (cookies.SESSION, cookies.FORM)
    """Cookies that are deleted by signing out."""
    keeps_text: bool = True
    """Whether what was typed is shown again beside an error; passwords never are."""


_Page = Callable[[Request, Visitor, Mapping[str, str]], Awaitable[Response | _Form]]
"""Returns the form, or another response, given what was submitted."""


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
        pages: dict[str, _Page] = {
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
            Route(f"{prefix}/{forms.STYLE_PATH}", _file(forms.STYLE, "text/css")),
            Route(f"{prefix}/{forms.ICON_PATH}", _file(forms.ICON, "image/svg+xml")),
            *(
                Route(f"{prefix}/{name}", _file(forms.FONTS / name, "font/woff2"))
                for name in forms.FONT_PATHS
            ),
        ]

    # Common to all forms

    @cached_property
    def settings(self) -> Settings:
        """The settings, read at the first request."""
        return self.load_settings()

    def _endpoint(self, path: str, page: _Page) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            unavailable = Card("Not available", path)
            try:
                visitor = await self._in_thread(lambda: self.visitors().of(request))
                response = await self._answer(request, visitor, path, page)
            except RecordsError:
                logger.exception("The database failed while a form was processed")
                return forms.response(unavailable, 503, errors={FORM: _NO_DATABASE})
            except UserError as error:  # an invalid setting
                return forms.response(unavailable, 500, errors={FORM: str(error)})
            if visitor.stale and not _sets(response, cookies.SESSION):
                cookies.drop(response, cookies.SESSION, secure=visitor.secure)
            return response

        return answer

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    async def _answer(self, request: Request, visitor: Visitor, path: str, page: _Page) -> Response:
        """Show a form, or process a submitted one and show it again if it has an error."""
        sent: dict[str, str] = {}
        unreadable = None
        if request.method == "POST":
            try:
                sent = await read_form(request)
            except BadForm as error:
                unreadable = error
        form = await page(request, visitor, sent)
        if isinstance(form, Response):
            return form
        if request.method != "POST":
            return self._show(request, visitor, form.card)
        token = sent.get(CSRF_FIELD, "")
        kept = sent if form.keeps_text else {}
        try:
            if unreadable is not None:
                raise unreadable
            if not self.csrf_tokens.is_valid(
                token, path, self._nonce(request, visitor), visitor.token
            ):
                raise BadForm(403, _EXPIRED_FORM)
            signed_in = await self._in_thread(form.work)
        except _InvalidFields as error:
            return self._show(request, visitor, form.card, 422, values=kept, errors=error.errors)
        except (BadForm, PaddockError) as error:
            kinds = form.at.items()
            name = next((name for kind, name in kinds if isinstance(error, kind)), FORM)
            errors, status = {name: str(error)}, _status(error)
            return self._show(request, visitor, form.card, status, values=kept, errors=errors)
        self.csrf_tokens.mark_used(token)
        if signed_in is not None:
            return await self._enter(request, visitor, signed_in, form.where)
        self.on_sessions_ended()
        response = _redirect(form.where)
        for cookie in form.drops:
            cookies.drop(response, cookie, secure=visitor.secure)
        return response

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
        response = forms.response(
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
        self, request: Request, visitor: Visitor, signed_in: SignedIn, where: str
    ) -> Response:
        """End the session before, set the cookies of the new one, and redirect."""
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
        self.providers.forget(request, response)
        return response

    # The forms

    async def _sign_in(
        self, request: Request, visitor: Visitor, sent: Mapping[str, str]
    ) -> Response | _Form:
        where, posted = _where(request, sent), request.method == "POST"
        if visitor.account is not None and not posted:
            return _redirect(where)
        own = OWN in request.query_params
        user = self.providers.user(request) if visitor.account is None and not own else None
        note = next((_NOTES[key] for key in _NOTES if key in request.query_params), "")
        registering = self.settings.registration is not Registration.CLOSED
        links = [(f"{REGISTER}{_next(where)}", "Create an account")] if registering else []
        links += self.providers.links()
        if visitor.access.use and visitor.account is None:
            links.append((where, "Continue as guest"))
        card = replace(_SIGN_IN, links=links, hidden=[("next", where)])
        if posted:
            name, password = sent.get("name", ""), sent.get("password", "")
            return _Form(
                card, lambda: self.accounts().sign_in(name, password, visitor.client), where
            )
        if user is None or note:
            response = self._show(request, visitor, card, note=note)
            if own:
                self.providers.forget(request, response)
            return response
        try:
            known = await self._in_thread(
                lambda: self.accounts().sign_in_with_provider(user.subject, visitor.client)
            )
        except PaddockError as error:
            errors, status = {FORM: str(error)}, _status(error)
            response = self._show(request, visitor, card, status, errors=errors)
            self.providers.forget(request, response)
            return response
        if known is None:
            return _redirect(f"{REGISTER}{_next(where)}")
        return await self._enter(request, visitor, known, where)

    async def _register(
        self, request: Request, visitor: Visitor, sent: Mapping[str, str]
    ) -> Response | _Form:
        where, rule = _where(request, sent), self.settings.registration
        if request.method != "POST" and visitor.account is not None:
            return _redirect(where)
        back = (f"{SIGN_IN}{_next(where, OWN)}", "I have an account")
        if rule is Registration.CLOSED:
            sentence = "Ask an administrator for an account."
            closed = Card("Registration is closed", lead=sentence, links=[back])
            response = forms.response(closed, 403)
            self.providers.forget(request, response)
            return response
        user = self.providers.user(request)
        inputs = [_NEW_NAME] if user is not None else [_NEW_NAME, _NEW_PASSWORD, _AGAIN]
        lead = ""
        if rule is Registration.INVITATION:
            inputs.append(_CODE)
            lead = "Registration requires an invitation code from an administrator."
        hidden = [("next", where)]
        card = replace(_REGISTER, fields=inputs, lead=lead, links=[back], hidden=hidden)
        if request.method != "POST":
            return self._show(request, visitor, card, values={"name": user.name} if user else {})

        def register() -> SignedIn:
            _check_fields(sent, with_password=user is None)
            return self.accounts().register(
                sent["name"],
                sent.get("password"),
                visitor.client,
                code=sent.get("code"),
                subject=user.subject if user else None,
            )

        at = {InvitationError: _CODE.name, AccountInputError: _NAME.name}
        return _Form(card, register, where, at)

    async def _sign_out(
        self, request: Request, visitor: Visitor, sent: Mapping[str, str]
    ) -> Response | _Form:
        if visitor.account is None:
            return _redirect(f"{SIGN_IN}?left")
        lead = f"You are signed in as {visitor.account.name}. Open pages are disconnected."
        token = visitor.token or ""

        def end() -> None:
            if sent.get("do") == "everywhere":
                self.accounts().sign_out_everywhere(token)
            else:
                self.accounts().sessions.end(token)

        return _Form(replace(_SIGN_OUT, lead=lead), end, f"{SIGN_IN}?left")

    async def _change_password(
        self, request: Request, visitor: Visitor, sent: Mapping[str, str]
    ) -> Response | _Form:
        if visitor.account is None:
            return _redirect(SIGN_IN)
        if visitor.account.subject is not None:
            sentence = "You sign in with a provider. Change your password there."
            back = [(ACCOUNT_PAGE, "Back")]
            return forms.response(Card("No password", lead=sentence, links=back))

        def change() -> SignedIn:
            old, new = sent.get("old", ""), sent.get("password", "")
            if new != sent.get("again", ""):
                raise _InvalidFields({"again": _PASSWORDS_DIFFER})
            try:
                token = visitor.token or ""
                return self.accounts().change_password(token, old, new, visitor.client)
            except SignInError as error:
                raise SignInError("Incorrect password.") from error

        at = {AccountInputError: "password", SignInError: "old"}
        return _Form(_CHANGE_PASSWORD, change, ACCOUNT_PAGE, at)

    async def _delete(
        self, request: Request, visitor: Visitor, sent: Mapping[str, str]
    ) -> Response | _Form:
        if visitor.account is None:
            return _redirect(SIGN_IN)
        owner, token, name = visitor.account.id, visitor.token or "", visitor.account.name
        confirm = Field("password", f"Type {name} to confirm")
        if visitor.account.subject is None:
            confirm = Field("password", "Password", "password", "current-password")

        def delete() -> None:
            self.accounts().delete_account(
                token, sent.get("password", ""), first=lambda: self.before_deletion(owner)
            )

        drops = (cookies.SESSION, cookies.FORM, cookies.DEVICE)
        card, at = replace(_DELETE, fields=[confirm]), {SignInError: "password"}
        return _Form(card, delete, f"{SIGN_IN}?deleted", at, drops, keeps_text=False)


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


def _where(request: Request, sent: Mapping[str, str]) -> str:
    """Return the redirect after sign-in, which the form passes on."""
    return safe_next(sent.get("next") or request.query_params.get("next"))


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
