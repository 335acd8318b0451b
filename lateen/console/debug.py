"""What the control plane knows, for people and programs that debug it: Istio's debug paths as JSON.

    /debug                   these paths
    /debug/syncz             proxies: what each was sent and has accepted, type by type
    /debug/adsz              the same streams: who, from where, what each follows
    /debug/configz           objects of configuration, as stored
    /debug/registryz         services
    /debug/endpointz         the endpoints of each port
    /debug/authorizationz    authorization policies by namespace, with what is found in them
    /debug/mesh              mesh config in force

`?namespace=` narrows what is in namespaces. No secret is in any of it (`shown`). Who may ask is not decided here.

Source: https://istio.io/latest/docs/ops/diagnostic-tools/proxy-cmd/ and istiod's own list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lateen.api.codec import encode
from lateen.api.kinds import by_name
from lateen.api.struct import Json
from lateen.apiserver.rows import Row
from lateen.console.data import Mesh, findings_of, json_response, mask, proxy_json, shown
from lateen.engine import Graph
from lateen.model.endpoints import Endpoint, endpoints
from lateen.model.mesh import mesh_config, root_namespace
from lateen.model.services import MeshService, all_hosts, candidates
from lateen.xds.server import ProxyStatus

_CONFIGURATION: Final = ("istio.io", "gateway.networking.k8s.io", "lateen.io")


def debug_routes(mesh: Mesh, graph: Graph) -> list[Route]:
    """The routes of one control plane."""

    def services(namespace: str) -> Iterable[MeshService]:
        for host in graph.pull(all_hosts):
            for each in graph.pull(candidates, host):
                if namespace in ("", each.namespace):
                    yield each

    def syncz(namespace: str) -> Any:
        return [proxy_json(each) for each in mesh.proxies() if namespace in ("", each.proxy.namespace)]

    def adsz(namespace: str) -> Any:
        clients = [_client(each) for each in mesh.proxies() if namespace in ("", each.proxy.namespace)]
        return {"totalClients": len(clients), "clients": clients}

    def configz(namespace: str) -> Any:
        rows = sorted(mesh.store.rows(), key=lambda row: row.ref)
        return [shown(row) for row in rows if _configures(row) and namespace in ("", row.ref.namespace)]

    def registryz(namespace: str) -> Any:
        return [_service(each) for each in services(namespace)]

    def endpointz(namespace: str) -> Any:
        return [
            {
                "service": f"{each.host}:{port.name or port.number}",
                "namespace": each.namespace,
                "port": port.number,
                "endpoints": [_endpoint(one) for one in graph.pull(endpoints, each.ref, each.host, port.number)],
            }
            for each in services(namespace)
            for port in each.ports
        ]

    def authorizationz(namespace: str) -> Any:
        kind = by_name("AuthorizationPolicy")
        assert kind is not None
        policies: dict[str, list[Json]] = {}
        for row in sorted(mesh.store.list((kind.group, kind.kind)), key=lambda row: row.ref):
            if namespace in ("", row.ref.namespace):
                findings = [msgspec.to_builtins(each) for each in findings_of(row)]
                policies.setdefault(row.ref.namespace, []).append({**shown(row), "findings": findings})
        return {"rootNamespace": graph.pull(root_namespace), "policies": policies}

    def mesh_(_: str) -> Any:
        said = encode(graph.pull(mesh_config))
        mask(said)
        return said

    answers: dict[str, Callable[[str], Any]] = {
        "syncz": syncz,
        "adsz": adsz,
        "configz": configz,
        "registryz": registryz,
        "endpointz": endpointz,
        "authorizationz": authorizationz,
        "mesh": mesh_,
    }

    async def index(_: Request) -> Response:
        return json_response([f"/debug/{name}" for name in answers])

    return [Route("/debug", index), *(_route(name, answer) for name, answer in answers.items())]


def _route(name: str, answer: Callable[[str], Any]) -> Route:
    async def endpoint(request: Request) -> Response:
        return json_response(answer(request.query_params.get("namespace", "")))

    return Route(f"/debug/{name}", endpoint)


def _configures(row: Row) -> bool:
    return row.ref.group.endswith(_CONFIGURATION)


def _client(status: ProxyStatus) -> Json:
    return {
        "nodeId": status.node_id,
        "proxy": f"{status.proxy.name}.{status.proxy.namespace}",
        "peer": status.peer,
        "protocol": status.protocol,
        "getsEverything": status.sated,
        "follows": {each.short: "*" if each.wildcard else each.subscribed for each in status.types},
    }


def _service(service: MeshService) -> Json:
    return {
        "hostname": service.host,
        "namespace": service.namespace,
        "from": service.ref.short,
        "addresses": list(service.addresses),
        "resolution": service.resolution.value,
        "external": service.external,
        "exportTo": list(service.exported_to),
        "ports": [{"name": each.name, "port": each.number, "protocol": each.protocol.value} for each in service.ports],
    }


def _endpoint(endpoint: Endpoint) -> Json:
    place = endpoint.locality
    return {
        "address": endpoint.address,
        "port": endpoint.port,
        "from": endpoint.source.short if endpoint.source is not None else "",
        "identity": "/".join(endpoint.identity) if endpoint.identity is not None else "",
        "mutualTls": endpoint.tls,
        "locality": "/".join(filter(None, (place.region, place.zone, place.subzone))),
        "weight": endpoint.weight,
        "network": endpoint.network,
        "labels": dict(endpoint.labels),
    }
