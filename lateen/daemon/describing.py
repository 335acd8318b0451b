"""`GET /lateen/v1/describe`: the sections on a service or Pod, each statement with the file and line it comes from."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lateen.analysis.describe import Line, Section, pod_sections, service_sections
from lateen.api.struct import Json
from lateen.apiserver.errors import NotFoundError
from lateen.apiserver.positions import locate
from lateen.apiserver.store import Store
from lateen.engine import Graph


def describe_route(store: Store, graph: Graph) -> Route:
    """Takes `kind` (Service, Pod), `namespace`, `name`, and for a service `from`: the clients' namespace."""

    async def describe(request: Request) -> Response:
        query = request.query_params
        kind, namespace, name = query.get("kind", ""), query.get("namespace", ""), query.get("name", "")
        if kind == "Pod":
            found = graph.pull(pod_sections, namespace, name)
        else:
            found = graph.pull(service_sections, namespace, name, query.get("from") or namespace)
        if found is None:
            raise NotFoundError(f"{kind} {namespace}/{name} does not exist, or cannot be seen from there")
        return Response(
            msgspec.json.encode({"sections": [_section(each) for each in found]}), media_type="application/json"
        )

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
