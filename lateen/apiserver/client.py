"""The API's client, for the node, the agent and the command line: the same verbs as the API, over its Unix socket.

    client = Client(layout.api_socket)
    pod = await client.get("Pod", "web", "default")
    async for event in client.watch("Pod", since=listing.revision): ...
    async for state in client.follow("Pod"): ...

Kinds are named as people do (`Pod`, `vs`, `virtualservices.networking.istio.io`). Every method raises an ApiError:
the refusal of the API, or UnreachableError when nobody answers. Objects are raw JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from lateen.api import kinds
from lateen.api.kinds import Kind
from lateen.api.struct import Json
from lateen.apiserver.calls import SOURCE
from lateen.apiserver.errors import ApiError, BadRequestError, GoneError, UnreachableError, from_status
from lateen.lib.findings import Finding
from lateen.lib.imports import without

with without("click"):  # for a command line of its own, with rich and pygments
    import httpx

MANAGER: Final = "lateen"
"""The field manager of what the command line applies."""
_TIMEOUT_S: Final = 30
_RETRY_FIRST_S: Final = 0.05
_RETRY_LAST_S: Final = 2.0
_NO_TLS: Final = False
"""A Unix socket needs none; reading the machine's authorities for it would cost memory and time."""


class Listing(msgspec.Struct, frozen=True):
    """Objects of one kind as they were at one revision."""

    items: list[Json]
    revision: str


class Event(msgspec.Struct, frozen=True):
    """One change: `ADDED`, `MODIFIED`, `DELETED` (the object as it last was), or `BOOKMARK` (only a revision)."""

    type: str
    object: Json


def path_of(kind: Kind, namespace: str = "", name: str = "", api_version: str = "") -> str:
    """The Kubernetes path of a collection or an object."""
    return place(api_version or kind.api_version, kind.plural, namespace if kind.namespaced else "", name)


def place(api_version: str, plural: str, namespace: str, name: str) -> str:
    """The same for kinds that only the server knows."""
    parts = [f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"]
    if namespace:
        parts.append(f"namespaces/{namespace}")
    parts.append(plural)
    if name:
        parts.append(name)
    return "/".join(parts)


class Client:
    """Connections to one control plane; `close` when done. `async with` does it as well. `author`: whom changes are
    put down to."""

    def __init__(self, socket: Path, author: str = "") -> None:
        self._socket = socket
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        transport = httpx.AsyncHTTPTransport(uds=str(socket), limits=limits, verify=_NO_TLS)
        self._http = httpx.AsyncClient(
            transport=transport,
            base_url="http://lateen",
            timeout=_TIMEOUT_S,
            headers={"user-agent": f"lateen ({author})" if author else "lateen"},
            params={"fieldValidation": "Strict"},
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.aclose()

    async def ready(self) -> bool:
        """True when the control plane answers and has everything loaded."""
        try:
            return (await self._http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    # -- reading ---------------------------------------------------------------------------------------

    async def get(self, kind: str, name: str, namespace: str = "") -> Json:
        """One object."""
        return await self._json("GET", path_of(_kind(kind), _namespace(kind, namespace), name))

    async def listing(self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> Listing:
        """The objects of a kind, in one namespace or (None) in all, and the revision to watch from."""
        query = _query(labelSelector=labels, fieldSelector=fields)
        answer = await self._json("GET", path_of(_kind(kind), namespace or ""), params=query)
        return Listing(answer["items"], answer["metadata"]["resourceVersion"])

    async def list(self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> list[Json]:
        """The objects of a kind, in one namespace or (None) in all."""
        return (await self.listing(kind, namespace, labels=labels, fields=fields)).items

    async def watch(
        self, kind: str, namespace: str | None = None, *, since: str, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Event]:
        """The changes after that revision, as they come. GoneError: list again. Never ends by itself."""
        query = _query(watch="1", resourceVersion=since, labelSelector=labels, fieldSelector=fields)
        path = path_of(_kind(kind), namespace or "")
        try:
            async with self._http.stream(
                "GET", path, params=query, timeout=httpx.Timeout(_TIMEOUT_S, read=None)
            ) as got:
                if got.status_code != 200:
                    raise from_status(_status(await got.aread()))
                async for line in got.aiter_lines():
                    event = msgspec.json.decode(line, type=Event)
                    if event.type == "ERROR":
                        raise from_status(event.object)
                    yield event
        except httpx.TransportError as error:
            self._unreachable(error)
        raise UnreachableError("the control plane ended the watch", remedy="watch again")

    async def follow(
        self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Listing | Event]:
        """A Listing, then Events, for ever: after a loss of the control plane a new Listing comes, then Events."""
        delay_s = _RETRY_FIRST_S
        while True:
            try:
                listing = await self.listing(kind, namespace, labels=labels, fields=fields)
                yield listing
                delay_s = _RETRY_FIRST_S
                events = self.watch(kind, namespace, since=listing.revision, labels=labels, fields=fields)
                async with contextlib.aclosing(events):
                    async for event in events:
                        yield event
            except GoneError:
                continue
            except UnreachableError:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _RETRY_LAST_S)

    # -- writing ---------------------------------------------------------------------------------------

    async def create(self, document: Json) -> Json:
        """Makes an object; ExistsError when there is one. `metadata.generateName` works."""
        return await self._json("POST", _place(document, name=False), document)

    async def replace(self, document: Json) -> Json:
        """The object as a whole; with `metadata.resourceVersion` only if it is still at that one (ConflictError)."""
        return await self._json("PUT", _place(document), document)

    async def replace_status(self, document: Json) -> Json:
        """The object's status as a whole, under the same condition. The rest of the document is not looked at."""
        return await self._json("PUT", _place(document) + "/status", document)

    async def patch(self, kind: str, name: str, namespace: str, patch: Json, *, status: bool = False) -> Json:
        """Changes fields by a JSON merge patch (RFC 7386), of the object or of its status."""
        path = path_of(_kind(kind), _namespace(kind, namespace), name) + ("/status" if status else "")
        return await self._json("PATCH", path, patch, headers={"content-type": "application/merge-patch+json"})

    async def delete(
        self, kind: str, name: str, namespace: str = "", *, uid: str = "", grace_s: int | None = None
    ) -> Json | None:
        """Deletes an object (with `uid`: only that very one). Returns it while it is on its way out, None when it
        is gone. `grace_s` 0: at once."""
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        answer = await self._json("DELETE", path_of(_kind(kind), _namespace(kind, namespace), name), body)
        return None if answer["kind"] == "Status" else answer

    async def set_findings(
        self, kind: str, name: str, namespace: str, origin: str, findings: Iterable[Finding]
    ) -> None:
        """What one origin (`node`, say) has to say about an object; replaces what it said before."""
        path = path_of(_kind(kind), _namespace(kind, namespace), name) + f"/findings/{origin}"
        await self._json("PUT", path, msgspec.to_builtins(list(findings)))

    async def apply(self, path: str, document: Json, *, dry_run: bool = False, source: str = "") -> Json:
        """Server-side apply of an object by its path, as the manager `lateen`, forced; the object then. `source`: where
        it was written, see `lateen.apiserver.applying`."""
        params = _query(fieldManager=MANAGER, force="true", dryRun="All" if dry_run else "")
        headers = {"content-type": "application/apply-patch+yaml", **({SOURCE: source} if source else {})}
        return await self._json("PATCH", path, document, params=params, headers=headers)

    async def send(self, method: str, path: str, *, params: dict[str, str] | None = None) -> Json:
        """A request without a body by its path, its JSON answer."""
        return await self._json(method, path, params=params)

    async def resource(self, api_version: str, kind: str) -> tuple[str, bool] | None:
        """Plural of a kind that the server has, and whether it is in namespaces; None for one that it has not."""
        at = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            listed = (await self._json("GET", at))["resources"]
        except ApiError as error:
            if isinstance(error, UnreachableError):
                raise
            return None
        return next(
            ((each["name"], each["namespaced"]) for each in listed if each["kind"] == kind and "/" not in each["name"]),
            None,
        )

    async def post(self, path: str, body: Any = None) -> Json:
        """Another request of lateen's own (`/lateen/v1/...`), its JSON answer."""
        return await self._json("POST", path, body)

    async def read(self, path: str, **query: str) -> Json:
        """Another reading request of lateen's own, its JSON answer."""
        return await self._json("GET", path, params=_query(**query))

    # -- inside ----------------------------------------------------------------------------------------

    async def _json(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Json:
        answer = await self._request(method, path, body, params=params, headers=headers)
        if answer.status_code >= 300:
            raise from_status(_status(answer.content))
        return msgspec.json.decode(answer.content)

    async def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        try:
            return await self._http.request(method, path, content=content, params=params, headers=headers)
        except httpx.TransportError as error:
            self._unreachable(error)

    def _unreachable(self, error: httpx.TransportError) -> NoReturn:
        raise UnreachableError(
            f"the control plane does not answer on {self._socket}: {error or type(error).__name__}",
            remedy="lateen ps says what runs, lateen up starts what is missing",
        ) from error


def _kind(name: str) -> Kind:
    kind = kinds.by_name(name)
    if kind is None:
        raise BadRequestError(f"there is no kind {name!r}", remedy="lateen get --help lists the kinds")
    return kind


def _namespace(kind: str, namespace: str) -> str:
    return (namespace or "default") if _kind(kind).namespaced else ""


def _place(document: Json, *, name: bool = True) -> str:
    kind = kinds.by_api(document["apiVersion"], document["kind"])
    if kind is None:
        raise BadRequestError(f"there is no kind {document['kind']} in {document['apiVersion']}")
    metadata: Json = document["metadata"]
    namespace = (metadata.get("namespace") or "default") if kind.namespaced else ""
    return path_of(kind, namespace, metadata["name"] if name else "", document["apiVersion"])


def _query(**given: str) -> dict[str, str]:
    return {key: value for key, value in given.items() if value}


def _status(content: bytes) -> Json:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        return {"message": f"the control plane answered: {content[:200].decode(errors='replace')}"}
