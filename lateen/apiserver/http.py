"""The HTTP API: Kubernetes' own over the store, and lateen's under `/lateen/v1`.

    /api/v1/..., /apis/GROUP/VERSION/...       objects, see `targets`; reading, writing
    /api, /apis, /openapi/v2, /openapi/v3      what there is, see `discovery`
    /lateen/v1/history?ref=KIND.GROUP/NS/NAME  GET
    /lateen/v1/usage                           POST what Pods use, see `measures`
    /lateen/v1/revisions, /at, /diff, /rollback  see `past`
    /healthz, /livez, /readyz, /version

Who asks is settled before (`identified`): on the Unix socket it is the mesh's owner, on TCP whoever has a client
certificate or a token. What he may do is decided here, for every request, by `rbac`. Every refusal is a Kubernetes
Status object.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from lateen.apiserver import streams
from lateen.apiserver.access import Guard
from lateen.apiserver.admission import Admission
from lateen.apiserver.bodies import document
from lateen.apiserver.calls import Call
from lateen.apiserver.credentials import acting_as
from lateen.apiserver.discovery import REVIEWS, Discovery
from lateen.apiserver.errors import (
    About,
    ApiError,
    BadRequestError,
    ForbiddenError,
    NoMethodError,
    NotFoundError,
    UnauthorizedError,
    to_status,
)
from lateen.apiserver.measures import MEASURES, Measures
from lateen.apiserver.past import past_routes
from lateen.apiserver.rbac import Roles
from lateen.apiserver.reading import Reader, truth
from lateen.apiserver.resources import Resources
from lateen.apiserver.reviews import Analyse, Reviews
from lateen.apiserver.shown import json_response
from lateen.apiserver.sockets import STREAMED, Sockets
from lateen.apiserver.store import Store, utc_now
from lateen.apiserver.structural import structural
from lateen.apiserver.targets import Attributes, Target, attributes, parse
from lateen.apiserver.users import MASTERS, OWNER, Authenticator, User
from lateen.apiserver.validation import Check, Validator
from lateen.apiserver.webhook_calls import Dial
from lateen.apiserver.writing import Editor
from lateen.lib.ids import parse_ref

Part = Callable[[Request], Awaitable[Response]]
"""Answers requests on a part of objects that the store knows nothing of, such as a Pod's log. Path and user are
settled: `request.path_params` has `namespace` and `name`."""

_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_OPEN: Final = frozenset({"/healthz", "/livez", "/readyz", "/version"})
"""Paths that tell nothing and that anybody may ask for."""

_log = structlog.stdlib.get_logger("lateen.apiserver.http")


def application(
    store: Store,
    *,
    check: Check,
    analyse: Analyse,
    ready: Callable[[], bool],
    resources: Resources | None = None,
    authenticate: Authenticator = lambda token: None,
    parts: Mapping[tuple[str, str], Part] | None = None,
    pods: streams.Pods | None = None,
    routes: Sequence[Route] = (),
    now: Callable[[], dt.datetime] = utc_now,
) -> Starlette:
    """The API as an ASGI application, for `identified` to be put around.

    `check`, `analyse`: what is said of a document, and of objects in the mesh (`validation`, `reviews`); `parts`: by
    plural and part; `pods`: None where none run; `routes`: lateen's own, more of them.
    """
    if resources is None:
        resources = Resources(store.rows())
        store.subscribe(resources)
    roles = Roles(store)
    served = dict(parts or {})
    if pods is not None:
        served[("pods", "log")] = streams.log_part(pods)
        served |= {("pods", part): streams.spdy_refused for part in STREAMED}
    measures = Measures(store)
    dial = pods.dial if pods is not None else None
    api = _Api(store, resources, roles, check, Reviews(roles, authenticate, analyse), served, measures, dial, now)
    sockets = Sockets(roles, pods)
    own = _Own(store, ready)
    return Starlette(
        routes=[
            Route("/api/{version}/{rest:path}", api.objects, methods=_METHODS),  # first: nearly all requests are these
            Route("/apis/{group}/{version}/{rest:path}", api.objects, methods=_METHODS),
            *(_by_path(each, roles) for each in routes),
            *past_routes(store, check),
            Route("/api", api.core),
            Route("/apis", api.groups),
            Route("/apis/{group}", api.group),
            Route("/apis/{group}/{version}", api.kinds),
            Route("/api/{version}", api.kinds),
            WebSocketRoute("/api/v1/namespaces/{namespace}/pods/{name}/{part}", sockets.serve),
            Route("/openapi/v2", api.openapi_v2),
            Route("/openapi/v3", api.openapi_index),
            Route("/openapi/v3/api/{version}", api.openapi),
            Route("/openapi/v3/apis/{group}/{version}", api.openapi),
            Route("/version", api.version),
            Route("/lateen/v1/history", own.history),
            Route("/lateen/v1/usage", measures.take, methods=["POST"]),
            Route("/healthz", own.healthy),
            Route("/livez", own.healthy),
            Route("/readyz", own.ready),
        ],
        exception_handlers={
            ApiError: _refusal,
            ClientDisconnect: _gone,
            404: _no_route,
            405: _no_method,
            Exception: _bug,
        },
    )


def _by_path(route: Route, roles: Roles) -> Route:
    """A route for users whose roles name its path."""

    async def endpoint(request: Request) -> Response:
        verb = "get" if request.method == "HEAD" else request.method.lower()
        _allow(roles, request, Attributes(verb, path=request.url.path))
        return await route.endpoint(request)

    return Route(route.path, endpoint, methods=[*(route.methods or ("GET",))])


def _allow(roles: Roles, request: Request, wanted: Attributes) -> None:
    """ForbiddenError when the request's user may not."""
    why_not = roles(_user(request), wanted)
    if why_not is not None:
        what = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
        name = f' "{wanted.name}"' if wanted.name else ""
        about = f"{what}{name} is forbidden: " if what else "forbidden: "
        error = ForbiddenError(about + why_not, remedy="kubectl auth can-i --list shows what is allowed")
        error.about = About(wanted.group, wanted.resource, wanted.name)
        raise error


Identify = Callable[[HTTPConnection], User | None]
"""Who asks; None for nobody in particular."""


def owner(_: HTTPConnection) -> User:
    """Whoever came by the Unix socket."""
    return OWNER


def identified(app: ASGIApp, identify: Identify) -> ASGIApp:
    """The application for callers that `identify` knows; others get a 401."""

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        path = scope["path"]
        user: User | None = None
        error: ApiError | None = None
        try:
            user = identify(connection)
            if user is not None:
                user = acting_as(connection, user)
        except ApiError as refused:
            error = refused
        if error is None and user is None and path not in _OPEN:
            error = UnauthorizedError("Unauthorized", remedy="send a client certificate or a bearer token")
        elif user is not None and path.startswith("/lateen/") and MASTERS not in user.groups:
            error = ForbiddenError(f'User "{user.name}" cannot use {path}', remedy="ask the owner of the mesh")
        scope["state"] = {**scope.get("state", {}), "user": user}
        if error is None:
            await app(scope, receive, send)
        else:
            await json_response(to_status(error), error.CODE)(scope, receive, send)

    return asgi


class _Api:
    """Kubernetes' part."""

    def __init__(
        self,
        store: Store,
        resources: Resources,
        roles: Roles,
        check: Check,
        reviews: Reviews,
        parts: Mapping[tuple[str, str], Part],
        measures: Measures,
        dial: Dial | None,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._resources = resources
        self._measures = measures
        self._roles = roles
        self._discovery = Discovery(resources)
        self._reader = Reader(store, now)
        self._reviews = reviews
        self._parts = parts
        validate = Validator(check, structural)
        guard = Guard(roles, resources)
        self._editor = Editor(store, self._reader, resources, validate, Admission(store, dial), guard, now)

    # -- what there is ---------------------------------------------------------------------------------

    async def version(self, request: Request) -> Response:
        return self._discovery.version()

    async def core(self, request: Request) -> Response:
        self._allow_path(request)
        return self._discovery.core(request)

    async def groups(self, request: Request) -> Response:
        self._allow_path(request)
        return self._discovery.groups(request)

    async def group(self, request: Request) -> Response:
        self._allow_path(request)
        return self._discovery.group(request.path_params["group"])

    async def kinds(self, request: Request) -> Response:
        self._allow_path(request)
        return self._discovery.kinds(*_group_version(request))

    async def openapi_v2(self, request: Request) -> Response:
        self._allow_path(request)
        return self._discovery.openapi_v2(request)

    async def openapi_index(self, request: Request) -> Response:
        self._allow_path(request)
        return self._discovery.openapi_index()

    async def openapi(self, request: Request) -> Response:
        self._allow_path(request)
        return self._discovery.openapi(*_group_version(request))

    # -- objects ---------------------------------------------------------------------------------------

    async def objects(self, request: Request) -> Response:
        group, version = _group_version(request)
        review = self._review(request, group, version)
        if review is not None:
            return await self._answer(request, *review)
        if (group, version) in MEASURES:
            wanted = self._measures.wanted(request)
            self._allow(request, wanted)
            return self._measures.answer(request, wanted)
        watch = truth(request.query_params.get("watch", ""))
        target = parse(self._resources, request.method, group, version, request.path_params["rest"], watch=watch)
        self._allow(request, attributes(target))
        try:
            return await self._serve(request, target)
        except ApiError as error:
            error.about = About(group, target.resource.plural, target.name)
            raise

    async def _serve(self, request: Request, target: Target) -> Response:
        part = self._parts.get((target.resource.plural, target.part))
        if part is not None and target.resource.group == "":
            request.scope["path_params"] = {"namespace": target.namespace, "name": target.name}
            return await part(request)
        call = Call(request, target, _user(request))
        match target.verb, target.part:
            case "get", ("" | "status"):
                return self._reader.get(request, target)
            case "get", "scale":
                return self._editor.scale(target)
            case "list", "":
                return await self._reader.list(request, target)
            case "watch", "":
                return await self._reader.watch(request, target)
            case "create", "":
                return await self._editor.create(call)
            case "update", ("" | "status"):
                return await self._editor.replace(call)
            case "patch", ("" | "status"):
                return await self._editor.patch(call)
            case (("update" | "patch"), "scale"):
                return await self._editor.rescale(call)
            case "update", "findings":
                return await self._editor.set_findings(call)
            case "create", "eviction" if target.resource.collection == ("", "Pod"):
                return await self._editor.evict(call)
            case "delete", "":
                return await self._editor.delete(call)
            case "deletecollection", "":
                return await self._editor.delete_all(call)
            case _:
                raise NotFoundError("the server could not find the requested resource", remedy="see /apis")

    def _review(self, request: Request, group: str, version: str) -> tuple[str, str, str] | None:
        """Kind, plural and namespace of a question about access."""
        steps = [each for each in request.path_params["rest"].split("/") if each]
        namespace = steps[1] if len(steps) == 3 and steps[0] == "namespaces" else ""
        plural = steps[-1] if steps else ""
        for name, kind, namespaced in REVIEWS.get((group, version), ()):
            if name == plural and namespaced == bool(namespace) and len(steps) == (3 if namespaced else 1):
                return kind, plural, namespace
        return None

    async def _answer(self, request: Request, kind: str, plural: str, namespace: str) -> Response:
        if request.method != "POST":
            raise NoMethodError(f"{request.method} is not possible here", remedy="POST a question")
        group, _ = _group_version(request)
        self._allow(request, Attributes("create", group, plural, "", namespace))
        asked = await document(request)
        return json_response(await self._reviews.answer(kind, asked, _user(request), namespace), 201)

    # -- access ----------------------------------------------------------------------------------------

    def _allow_path(self, request: Request) -> None:
        self._allow(request, Attributes("get", path=request.url.path))

    def _allow(self, request: Request, wanted: Attributes) -> None:
        _allow(self._roles, request, wanted)


class _Own:
    """lateen's part."""

    def __init__(self, store: Store, is_ready: Callable[[], bool]) -> None:
        self._store = store
        self._is_ready = is_ready

    async def history(self, request: Request) -> Response:
        try:
            ref = parse_ref(request.query_params.get("ref", ""))
        except ValueError as error:
            raise BadRequestError(str(error), remedy="write ref=KIND.GROUP/NAMESPACE/NAME") from None
        return json_response({"versions": await self._store.history(ref)})

    async def healthy(self, _: Request) -> Response:
        return Response("ok")

    async def ready(self, _: Request) -> Response:
        return Response("ok") if self._is_ready() else Response("loading", status_code=503)


def _user(request: Request) -> User:
    return request.scope["state"]["user"]


def _group_version(request: Request) -> tuple[str, str]:
    return request.path_params.get("group", ""), request.path_params["version"]


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return json_response(to_status(error), error.CODE)


async def _gone(_: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _no_route(request: Request, _: Exception) -> Response:
    return await _refusal(request, NotFoundError("the server could not find the requested resource"))


async def _no_method(request: Request, _: Exception) -> Response:
    return await _refusal(request, NoMethodError(f"{request.method} is not possible on {request.url.path}"))


async def _bug(request: Request, error: Exception) -> Response:
    _log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return await _refusal(request, ApiError(f"lateen failed: {error!r}", remedy="this is a bug; the log has more"))
