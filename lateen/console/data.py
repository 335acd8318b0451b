"""What the control plane shows of itself, as JSON: proxies, objects with findings, where things are.

Secret values never leave here: a Secret's data, and whatever an object says under a name that smells of one, are
replaced by stars.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lateen.api import kinds
from lateen.api.struct import Json
from lateen.apiserver.errors import ForbiddenError, to_status
from lateen.apiserver.resources import Resources
from lateen.apiserver.rows import Row
from lateen.apiserver.store import Store
from lateen.apiserver.targets import Attributes
from lateen.apiserver.users import MASTERS, Authorizer, User
from lateen.lib.findings import Finding
from lateen.lib.layout import Layout
from lateen.xds.server import ProxyStatus

MASK: Final = "***"
_SECRET_NAME: Final = re.compile(
    "password|passwd|secret|token|credential|private|api[-_]?key|^authorization$|^cookie$", re.IGNORECASE
)

_SECRET_KEY: Final = re.compile("(password|passwd|passphrase|secret|token|api[-_]?key|private[-_]?key)$", re.IGNORECASE)


class View(msgspec.Struct, frozen=True):
    """What somebody may see of a mesh now: objects in order, proxies."""

    name: str
    ready: bool
    revision: int
    rows: Sequence[Row]
    proxies: Sequence[ProxyStatus]
    layout: Layout
    user: User | None = None


class Mesh(msgspec.Struct, frozen=True):
    """One running mesh, as pages see it."""

    name: str
    store: Store
    proxies: Callable[[], list[ProxyStatus]]
    ready: Callable[[], bool]
    metrics: Callable[[], bytes]
    layout: Layout
    allows: Authorizer
    resources: Resources

    def view(self, request: Request) -> View:
        """For who asks, if that was asked: objects that he may list, and proxies where he may list Pods."""
        user: User | None = request.scope.get("state", {}).get("user")
        rows, proxies = sorted(self.store.rows(), key=lambda row: row.ref), self.proxies()
        if user is not None and MASTERS not in user.groups:

            @cache
            def may(collection: tuple[str, str], namespace: str) -> bool:
                resource = self.resources.of(collection)
                wanted = Attributes("list", collection[0], resource.plural if resource else "", "", namespace)
                return self.allows(user, wanted) is None

            rows = [row for row in rows if may(row.ref.collection, row.ref.namespace)]
            proxies = [each for each in proxies if may(("", "Pod"), each.proxy.namespace)]
        return View(self.name, self.ready(), self.store.revision, rows, proxies, self.layout, user)


def findings_of(row: Row) -> list[Finding]:
    """All that is said about an object."""
    return [each for part in row.findings.values() for each in msgspec.json.decode(part, type=list[Finding])]


def shown(row: Row) -> Json:
    """An object without secret values."""
    document = row.decode()
    if row.ref.kind == "Secret":
        for key in ("data", "stringData"):
            if key in document:
                document[key] = dict.fromkeys(document[key], MASK)
        annotations: Json = document["metadata"].get("annotations") or {}
        if annotations:  # kubectl leaves the whole object there
            document["metadata"]["annotations"] = dict.fromkeys(annotations, MASK)
    mask(document.get("spec"))
    return document


def mask(part: Any) -> None:
    """Masks what is named like a secret, in place: `{"name": "DB_PASSWORD", "value": ...}`, `{"apiKey": ...}`."""
    if isinstance(part, list | tuple):
        for each in cast("Sequence[Any]", part):
            mask(each)
    elif isinstance(part, dict):
        members = cast("Json", part)
        if isinstance(members.get("value"), str) and _SECRET_NAME.search(str(members.get("name", ""))):
            members["value"] = MASK
        for key, each in members.items():
            if isinstance(each, str) and _SECRET_KEY.search(key):
                members[key] = MASK
            else:
                mask(each)


def proxy_json(status: ProxyStatus) -> Json:
    """One proxy for `proxy-status` and pages: per type SYNCED, STALE (something is on its way), or REFUSED."""
    types: dict[str, Json] = {}
    for each in status.types:
        state = "REFUSED" if each.errors else "SYNCED" if each.synced else "STALE"
        types[each.short] = {
            "state": state,
            "held": each.held,
            "subscribed": each.subscribed,
            "wildcard": each.wildcard,
            "revision": each.acked_revision,
            "sentNonce": each.sent_nonce,
            "ackedNonce": each.acked_nonce,
            "errors": each.errors,
        }
    return {
        "name": status.proxy.name,
        "namespace": status.proxy.namespace,
        "kind": status.proxy.kind.value,
        "nodeId": status.node_id,
        "protocol": status.protocol,
        "peer": status.peer,
        "revision": status.acked_revision,
        "types": types,
        "behind": [
            {
                "type": each.type,
                "name": each.name,
                "forS": round(time.monotonic() - each.since, 1),
                "words": each.words,
                "waiting": each.waiting,
            }
            for each in status.behind
        ],
    }


def overview(view: View) -> Json:
    """The mesh in short."""
    counts: dict[str, int] = {}
    for row in view.rows:
        counts[row.ref.kind] = counts.get(row.ref.kind, 0) + 1
    return {
        "name": view.name,
        "ready": view.ready,
        "revision": view.revision,
        "objects": dict(sorted(counts.items())),
        "findings": [msgspec.to_builtins(each) for row in view.rows for each in findings_of(row)],
        "proxies": [proxy_json(each) for each in view.proxies],
        "paths": {
            "state": str(view.layout.state),
            "logs": str(view.layout.logs),
            "api": str(view.layout.api_socket),
            "xds": str(view.layout.xds_socket),
        },
    }


def mesh_routes(mesh: Mesh) -> list[Route]:
    """`/lateen/v1/overview`, `/lateen/v1/proxies`, `/lateen/v1/objects[/KIND]`, `/metrics`."""

    async def overview_json(request: Request) -> Response:
        return json_response(overview(mesh.view(request)))

    async def proxies_json(request: Request) -> Response:
        return json_response({"proxies": [proxy_json(each) for each in mesh.view(request).proxies]})

    async def objects_json(request: Request) -> Response:
        word = request.path_params.get("kind", "")
        kind = kinds.by_name(word) if word else None
        if word and kind is None:
            return json_response({"error": f"there is no kind {word!r}"}, 404)
        rows = mesh.view(request).rows
        return json_response(
            {"items": [shown(row) for row in rows if kind is None or row.ref.collection == (kind.group, kind.kind)]}
        )

    async def metrics(request: Request) -> Response:
        user: User | None = request.scope.get("state", {}).get("user")
        why_not = mesh.allows(user, Attributes("get", path="/metrics")) if user is not None else None
        if why_not is not None:
            error = ForbiddenError(f"forbidden: {why_not}", remedy="bind the ClusterRole lateen:debug to this user")
            return json_response(to_status(error), error.CODE)
        return metrics_response(mesh)

    return [
        Route("/lateen/v1/overview", overview_json),
        Route("/lateen/v1/proxies", proxies_json),
        Route("/lateen/v1/objects", objects_json),
        Route("/lateen/v1/objects/{kind}", objects_json),
        Route("/metrics", metrics),
    ]


def metrics_response(mesh: Mesh) -> Response:
    """The control plane's metrics, as Prometheus reads them."""
    return Response(mesh.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


def json_response(value: Any, status: int = 200) -> Response:
    """A value as a JSON answer."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
