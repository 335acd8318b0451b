"""Logging in to the pages: with a token of the API, or with an identity provider.

A session is a random name for a token that stays here; the token is looked at again for every request, so it ends with
the token, its account, or the provider's key. The browser keeps the name in a cookie that no script reads and no other
site's form sends along; forms from other sites are refused.

    GET /login                  the form, and the way to the identity provider
    POST /login                 token=...
    GET /login/oidc             to the provider; `next` is where one goes afterwards
    GET /login/callback         back from it
    POST /logout
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from html import escape
from typing import Final
from urllib.parse import parse_qsl, quote

import msgspec
import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lateen.apiserver.bodies import body
from lateen.apiserver.errors import ApiError, UnauthorizedError, to_status
from lateen.apiserver.shown import json_response
from lateen.apiserver.users import Authenticator, User
from lateen.security.oidc import LoginError, Oidc, Started

SESSION_S: Final = 12 * 3600.0
_SESSIONS: Final = 1_000
_UNDER_WAY_S: Final = 600.0
_UNDER_WAY: Final = 256
_FORM_BYTES: Final = 64 << 10
_OPEN: Final = ("/healthz", "/readyz", "/login", "/login/oidc", "/login/callback")

_log = structlog.stdlib.get_logger("lateen.console.login")


class _UnderWay(msgspec.Struct, frozen=True):
    started: Started
    browser: str
    next: str
    until: float


class Login:
    """Who looks at the pages of a mesh. `page` makes a page of a title and content."""

    def __init__(
        self,
        mesh: str,
        authenticate: Authenticator,
        oidc: Oidc | None,
        page: Callable[[str, str], HTMLResponse],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cookie = f"lateen-{mesh}"
        self._authenticate = authenticate
        self._oidc = oidc
        self._page = page
        self._now = now
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._under_way: OrderedDict[str, _UnderWay] = OrderedDict()

    @property
    def routes(self) -> list[Route]:
        """The paths of logging in."""
        return [
            Route("/login", self._form),
            Route("/login", self._with_token, methods=["POST"]),
            Route("/login/oidc", self._to_provider),
            Route("/login/callback", self._back),
            Route("/logout", self._leave, methods=["POST"]),
        ]

    def asked(self, app: ASGIApp) -> ASGIApp:
        """The pages for who is logged in (`state["user"]`) or sends a bearer token; others are led to the form."""

        async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in _OPEN:
                await app(scope, receive, send)
                return
            connection = HTTPConnection(scope)
            user, error = self._who(connection)
            if user is not None:
                scope["state"] = {**scope.get("state", {}), "user": user}
                await app(scope, receive, _uncached(send))
            elif error is None and "text/html" in connection.headers.get("accept", "") and scope["method"] == "GET":
                path = quote(scope["path"], safe="/")
                await RedirectResponse(f"/login?next={path}", 303)(scope, receive, send)
            else:
                refusal = error or UnauthorizedError("Unauthorized", remedy="log in at /login, or send a bearer token")
                await json_response(to_status(refusal), refusal.CODE)(scope, receive, send)

        return asgi

    def _who(self, connection: HTTPConnection) -> tuple[User | None, ApiError | None]:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            user = self._authenticate(token.strip())
            unknown = UnauthorizedError("Unauthorized", remedy="the token is not known, or has ended")
            return user, None if user is not None else unknown
        session = connection.cookies.get(self._cookie, "")
        token, until = self._sessions.get(session, ("", 0.0))
        user = self._authenticate(token) if self._now() < until else None
        if user is None:
            self._sessions.pop(session, None)
        return user, None

    # -- pages -----------------------------------------------------------------------------------------

    async def _form(self, request: Request) -> Response:
        return self._shown(_local(request.query_params.get("next", "")))

    def _shown(self, where: str, problem: str = "", status: int = 200) -> HTMLResponse:
        said = f"<p class=error role=alert>{escape(problem)}</p>" if problem else ""
        hidden = f'<input type=hidden name=next value="{escape(where)}">'
        provider = ""
        if self._oidc is not None:
            link = f"/login/oidc?next={quote(where, safe='/')}"
            provider = f'<p><a id=provider href="{escape(link)}">Log in with {escape(self._oidc.issuer)}</a></p>'
        form = (
            f"<form method=post action=/login>{hidden}<p><label>Token of the API (<code>lateen token ACCOUNT</code>)"
            "<br><input type=password name=token autocomplete=off required></label> <button>Log in</button></p></form>"
        )
        answer = self._page("Log in", f"<h1>Log in</h1>{said}{provider}{form}")
        answer.status_code = status
        return answer

    async def _with_token(self, request: Request) -> Response:
        if not _own(request):
            return Response("forms of other sites are not taken\n", 403)
        form = dict(parse_qsl((await body(request, _FORM_BYTES)).decode(errors="replace")))
        where, token = _local(form.get("next", "")), form.get("token", "").strip()
        user = self._authenticate(token)
        if user is None:
            return self._shown(where, "The token is not known, or has ended.", 401)
        return self._enter(request, user, token, where)

    async def _to_provider(self, request: Request) -> Response:
        where = _local(request.query_params.get("next", ""))
        if self._oidc is None:
            return self._shown(where, "This mesh has no identity provider.", 404)
        try:
            started, url = await self._oidc.start(f"{request.url.scheme}://{request.url.netloc}/login/callback")
        except LoginError as error:
            return self._shown(where, str(error), 502)
        browser = secrets.token_urlsafe(32)
        self._under_way[started.state] = _UnderWay(started, browser, where, self._now() + _UNDER_WAY_S)
        while len(self._under_way) > _UNDER_WAY:
            self._under_way.popitem(last=False)
        answer = RedirectResponse(url, 303)
        self._set(answer, f"{self._cookie}-login", browser, _UNDER_WAY_S)
        return answer

    async def _back(self, request: Request) -> Response:
        """Only the browser that began a login ends it, once."""
        query = request.query_params
        found = self._under_way.pop(query.get("state", ""), None)
        browser = request.cookies.get(f"{self._cookie}-login", "")
        if (
            self._oidc is None
            or found is None
            or self._now() > found.until
            or not secrets.compare_digest(found.browser.encode(), browser.encode())
        ):
            return self._shown("/", "This login was not begun here, or took too long.", 400)
        if "code" not in query:
            return self._shown(found.next, f"The identity provider refused: {query.get('error', 'no code')}", 401)
        try:
            token = await self._oidc.finish(found.started, query["code"])
        except LoginError as error:
            _log.warning("login failed", reason=str(error))
            return self._shown(found.next, str(error), 401)
        user = self._authenticate(token)
        if user is None:
            return self._shown(found.next, "The identity provider's token names nobody.", 401)
        return self._enter(request, user, token, found.next)

    async def _leave(self, request: Request) -> Response:
        if not _own(request):
            return Response("forms of other sites are not taken\n", 403)
        self._sessions.pop(request.cookies.get(self._cookie, ""), None)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(self._cookie)
        return answer

    def _enter(self, request: Request, user: User, token: str, where: str) -> Response:
        self._sessions.pop(request.cookies.get(self._cookie, ""), None)
        session = secrets.token_urlsafe(32)
        self._sessions[session] = (token, self._now() + SESSION_S)
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        _log.info("logged in", user=user.name)
        answer = RedirectResponse(where, 303)
        self._set(answer, self._cookie, session, SESSION_S)
        return answer

    @staticmethod
    def _set(answer: Response, name: str, value: str, seconds: float) -> None:
        answer.set_cookie(name, value, max_age=int(seconds), httponly=True, samesite="lax")


def _local(path: str) -> str:
    """A path of these pages: nothing that a browser takes for another site."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


def _own(request: Request) -> bool:
    """Whether a form is of these pages: browsers say where a form is from."""
    origin = request.headers.get("origin")
    return origin is None or origin == f"{request.url.scheme}://{request.url.netloc}"


def _uncached(send: Send) -> Send:
    """What is for one user is kept by nobody."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["cache-control"] = "no-store"
        await send(message)

    return sent
