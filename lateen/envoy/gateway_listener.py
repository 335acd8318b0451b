"""Listeners of gateways: one per port, `0.0.0.0_8080`, and one more for each port that is served on a socket.

Plain HTTP servers share one connection manager and the table `http.8080`; each HTTPS server has a filter chain for
its server names and a table of its own. TLS that passes through is routed by server name, TCP by the first rule
that applies. A port without anything to do (no route for TCP or passthrough) has no listener.

A gateway whose host ports lead to Unix sockets takes the same chains there, behind a PROXY header, so it sees the
client's own address.

Source: https://istio.io/latest/docs/reference/config/networking/gateway/
"""

from __future__ import annotations

from envoy.config.core.v3.base_pb2 import OUTBOUND
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener

from lateen.engine import Q
from lateen.envoy.access_log import add_access_log
from lateen.envoy.filters import TLS, add_proxy_protocol, add_tls_inspector
from lateen.envoy.http_manager import http_manager
from lateen.envoy.resource import Resource, resource
from lateen.envoy.security_filters import add_network_security
from lateen.envoy.stream import add_stream
from lateen.envoy.tls import set_socket, termination
from lateen.features.feature import Direction
from lateen.intent.outbound import distinct
from lateen.intent.scope import HostSocket, Scope
from lateen.intent.security import Security, security
from lateen.intent.stream import StreamRoute, gateway_tcp_routes, gateway_tls_routes
from lateen.lib.ids import Ref
from lateen.model.gateways import GatewayServer, ServerKind, gateway_servers
from lateen.model.mesh import accepted_domains, access_log, mesh_ref, mesh_tls, outer_tls
from lateen.model.policy_attachment import Workloads
from lateen.model.visibility import Client, client_of

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 (gateways listen to everybody)
SOCKET_PREFIX = "unix_"


def gateway_listener_names(q: Q, scope: Scope) -> tuple[str, ...]:
    """The listeners of a router; those of sockets are named `unix_<port>`."""
    names = q(_bound, scope)
    ports = {int(name.rpartition("_")[2]) for name in names if name.startswith(f"{ANY_ADDRESS}_")}
    sockets = [f"{SOCKET_PREFIX}{each.port}" for each in scope.capabilities.host_sockets if each.port in ports]
    return (*names, *sockets)


def gateway_listener(q: Q, scope: Scope, name: str) -> Resource | None:
    """A listener of a router by name."""
    if not name.startswith(SOCKET_PREFIX):
        return q(_listener_of, scope.namespace, scope.labels, name, None)
    socket = next((each for each in scope.capabilities.host_sockets if name == f"{SOCKET_PREFIX}{each.port}"), None)
    if socket is None:
        return None
    return q(_listener_of, scope.namespace, scope.labels, f"{ANY_ADDRESS}_{socket.port}", socket)


def _bound(q: Q, scope: Scope) -> tuple[str, ...]:
    servers = q(gateway_servers, scope.namespace, scope.labels)
    names = sorted({_name(each) for each in servers})
    return tuple(each for each in names if q(_listener_of, scope.namespace, scope.labels, each, None) is not None)


def _listener_of(
    q: Q, namespace: str, labels: tuple[tuple[str, str], ...], name: str, socket: HostSocket | None
) -> Resource | None:
    servers = [each for each in q(gateway_servers, namespace, labels) if _name(each) == name]
    client = q(client_of, namespace, labels, True)
    enforced = q(security, Workloads(namespace, labels, True))
    if socket is not None:
        enforced = enforced.behind_socket(socket.port)
    listener = Listener()
    listener.traffic_direction = OUTBOUND
    if socket is not None:
        listener.name = f"{SOCKET_PREFIX}{socket.port}"
        listener.address.pipe.path = socket.path
        listener.address.pipe.mode = 0o600
        add_proxy_protocol(listener)
    else:
        listener.name = name
        address, _, port = name.rpartition("_")
        listener.address.socket_address.address = address
        listener.address.socket_address.port_value = int(port)
    origins: list[Ref] = [*enforced.origins]
    for server in servers:
        origins.append(server.gateway)
        origins += _add_server(q, client, listener, server, enforced)
    if not listener.filter_chains:
        return None
    if any(each.kind not in (ServerKind.HTTP, ServerKind.TCP) for each in servers):
        add_tls_inspector(listener)
    add_access_log(listener.access_log.add, q(access_log), unanswered_only=True)
    body = listener.SerializeToString(deterministic=True)
    return resource(listener.name, body, tuple(dict.fromkeys((*origins, mesh_ref()))))


def _add_server(q: Q, client: Client, listener: Listener, server: GatewayServer, enforced: Security) -> list[Ref]:
    """Adds the chains of a server, as far as no earlier server took their server names; returns what else decided
    them."""
    match server.kind:
        case ServerKind.HTTP:
            if not listener.filter_chains:
                chain = listener.filter_chains.add()
                chain.name = listener.name
                chain.filters.append(_manager(q, listener, server, enforced))
            return []
        case ServerKind.HTTPS | ServerKind.TLS:
            streams = q(gateway_tcp_routes, client, server)[:1]
            if server.kind is ServerKind.TLS and not streams:
                return []
            terminated = _chain(listener, server, tuple(name for name in server.sni if name != "*"))
            if terminated is None or server.tls is None:
                return []
            http = server.kind is ServerKind.HTTPS
            set_socket(
                terminated.transport_socket,
                termination(server.tls, q(accepted_domains), q(mesh_tls), q(outer_tls), http=http),
            )
            if http:
                terminated.filters.append(_manager(q, listener, server, enforced))
            else:
                _add_stream(q, client, terminated, streams[0], enforced, tls=True)
            return [each.source for each in streams] if not http else []
        case ServerKind.PASSTHROUGH:
            streams = q(gateway_tls_routes, client, server)
        case ServerKind.TCP:
            streams = q(gateway_tcp_routes, client, server)[:1]
    return _add_streams(q, client, listener, server, streams, enforced)


def _add_streams(
    q: Q,
    client: Client,
    listener: Listener,
    server: GatewayServer,
    streams: tuple[StreamRoute, ...],
    enforced: Security,
) -> list[Ref]:
    for each in distinct(streams):
        chain = _chain(listener, server, tuple(name for name in each.server_names if name != "*"))
        if chain is not None:
            _add_stream(q, client, chain, each, enforced, tls=False)
    return [each.source for each in streams]


def _add_stream(
    q: Q, client: Client, chain: FilterChain, stream: StreamRoute, enforced: Security, *, tls: bool
) -> None:
    waits = add_network_security(chain, enforced, tls=tls, settable=False)
    add_stream(q, client, chain, stream.destinations, waits=waits)


def _chain(listener: Listener, server: GatewayServer, names: tuple[str, ...]) -> FilterChain | None:
    """A new chain for those server names that no chain has; None when nothing is left."""
    taken = {name for each in listener.filter_chains for name in each.filter_chain_match.server_names}
    free = tuple(name for name in names if name not in taken)
    rest_taken = any(not each.filter_chain_match.server_names for each in listener.filter_chains)
    if (names and not free) or (not names and rest_taken):
        return None
    chain = listener.filter_chains.add()
    chain.name = f"{listener.name}_{server.namespace}_{server.gateway.name}_{server.index}"
    chain.filter_chain_match.server_names.extend(free)
    if server.kind is not ServerKind.TCP and names:
        chain.filter_chain_match.transport_protocol = TLS
    return chain


def _manager(q: Q, listener: Listener, server: GatewayServer, enforced: Security) -> Filter:
    return http_manager(q, Direction.GATEWAY, f"outbound_{listener.name}", server.route, tls=True, security=enforced)


def _name(server: GatewayServer) -> str:
    return f"{server.bind or ANY_ADDRESS}_{server.port}"
