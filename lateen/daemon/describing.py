"""`GET /lateen/v1/describe`: the sections on a service or Pod, each statement with the file and line it comes from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lateen.analysis.describe import Line, Section, pod_sections, service_sections
from lateen.analysis.reach import reach
from lateen.api.struct import Json
from lateen.apiserver import marking
from lateen.apiserver.errors import NotFoundError
from lateen.apiserver.positions import locate
from lateen.apiserver.store import Store
from lateen.console.data import findings_of
from lateen.daemon import quarantine
from lateen.daemon.conditions import behind_words
from lateen.engine import Graph
from lateen.model.hosts import service_host
from lateen.model.mesh import domain
from lateen.xds.server import ProxyStatus

_TROUBLE: Final = {quarantine.REFUSED: "refused", marking.CODE: "errors"}
_ORIGINS: Final = frozenset({quarantine.ORIGIN, marking.ORIGIN})


def describe_route(store: Store, graph: Graph, proxies: Callable[[], list[ProxyStatus]]) -> Route:
    """Takes `kind` (Service, Pod), `namespace`, `name`, and for a service `from`: the clients' namespace."""

    async def describe(request: Request) -> Response:
        query = request.query_params
        kind, namespace, name = query.get("kind", ""), query.get("namespace", ""), query.get("name", "")
        if kind == "Pod":
            found = graph.pull(pod_sections, namespace, name)
            more = _proxy(proxies(), namespace, name)
        else:
            found = graph.pull(service_sections, namespace, name, query.get("from") or namespace)
            mesh_domain = graph.pull(domain)
            more = _trouble(store, service_host(name, namespace, mesh_domain), mesh_domain)
        if found is None:
            raise NotFoundError(f"{kind} {namespace}/{name} does not exist, or cannot be seen from there")
        sections = [_section(each) for each in (*found, *more)]
        return Response(msgspec.json.encode({"sections": sections}), media_type="application/json")

    def _section(section: Section) -> Json:
        return {"title": section.title, "lines": [_line(each) for each in section.lines]}

    def _line(line: Line) -> Json:
        row = store.get(line.ref) if line.ref is not None else None
        place = locate(row.source, line.path) if row is not None else None
        return {
            "what": line.what,
            "value": line.value,
            "object": line.ref.short if line.ref is not None and row is not None else "",
            "path": line.path if row is not None else "",
            "place": f"{place.file}:{place.line}" if place is not None else "",
        }

    return Route("/lateen/v1/describe", describe)


def _trouble(store: Store, host: str, mesh_domain: str) -> list[Section]:
    """What concerns a host and is not in force, or made calls fail: queries see neither."""
    lines: list[Line] = []
    for row in sorted(store.rows(), key=lambda row: row.ref):
        said = [each for each in findings_of(row) if each.code in _TROUBLE] if _ORIGINS & row.findings.keys() else []
        bodies = [row.body] if row.held is None or row.held.body is None else [row.body, row.held.body]
        if said and reach(row.ref, map(msgspec.json.decode, bodies), mesh_domain).concerns(host, mesh_domain):
            lines += [Line(_TROUBLE[each.code], each.message, row.ref, each.path) for each in said]
    return [Section("Not as asked for", tuple(lines))] if lines else []


def _proxy(proxies: Sequence[ProxyStatus], namespace: str, name: str) -> list[Section]:
    """What the proxy of a Pod has, and has not."""
    now = asyncio.get_running_loop().time()
    found = [each for each in proxies if (each.proxy.namespace, each.proxy.name) == (namespace, name)]
    if not found:
        return [Section("Its proxy", (Line("connected", "no"),))]
    lines = [
        Line("behind" if not each.words else "refuses", f"for {now - each.since:.1f} s: {behind_words(each)}")
        for status in found
        for each in status.behind
    ]
    return [Section("Its proxy", (Line("connected", "in sync" if not lines else "yes"), *lines))]
