"""An experiment's control plane: virtual hosts and clusters for those who ask, on delta ADS of several Envoys.

It keeps the rules that on-demand discovery needs (`docs/decisions/0002-routing-shape.md`): a virtual host goes out
behind its clusters and their endpoints; an ask for a cluster is answered with the cluster; an unknown host gets a
resource without a body. Everything is plain data by role, the part of the node id that names the Pod.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import grpc
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.access_loggers.file.v3 import file_pb2 as _file_log
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as _jwt
from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2 as _on_demand
from envoy.extensions.filters.http.router.v3 import router_pb2 as _router
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2 as _original_dst
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as _manager
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2 as _filter_state
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2 as _tcp_proxy
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as _http_options
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from google.protobuf.json_format import ParseDict

from tests.envoy.harness import ADS, CLUSTER, ENDPOINT, LISTENER, ROUTE

EXTENSIONS = (
    _file_log,
    _jwt,
    _on_demand,
    _router,
    _original_dst,
    _manager,
    _filter_state,
    _tcp_proxy,
    _http_options,
)
"""Modules whose messages occur inside an Any; being imported is what makes them known."""

VIRTUAL_HOST = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
MESSAGES = {
    CLUSTER: Cluster,
    ENDPOINT: ClusterLoadAssignment,
    LISTENER: Listener,
    ROUTE: RouteConfiguration,
    VIRTUAL_HOST: VirtualHost,
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Host:
    """A virtual host under all its names, with the clusters it may reach."""

    canonical: str
    names: tuple[str, ...]
    virtual_host: Json
    clusters: tuple[str, ...]


@dataclass
class Role:
    """What one Envoy gets: listeners and tables at once, the rest when asked for."""

    listeners: Sequence[Json]
    tables: Sequence[Json]
    clusters: Mapping[str, tuple[Json, Json]] = field(default_factory=dict[str, tuple[Json, Json]])
    hosts: list[Host] = field(default_factory=list[Host])
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    refused: list[str] = field(default_factory=list[str])


class OnDemandServer(grpc.GenericRpcHandler):
    """Serves roles; called by gRPC threads, one writer and one reader per stream."""

    def __init__(self, roles: Mapping[str, Role]) -> None:
        self.roles = roles
        self._streams: dict[str, SimpleQueue[bytes | None]] = {}
        self._sent: dict[str, set[str]] = {}
        self._nonce = 0
        self._lock = threading.Lock()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return grpc.stream_stream_rpc_method_handler(self._stream) if handler_call_details.method == ADS else None

    def push(self, role: str, type_url: str, resources: Mapping[str, Json], removed: Sequence[str] = ()) -> None:
        """Sends resources by name without being asked."""
        with self._lock:
            self._put(self._streams[role], type_url, [(name, (), body) for name, body in resources.items()], removed)

    def push_host(self, role: str, table: str, host: Host) -> None:
        """Sends a virtual host behind what it needs."""
        with self._lock:
            self._host(role, self._streams[role], [(table, host, ())])

    def _stream(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        out: SimpleQueue[bytes | None] = SimpleQueue()
        threading.Thread(target=self._read, args=(requests, out), daemon=True).start()
        while (item := out.get()) is not None:
            yield item

    def _read(self, requests: Iterator[bytes], out: SimpleQueue[bytes | None]) -> None:
        role = ""
        try:
            for raw in requests:
                request = DeltaDiscoveryRequest.FromString(raw)
                with self._lock:
                    if not role:
                        role = request.node.id.split("~")[2].partition(".")[0]
                        self._streams[role], self._sent[role] = out, set()
                    self._request(role, out, request)
        except grpc.RpcError:
            pass  # Envoy has ended
        finally:
            out.put(None)

    def _request(self, name: str, out: SimpleQueue[bytes | None], request: DeltaDiscoveryRequest) -> None:
        role, url = self.roles[name], request.type_url
        if request.HasField("error_detail"):
            role.refused.append(request.error_detail.message)
        asked = [each for each in request.resource_names_subscribe if each != "*"]
        role.asked += [(url, each) for each in asked]
        if url == LISTENER and not request.response_nonce:
            self._put(out, url, [(each["name"], (), each) for each in role.listeners])
        elif url == CLUSTER:
            if not request.response_nonce:
                self._put(out, url, [])
            known = [each for each in asked if each in role.clusters]
            if known:
                self._clusters(name, out, known)
            if missing := [each for each in asked if each not in role.clusters]:
                self._put(out, url, [], missing)
        elif url == ENDPOINT and asked:
            self._put(out, url, [(each, (), role.clusters[each][1]) for each in asked if each in role.clusters])
        elif url == ROUTE and asked:
            self._put(out, url, [(each["name"], (), each) for each in role.tables if each["name"] in asked])
        elif url == VIRTUAL_HOST:
            answers: list[tuple[str, Host | None, tuple[str, ...]]] = []
            for each in asked:
                table, _, host = each.partition("/")
                answers.append((table, _find(role.hosts, host), (each,)))
            self._host(name, out, answers)

    def _host(
        self, name: str, out: SimpleQueue[bytes | None], answers: Sequence[tuple[str, Host | None, tuple[str, ...]]]
    ) -> None:
        needed = [each for _, host, _ in answers if host for each in host.clusters]
        if new := [each for each in dict.fromkeys(needed) if each not in self._sent[name]]:
            self._clusters(name, out, new)
        items: list[tuple[str, tuple[str, ...], Json | None]] = []
        for table, host, aliases in answers:
            if host is None:
                items.append((aliases[0], aliases, None))
            else:
                full = f"{table}/{host.canonical}"
                items.append((full, aliases, {**host.virtual_host, "name": full, "domains": list(host.names)}))
        self._put(out, VIRTUAL_HOST, items)

    def _clusters(self, name: str, out: SimpleQueue[bytes | None], names: Sequence[str]) -> None:
        clusters = self.roles[name].clusters
        self._sent[name].update(names)
        self._put(out, CLUSTER, [(each, (), clusters[each][0]) for each in names])
        self._put(out, ENDPOINT, [(each, (), clusters[each][1]) for each in names])

    def _put(
        self,
        out: SimpleQueue[bytes | None],
        type_url: str,
        items: Sequence[tuple[str, tuple[str, ...], Json | None]],
        removed: Sequence[str] = (),
    ) -> None:
        self._nonce += 1
        response = DeltaDiscoveryResponse(type_url=type_url, nonce=str(self._nonce), removed_resources=removed)
        for name, aliases, body in items:
            item = response.resources.add(name=name, version=str(self._nonce), aliases=aliases)
            if body is not None:
                item.resource.Pack(ParseDict(body, MESSAGES[type_url]()))
        out.put(response.SerializeToString())


def _find(hosts: Sequence[Host], name: str) -> Host | None:
    bare = name.rpartition(":")[0] or name
    return next((each for each in hosts if name in each.names or bare in each.names), None)
