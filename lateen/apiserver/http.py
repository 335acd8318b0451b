"""The HTTP API: Kubernetes' paths over the store, and lateen's own under `/lateen/v1`.

    /api/v1[/namespaces/NS]/PLURAL[/NAME[/status | /findings/ORIGIN]]      GET POST PUT PATCH DELETE
    /apis/GROUP/VERSION/...                                                the same
    /lateen/v1/apply, /lateen/v1/delete                                    POST whole files
    /lateen/v1/history?ref=KIND.GROUP/NS/NAME                              GET
    /lateen/v1/revisions, /lateen/v1/at, /lateen/v1/diff, .../rollback     see `past`
    /healthz, /readyz

Lists take `labelSelector` and `fieldSelector`; with `watch=1&resourceVersion=N` the answer is one JSON line per
change. Every refusal is a Kubernetes Status object. It is served on a Unix socket that only the mesh's user can
open, so it authenticates nobody and shows Secrets as they are.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.struct import Json
from lateen.apiserver import files, operations
from lateen.apiserver.errors import (
    ApiError,
    BadRequestError,
    ConflictError,
    GoneError,
    InvalidError,
    NotFoundError,
    TooLargeError,
    to_status,
)
from lateen.apiserver.merge import merge_patch
from lateen.apiserver.past import past_routes
from lateen.apiserver.rows import Change, Row
from lateen.apiserver.selectors import Match, selector
from lateen.apiserver.store import Store
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref, parse_ref
from lateen.lib.yaml import Document

T = TypeVar("T")

_OBJECT_BYTES: Final = 4 * 1024 * 1024
_FILES_BYTES: Final = 64 * 1024 * 1024
_BOOKMARK_S: Final = 10.0
_PATCH_TRIES: Final = 10

_log = structlog.stdlib.get_logger("lateen.apiserver.http")


class _Place(msgspec.Struct, frozen=True):
    """What a path names."""

    kind: Kind
    namespace: str
    name: str
    part: str = ""
    origin: str = ""

    @property
    def ref(self) -> Ref:
        return Ref(self.kind.group, self.kind.kind, self.namespace, self.name)


def application(
    store: Store,
    *,
    check: files.Check,
    analyse: files.Analyse,
    ready: Callable[[], bool],
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """The API as an ASGI application. `check` and `analyse`: see `files`; `routes`: more, looked
    at first."""
    api = _Api(store, check, analyse, ready)
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return Starlette(
        routes=[
            *routes,
            *past_routes(store, check),
            Route("/api/v1/{rest:path}", api.kubernetes, methods=methods),
            Route("/apis/{group}/{version}/{rest:path}", api.kubernetes, methods=methods),
            Route("/lateen/v1/apply", api.apply, methods=["POST"]),
            Route("/lateen/v1/delete", api.delete, methods=["POST"]),
            Route("/lateen/v1/history", api.history),
            Route("/healthz", api.healthy),
            Route("/readyz", api.ready),
        ],
        exception_handlers={ApiError: _refusal, 404: _no_route, 405: _no_method, Exception: _bug},
    )


class _Api:
    def __init__(self, store: Store, check: files.Check, analyse: files.Analyse, is_ready: Callable[[], bool]) -> None:
        self._store = store
        self._check = check
        self._analyse = analyse
        self._is_ready = is_ready

    async def kubernetes(self, request: HttpRequest) -> Response:
        place = _place(request)
        match request.method, bool(place.name), place.part:
            case (("GET" | "HEAD"), False, _):
                return await self._list(request, place)
            case (("GET" | "HEAD"), True, _):
                return _json(self._existing(place.ref).document())
            case "POST", False, _:
                return await self._create(request, place)
            case "PUT", True, "findings":
                found = _decoded(await _body(request, _OBJECT_BYTES), tuple[Finding, ...])
                return await self._write(operations.SetFindings(place.ref, place.origin, found), request)
            case "PUT", True, "status":
                return await self._write(operations.PutStatus(await self._named(request, place)), request)
            case "PUT", True, "":
                document = await self._named(request, place)
                self._admit(document)
                return await self._write(operations.Replace(document), request)
            case "PATCH", True, ("" | "status"):
                return await self._patch(request, place)
            case "DELETE", True, "":
                return await self._delete_one(request, place)
            case _:
                raise BadRequestError(f"{request.method} is not possible here", remedy="see the API's paths")

    # -- one object ------------------------------------------------------------------------------------

    def _existing(self, ref: Ref) -> Row:
        row = self._store.get(ref)
        if row is None:
            raise NotFoundError(f"{ref.short} does not exist")
        return row

    def _admit(self, document: Json) -> None:
        errors = [each for each in self._check(Document(document, "")) if each.level is Level.ERROR]
        if errors:
            name = _metadata(document).get("name", "")
            said = "; ".join(f"{each.path}: {each.message}" if each.path else each.message for each in errors)
            raise InvalidError(f"{document.get('kind')} {name}: {said}", remedy=errors[0].remedy, causes=errors)

    async def _write(self, operation: operations.Operation, request: HttpRequest) -> Response:
        rows = await self._store.write(
            [operation], author=request.query_params.get("fieldManager", ""), dry_run="dryRun" in request.query_params
        )
        row = rows[0]
        return _json(_SUCCESS if row is None else row.document())

    async def _create(self, request: HttpRequest, place: _Place) -> Response:
        document = _located(await _object(request), place)
        self._admit(document)
        answer = await self._write(operations.Create(document), request)
        answer.status_code = 201
        return answer

    async def _named(self, request: HttpRequest, place: _Place) -> Json:
        document = _located(await _object(request), place)
        if document["metadata"].get("name") != place.name:
            raise BadRequestError(f"the document is not named {place.name}", remedy="use one name in path and document")
        return document

    async def _patch(self, request: HttpRequest, place: _Place) -> Response:
        content = request.headers.get("content-type", "").partition(";")[0]
        if content not in ("application/merge-patch+json", "application/json"):
            raise BadRequestError(
                f"patches of type {content} are not taken", remedy="send application/merge-patch+json"
            )
        patch = await _object(request)
        pinned = _metadata(patch).get("resourceVersion", "")
        for _ in range(_PATCH_TRIES):
            row = self._existing(place.ref)
            current = row.decode()
            document = merge_patch(current, patch)
            document["metadata"]["resourceVersion"] = pinned or current["metadata"]["resourceVersion"]
            try:
                if place.part == "status":
                    return await self._write(operations.PutStatus(document), request)
                self._admit(document)
                if document["metadata"].get("name") != place.name:
                    raise BadRequestError("a patch cannot rename an object", remedy="make a new one")
                return await self._write(operations.Replace(document), request)
            except ConflictError:
                if pinned:
                    raise
        raise ConflictError(f"{place.ref.short} changes too fast to be patched", remedy="try again")

    async def _delete_one(self, request: HttpRequest, place: _Place) -> Response:
        body = await _body(request, _OBJECT_BYTES)
        options = _decoded(body, dict[str, Any]) if body else {}
        conditions: Json = options.get("preconditions") or {}
        grace = options.get("gracePeriodSeconds", request.query_params.get("gracePeriodSeconds"))
        operation = operations.Delete(
            place.ref,
            None if grace is None else _number("gracePeriodSeconds", grace),
            uid=conditions.get("uid", ""),
            revision=_number("resourceVersion", conditions.get("resourceVersion", 0)),
        )
        return await self._write(operation, request)

    # -- many objects ----------------------------------------------------------------------------------

    async def _list(self, request: HttpRequest, place: _Place) -> Response:
        query = request.query_params
        match = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if query.get("watch", "0").lower() in ("1", "true"):
            since = query.get("resourceVersion", "")
            start = _number("resourceVersion", since) if since not in ("", "0") else None
            lines = self._watch(place, match, start)
            first = await anext(lines)  # a revision that is too old is refused before the answer begins
            return StreamingResponse(_after(first, lines), media_type="application/json")
        rows = self._store.list(_collection(place.kind), place.namespace)
        items = b",".join(row.document() for row in rows if match(row))
        head = {"apiVersion": place.kind.api_version, "kind": f"{place.kind.kind}List"}
        head |= {"metadata": {"resourceVersion": str(self._store.revision)}}
        return _json(msgspec.json.encode(head)[:-1] + b',"items":[' + items + b"]}")

    async def _watch(self, place: _Place, match: Match, since: int | None) -> AsyncGenerator[bytes]:
        """Lines; the first one is empty and says that the watch has begun."""
        collection = _collection(place.kind)
        start = self._store.revision if since is None else since
        now = self._store.list(collection, place.namespace) if since is None else []
        changes = self._store.changes(collection, start)
        if not self._store.keeps(start):
            await anext(changes)  # raises
        yield b""
        yield b"".join(_line(b"ADDED", row.document()) for row in now if match(row))
        told = time.monotonic()
        try:
            async for each in changes:
                lines = b"".join(_event(change, place.namespace, match) for change in each)
                if not lines and time.monotonic() - told > _BOOKMARK_S:
                    lines = _bookmark(place.kind, self._store.revision)
                if lines:
                    told = time.monotonic()
                    yield lines
        except GoneError as error:  # the reader was too slow
            yield _line(b"ERROR", msgspec.json.encode(to_status(error)))

    # -- lateen's own ----------------------------------------------------------------------------------

    async def apply(self, request: HttpRequest) -> Response:
        asked = _decoded(await _body(request, _FILES_BYTES), files.Request)
        return _result(await files.apply(self._store, asked, self._check, self._analyse))

    async def delete(self, request: HttpRequest) -> Response:
        asked = _decoded(await _body(request, _FILES_BYTES), files.Request)
        return _result(await files.delete(self._store, asked))

    async def history(self, request: HttpRequest) -> Response:
        try:
            ref = parse_ref(request.query_params.get("ref", ""))
        except ValueError as error:
            raise BadRequestError(str(error), remedy="write ref=KIND.GROUP/NAMESPACE/NAME") from None
        return _json(msgspec.json.encode({"versions": await self._store.history(ref)}))

    async def healthy(self, _: HttpRequest) -> Response:
        return Response("ok\n")

    async def ready(self, _: HttpRequest) -> Response:
        return Response("ok\n") if self._is_ready() else Response("loading\n", status_code=503)


_SUCCESS: Final = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}'


def _place(request: HttpRequest) -> _Place:
    group = request.path_params.get("group", "")
    version = request.path_params.get("version", "v1")
    parts = request.path_params["rest"].split("/")
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "findings"):
        namespace, parts = parts[1], parts[2:]
    kind = kinds.by_plural(group, version, parts[0])
    if kind is None or len(parts) > 4:
        raise NotFoundError(f"there is no {request.url.path}", remedy="check group, version and the plural of the kind")
    name, part, origin, *_ = [*parts[1:], "", "", ""]
    if part not in ("", "status", "findings") or (part == "findings") != bool(origin):
        raise NotFoundError(f"there is no {request.url.path}", remedy="parts of an object are status, findings/ORIGIN")
    if kind.namespaced and name and not namespace:
        raise NotFoundError(f"{kind.kind} lives in a namespace", remedy="use /namespaces/NAMESPACE/...")
    if not kind.namespaced and namespace:
        raise NotFoundError(f"{kind.kind} lives in no namespace", remedy="leave /namespaces/NAMESPACE out")
    return _Place(kind, namespace, name, part, origin)


def _located(document: Json, place: _Place) -> Json:
    """The document with the namespace of the path; BadRequestError when it says something else."""
    given = kinds.by_api(str(document.get("apiVersion", "")), str(document.get("kind", "")))
    if given is not place.kind:
        raise BadRequestError(
            f"the document is a {document.get('kind')} of {document.get('apiVersion')}, not a {place.kind.kind}"
        )
    metadata: Json = document.get("metadata") or {}
    there = metadata.get("namespace", place.namespace)
    if there != place.namespace:
        raise BadRequestError(f"the document is in namespace {there}, the path in {place.namespace}")
    if place.kind.namespaced:
        metadata = {**metadata, "namespace": place.namespace}
    return {**document, "metadata": metadata}


def _metadata(document: Json) -> Json:
    return document.get("metadata") or {}


def _collection(kind: Kind) -> tuple[str, str]:
    return (kind.group, kind.kind)


def _event(change: Change, namespace: str, match: Match) -> bytes:
    if namespace and change.row.ref.namespace != namespace:
        return b""
    before = change.before if change.before is not None and match(change.before) else None
    after = change.after if change.after is not None and match(change.after) else None
    if after is not None:
        return _line(b"ADDED" if before is None else b"MODIFIED", after.document())
    if before is None:
        return b""
    last = msgspec.structs.replace(change.after or before, revision=change.revision)
    return _line(b"DELETED", last.document())


def _line(kind: bytes, document: bytes) -> bytes:
    return b'{"type":"' + kind + b'","object":' + document + b"}\n"


def _bookmark(kind: Kind, revision: int) -> bytes:
    document = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"resourceVersion": str(revision)}}
    return _line(b"BOOKMARK", msgspec.json.encode(document))


async def _after(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        yield first
        async for each in rest:
            yield each
    finally:
        await rest.aclose()


async def _body(request: HttpRequest, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit_bytes:
            raise TooLargeError(f"the request is larger than {limit_bytes} bytes", remedy="send less at once")
        parts.append(part)
    return b"".join(parts)


async def _object(request: HttpRequest) -> Json:
    return _decoded(await _body(request, _OBJECT_BYTES), dict[str, Any])


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the request cannot be read: {error}", remedy="send JSON of that form") from None


def _number(name: str, text: Any) -> int:
    try:
        return int(text)
    except (ValueError, TypeError):
        raise BadRequestError(f"{name} {text!r} is not a number") from None


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _result(result: Any) -> Response:
    return _json(msgspec.json.encode(result), 200 if result.applied else 422)


async def _refusal(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _json(msgspec.json.encode(to_status(error)), error.CODE)


async def _no_route(request: HttpRequest, _: Exception) -> Response:
    return await _refusal(request, NotFoundError(f"there is no {request.url.path}"))


async def _no_method(request: HttpRequest, _: Exception) -> Response:
    return await _refusal(request, BadRequestError(f"{request.method} is not possible on {request.url.path}"))


async def _bug(request: HttpRequest, error: Exception) -> Response:
    _log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return await _refusal(request, ApiError(f"lateen failed: {error!r}", remedy="this is a bug; the log has more"))
