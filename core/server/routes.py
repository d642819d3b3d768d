"""The forms by which people come and go, and what they do.

Each answers ``GET`` with the form and ``POST`` with a redirect, or with the form again and a
sentence beside what is wrong. Nothing that was typed as a password is ever sent back.
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
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from core.auth import Accounts, Client, Outsider, SignedIn
from core.auth.names import parse_name
from core.auth.passwords import checked_password
from core.errors import (
    AccessDeniedError,
    AccountInputError,
    InvitationError,
    PaddockError,
    PersonMistake,
    RecordsError,
    ResourceError,
    SignInError,
    TooManyAttemptsError,
)
from core.server import cookies, form_pages
from core.server.form_pages import Button, Card, Field
from core.server.forms import BadForm, Seals, from_this_site, read_form
from core.server.headers import FORM_POLICY
from core.server.paths import (
    ACCOUNT_PAGE,
    DELETE,
    FIRST_PAGE,
    PASSWORD,
    REGISTER,
    SIGN_IN,
    SIGN_OUT,
    onward,
)
from core.server.visitor import Visitor, Visitors
from core.settings import Registration, Settings

T = TypeVar("T")

AT_ONCE = 16
"""Forms that are worked on at once; argon2 lets fewer hash. The others wait, so that the threads
which serve everything else are never all taken."""

SEAL = "seal"
OWN = "own"
"""In the link to the sign-in form for whoever has an account of ours, whatever a provider says."""
_STALE_FORM = "This form was open too long, or was sent already; check it and send it once more."
_FOREIGN_FORM = "This form was not sent from its own page; open it here and send it again."
_NOTES = {
    "left": "You are signed out.",
    "ended": "Your session has ended. Sign in again to go on.",
    "deleted": "Your account and all that belonged to it are deleted.",
}

logger = logging.getLogger(__name__)


class Providers:
    """Providers by which people can sign in too; this one is for a server without any."""

    def ways(self) -> list[tuple[str, str]]:
        """Address and words of the link to each."""
        return []

    def outsider(self, request: Request) -> Outsider | None:
        """Whom a provider has vouched for in this browser."""
        return None

    def forget(self, request: Request, response: Response) -> None:
        """Make the browser forget that: from now on it is known by our own session."""


@dataclass
class FormPages:
    """The routes; one object a server."""

    visitors: Callable[[], Visitors]
    accounts: Callable[[], Accounts]
    load_settings: Callable[[], Settings]
    seals: Seals = field(default_factory=Seals)
    ended: Callable[[], None] = lambda: None
    """Called when sessions have ended: open pages are cut off."""
    leaving: Callable[[str], None] = lambda owner: None
    """Called in a thread before an account is deleted: its answers under way are stopped."""
    providers: Providers = field(default_factory=lambda: Providers())
    """By which one can sign in too."""

    def routes(self, prefix: str = "") -> list[BaseRoute]:
        """All of them.

        Args:
            prefix: ``server.baseUrlPath``, with a slash before and none behind.
        """
        self._turns = anyio.CapacityLimiter(AT_ONCE)
        pages: dict[str, Callable[[Request, Visitor], Awaitable[Response]]] = {
            SIGN_IN: self._sign_in,
            REGISTER: self._register,
            SIGN_OUT: self._sign_out,
            PASSWORD: self._change_password,
            DELETE: self._delete,
        }
        return [
            *(
                Route(f"{prefix}/{path}", self._answering(path, page), methods=["GET", "POST"])
                for path, page in pages.items()
            ),
            Route(f"{prefix}/{form_pages.STYLE_PATH}", _file(form_pages.STYLE, "text/css")),
            Route(f"{prefix}/{form_pages.ICON_PATH}", _file(form_pages.ICON, "image/svg+xml")),
        ]

    # What all have in common

    @cached_property
    def settings(self) -> Settings:
        """Read when the first form is asked for."""
        return self.load_settings()

    def _answering(
        self, path: str, page: Callable[[Request, Visitor], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                visitor = await self._in_thread(lambda: self.visitors().of(request))
                response = await page(request, visitor)
            except RecordsError:
                logger.exception("The database failed while a form was answered")
                sentence = "The database cannot be read just now; try again in a minute."
                return _shown(Card("Not available just now", path, (), error=sentence), 503)
            except PersonMistake as error:  # a setting that cannot be
                return _shown(Card("Not available", path, (), error=str(error)), 500)
            if visitor.stale and not _sets(response, cookies.SESSION):
                cookies.drop(response, cookies.SESSION, secure=visitor.secure)
            return response

        return answer

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._turns)

    async def _sent(self, request: Request, form: str, visitor: Visitor) -> dict[str, str]:
        """The fields of a form that was shown by us, to this browser, and not done yet.

        Raises:
            BadForm: it was not.
        """
        if not from_this_site(request):
            raise BadForm(403, _FOREIGN_FORM)
        fields = await read_form(request)
        nonce = self._nonce(request, visitor)
        if not self.seals.holds(fields.get(SEAL, ""), form, nonce, visitor.token):
            raise _StaleForm(fields)
        return fields

    def _nonce(self, request: Request, visitor: Visitor) -> str | None:
        found = cookies.read(request.cookies, cookies.FORM, secure=visitor.secure)
        return found if self.seals.is_nonce(found) else None

    def _show(self, request: Request, visitor: Visitor, card: Card, status: int = 200) -> Response:
        """A form, sealed for this browser."""
        nonce = self._nonce(request, visitor)
        new = None if nonce else self.seals.new_nonce()
        seal = self.seals.seal(card.action, nonce or new or "", visitor.token)
        if not visitor.secure and not visitor.place.on_this_machine:
            card = replace(
                card,
                warning="This connection is not encrypted: others on the network can read what "
                "you type here.",
            )
        response = _shown(replace(card, hidden=(*card.hidden, (SEAL, seal))), status)
        if new:
            cookies.put(response, cookies.FORM, new, secure=visitor.secure, strict=True)
        return response

    def _enter(
        self, signed_in: SignedIn, visitor: Visitor, fields: Mapping[str, str], where: str
    ) -> Response:
        """Send somebody on who has signed in just now, in this browser."""
        self.seals.spend(fields.get(SEAL, ""))
        response = _redirect(where)
        secure = visitor.secure
        longest = timedelta(hours=self.settings.session_max_h)
        cookies.put(response, cookies.SESSION, signed_in.token, secure=secure, age=longest)
        cookies.put(
            response, cookies.DEVICE, signed_in.device, secure=secure, age=cookies.DEVICE_AGE
        )
        cookies.drop(response, cookies.FORM, secure=secure)  # forms of before are void
        return response

    # Coming

    async def _sign_in(self, request: Request, visitor: Visitor) -> Response:
        where = onward(request.query_params.get("next"))
        if request.method != "POST" and visitor.account is not None:
            return _redirect(where)
        note = next((_NOTES[key] for key in _NOTES if key in request.query_params), "")
        own = OWN in request.query_params
        outsider = self.providers.outsider(request) if visitor.account is None and not own else None

        def card(name: str = "", **changes: Any) -> Card:
            registering = self.settings.registration is not Registration.CLOSED
            links = [(f"{REGISTER}{_next(where)}", "Create an account")] if registering else []
            links += self.providers.ways()
            if visitor.access.use and visitor.account is None:
                links.append((where, "Go on without an account"))
            return Card(
                "Sign in to Paddock",
                SIGN_IN,
                [Button("Sign in")],
                fields=(
                    Field("name", "Name", value=name, autocomplete="username"),
                    Field("password", "Password", kind="password", autocomplete="current-password"),
                ),
                links=links,
                hidden=[("next", where)],
                **changes,
            )

        if request.method != "POST" and outsider is not None and not note:
            return await self._outsider(request, visitor, outsider, where, card)
        if request.method != "POST":
            response = self._show(request, visitor, card(note=note))
            if own:
                self.providers.forget(request, response)
            return response
        name = ""
        try:
            fields = await self._sent(request, SIGN_IN, visitor)
            name, where = fields.get("name", ""), onward(fields.get("next"))
            password = fields.get("password", "")
            signed_in = await self._in_thread(
                lambda: self.accounts().sign_in(name, password, visitor.client)
            )
        except _StaleForm as stale:
            name, where = stale.fields.get("name", ""), onward(stale.fields.get("next"))
            return self._show(request, visitor, card(_short(name), error=str(stale)), 403)
        except (BadForm, PaddockError) as error:
            shown = card(_short(name), error=str(error))
            return self._show(request, visitor, shown, _status(error))
        await self._end_former(visitor)
        response = self._enter(signed_in, visitor, fields, where)
        self.providers.forget(request, response)
        return response

    async def _end_former(self, visitor: Visitor) -> None:
        """Whoever signs in where somebody was signed in takes the place of that session."""
        if visitor.token is not None:
            token = visitor.token
            await self._in_thread(lambda: self.accounts().sign_out(token))
            self.ended()

    async def _outsider(
        self,
        request: Request,
        visitor: Visitor,
        outsider: Outsider,
        where: str,
        card: Callable[..., Card],
    ) -> Response:
        """Let somebody in whom a provider vouches for, or let them make an account first."""
        try:
            signed_in = await self._in_thread(
                lambda: self.accounts().sign_in_outsider(outsider, visitor.client)
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
        where = onward(request.query_params.get("next"))
        rule = self.settings.registration
        if request.method != "POST" and visitor.account is not None:
            return _redirect(where)
        back = (f"{SIGN_IN}{_next(where, OWN)}", "I have an account")
        if rule is Registration.CLOSED:
            sentence = "Nobody can register here; ask an administrator to let you in."
            response = _shown(
                Card("Registration is closed", REGISTER, (), lead=sentence, links=[back]), 403
            )
            self.providers.forget(request, response)
            return response
        outsider = self.providers.outsider(request)

        def card(typed: Mapping[str, str] | None = None, **errors: str) -> Card:
            typed = typed or ({"name": outsider.name} if outsider else {})
            fields = [
                Field(
                    "name",
                    "Name",
                    value=_short(typed.get("name", "")),
                    autocomplete="username",
                    hint="2 to 32 letters and digits, with single dots, hyphens or underscores.",
                    error=errors.get("name", ""),
                ),
            ]
            if outsider is None:
                fields.append(_new_password(errors.get("password", "")))
                fields.append(_password_again(errors.get("again", "")))
            if rule is Registration.INVITATION:
                fields.append(
                    Field(
                        "code",
                        "Invitation code",
                        value=_short(typed.get("code", "")),
                        hint="An administrator of this Paddock gives you one.",
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
                else "You need an invitation code from an administrator.",
                error=errors.get("form", ""),
                links=[back],
                hidden=[("next", where)],
            )

        if request.method != "POST":
            return self._show(request, visitor, card())
        fields: dict[str, str] = {}
        try:
            fields = await self._sent(request, REGISTER, visitor)
            where = onward(fields.get("next"))
            if wrong := _wrong_fields(fields, with_password=outsider is None):
                return self._show(request, visitor, card(fields, **wrong), 422)
            signed_in = await self._in_thread(
                lambda: self._registered(fields, visitor.client, outsider)
            )
        except _StaleForm as stale:
            return self._show(request, visitor, card(stale.fields, form=str(stale)), 403)
        except InvitationError as error:
            return self._show(request, visitor, card(fields, code=str(error)), 422)
        except AccountInputError as error:
            return self._show(request, visitor, card(fields, name=str(error)), 422)
        except (BadForm, PaddockError) as error:
            return self._show(request, visitor, card(fields, form=str(error)), _status(error))
        await self._end_former(visitor)
        response = self._enter(signed_in, visitor, fields, where)
        self.providers.forget(request, response)
        return response

    def _registered(
        self, fields: Mapping[str, str], client: Client, outsider: Outsider | None
    ) -> SignedIn:
        accounts, name, code = self.accounts(), fields["name"], fields.get("code")
        if outsider is not None:
            return accounts.register_outsider(outsider, name, client, code=code)
        return accounts.register(name, fields["password"], client, code=code)

    # Going

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
            lead=f"You are signed in as {visitor.account.name}. Open pages of the session close.",
            links=[(ACCOUNT_PAGE, "Stay signed in")],
        )
        if request.method != "POST":
            return self._show(request, visitor, card)
        try:
            fields = await self._sent(request, SIGN_OUT, visitor)
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
        self.seals.spend(fields.get(SEAL, ""))
        self.ended()
        response = _redirect(where)
        cookies.drop(response, cookies.SESSION, secure=visitor.secure)
        cookies.drop(response, cookies.FORM, secure=visitor.secure)
        return response

    # One's own account

    async def _change_password(self, request: Request, visitor: Visitor) -> Response:
        if visitor.account is None:
            return _redirect(SIGN_IN)
        if visitor.account.subject is not None:
            sentence = "You sign in by a provider; your password is changed there."
            back = [(ACCOUNT_PAGE, "Back")]
            return _shown(Card("No password here", PASSWORD, (), lead=sentence, links=back), 200)
        token = visitor.token or ""

        def card(**errors: str) -> Card:
            return Card(
                "Change your password",
                PASSWORD,
                [Button("Change password")],
                fields=(
                    Field(
                        "old",
                        "Present password",
                        kind="password",
                        autocomplete="current-password",
                        error=errors.get("old", ""),
                    ),
                    _new_password(errors.get("password", "")),
                    _password_again(errors.get("again", "")),
                ),
                lead="All other browsers are signed out.",
                error=errors.get("form", ""),
                links=[(ACCOUNT_PAGE, "Keep the present one")],
            )

        if request.method != "POST":
            return self._show(request, visitor, card())
        try:
            fields = await self._sent(request, PASSWORD, visitor)
            old, new = fields.get("old", ""), fields.get("password", "")
            if new != fields.get("again", ""):
                return self._show(request, visitor, card(again=_NOT_THE_SAME), 422)
            signed_in = await self._in_thread(
                lambda: self.accounts().change_password(token, old, new, visitor.client)
            )
        except AccountInputError as error:
            return self._show(request, visitor, card(password=str(error)), 422)
        except SignInError:
            return self._show(request, visitor, card(old="This is not your password."), 403)
        except (BadForm, PaddockError) as error:
            return self._show(request, visitor, card(form=str(error)), _status(error))
        self.ended()
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
                [Button("Delete everything", kind="danger")],
                fields=(
                    Field(
                        "password",
                        "Password" if own else f"Type {name} to confirm",
                        kind="password" if own else "text",
                        autocomplete="current-password" if own else "off",
                        error=errors.get("password", ""),
                    ),
                ),
                lead="Your answers, votes, settings and sessions go with it. "
                "This cannot be undone.",
                error=errors.get("form", ""),
                links=[(ACCOUNT_PAGE, "Keep it")],
            )

        if request.method != "POST":
            return self._show(request, visitor, card())

        def delete() -> None:
            self.accounts().delete_account(
                token, fields.get("password", ""), first=lambda: self.leaving(owner)
            )

        try:
            fields = await self._sent(request, DELETE, visitor)
            await self._in_thread(delete)
        except SignInError as error:
            return self._show(request, visitor, card(password=str(error)), 403)
        except (BadForm, PaddockError) as error:
            return self._show(request, visitor, card(form=str(error)), _status(error))
        response = self._leave(f"{SIGN_IN}?deleted", visitor, fields)
        cookies.drop(response, cookies.DEVICE, secure=visitor.secure)
        return response


class _StaleForm(BadForm):
    """Its seal does not hold; what was typed is shown again."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(403, _STALE_FORM)
        self.fields = fields


_NOT_THE_SAME = "The two are not the same; type the password once more."


def _new_password(error: str) -> Field:
    return Field(
        "password",
        "Password",
        kind="password",
        autocomplete="new-password",
        hint="8 to 256 characters; several words are easy to keep.",
        error=error,
    )


def _password_again(error: str) -> Field:
    return Field(
        "again", "Password again", kind="password", autocomplete="new-password", error=error
    )


def _wrong_fields(fields: Mapping[str, str], *, with_password: bool) -> dict[str, str]:
    """What cannot be taken of a registration, by field, before anything is looked up."""
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
        wrong["again"] = _NOT_THE_SAME
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


def _shown(card: Card, status: int) -> Response:
    return HTMLResponse(
        form_pages.page(card),
        status,
        headers={"Cache-Control": "no-store", "Content-Security-Policy": FORM_POLICY},
    )


def _redirect(where: str) -> Response:
    return RedirectResponse(where, 303, headers={"Cache-Control": "no-store"})


def _next(where: str, *more: str) -> str:
    """The query of a link to another form, which leads on to where this one does."""
    query = [*more, *([] if where == FIRST_PAGE else [f"next={quote(where, safe='')}"])]
    return f"?{'&'.join(query)}" if query else ""


def _short(text: str) -> str:
    """What was typed, as far as it is put back into its box."""
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
