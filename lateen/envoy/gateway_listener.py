"""Listeners of gateways: one per port, `0.0.0.0_8080`, and one more for each port that is served on a socket.

Plain HTTP servers share one connection manager and the table `http.8080`; each HTTPS server has a filter chain for
its server names and a table of its own. TLS that passes through is routed by server name, TCP by addresses. A port
without anything to do (no route for TCP or passthrough) has no listener. Where HTTP/3 is asked for, the HTTPS servers
of the port are in a UDP listener too (`udp_0.0.0.0_8443`), with the same tables.

With AUTO_PASSTHROUGH the server name is that of mutual TLS in the mesh, `outbound_.80_.v1_.reviews.default...`: it
names the cluster, with a prefix that only clusters made for this have, so that no server name leads elsewhere.

A gateway whose host ports lead to Unix sockets takes the same chains there, behind a PROXY header, so it sees the
client's own address.

Source: https://istio.io/latest/docs/reference/config/networking/gateway/
"""

from __future__ import annotations

from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.base_pb2 import OUTBOUND
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, FilterChainMatch
from envoy.config.listener.v3.listener_pb2 import Listener

from lateen.engine import Q
from lateen.envoy.access_log import add_access_log
from lateen.envoy.filters import TLS, add_proxy_protocol, add_tls_inspector, set_range
from lateen.envoy.http_manager import CLIENT_TIMEOUT_S, http_manager
from lateen.envoy.resource import Resource, resource
from lateen.envoy.security_filters import add_network_security
from lateen.envoy.stream import add_named_stream, add_stream
from lateen.envoy.tls import ALPN_HTTP3, MESH_ALPN, SERVER_ALPN_HTTP, set_quic_socket, set_socket, termination
from lateen.features.feature import Direction
from lateen.intent.cluster import AUTOMATIC_PREFIX
from lateen.intent.outbound import distinct
from lateen.intent.scope import HostSocket, Scope
from lateen.intent.security import Security, security
from lateen.intent.stream import StreamRoute, gateway_tcp_routes, gateway_tls_routes
from lateen.lib.ids import Ref
from lateen.model.gateways import ANY, ANY_ADDRESS, UNIX, GatewayServer, ServerKind, gateway_servers
from lateen.model.mesh import accepted_domains, access_log, mesh_ref, mesh_tls, outer_tls
from lateen.model.policy_attachment import Workloads
from lateen.model.protocols import Protocol
from lateen.model.visibility import Client, client_of

SOCKET_PREFIX = "unix_"
UDP_PREFIX = "udp_"


def gateway_listener_names(q: Q, scope: Scope) -> tuple[str, ...]:
    """The listeners of a router; those of host sockets are named `unix_<port>`."""
    names = q(_bound, scope)
    sockets = [
        f"{SOCKET_PREFIX}{each.port}"
        for each in scope.capabilities.host_sockets
        if f"{ANY_ADDRESS}_{each.port}" in names
    ]
    return (*names, *sockets)


def gateway_listener(q: Q, scope: Scope, name: str) -> Resource | None:
    """A listener of a router by name."""
    counts = scope.capabilities.counts
    if name.startswith(UDP_PREFIX):
        return q(_udp_listener, scope.namespace, scope.labels, name, counts)
    if not name.startswith(SOCKET_PREFIX):
        return q(_listener_of, scope.namespace, scope.labels, name, None, counts)
    socket = next((each for each in scope.capabilities.host_sockets if name == f"{SOCKET_PREFIX}{each.port}"), None)
    if socket is None:
        return None
    return q(_listener_of, scope.namespace, scope.labels, f"{ANY_ADDRESS}_{socket.port}", socket, counts)


def _bound(q: Q, scope: Scope) -> tuple[str, ...]:
    servers = q(gateway_servers, scope.namespace, scope.labels)
    names = sorted({each.listener for each in servers})
    counts = scope.capabilities.counts
    bound = [each for each in names if q(_listener_of, scope.namespace, scope.labels, each, None, counts) is not None]
    return (*bound, *sorted({_udp_name(each) for each in servers if each.quic_port}))


def _listener_of(
    q: Q, namespace: str, labels: tuple[tuple[str, str], ...], name: str, socket: HostSocket | None, counts: bool
) -> Resource | None:
    servers = [each for each in q(gateway_servers, namespace, labels) if each.listener == name]
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
        _set_address(listener.address, name)
    origins: list[Ref] = [*enforced.origins]
    if servers and servers[0].kind is ServerKind.HTTP:
        web = any(each.protocol is Protocol.GRPC_WEB for each in servers)
        chain = listener.filter_chains.add()
        chain.name = listener.name
        named = next((each for each in servers if each.title), servers[0])
        chain.filters.append(_manager(q, listener, named, enforced, counts, grpc_web=web))
    for server in servers:
        origins.append(server.gateway)
        origins += _add_server(q, client, listener, server, enforced, counts)
    if not listener.filter_chains:
        return None
    if any(each.kind.by_name for each in servers):
        add_tls_inspector(listener)
    add_access_log(listener.access_log.add, q(access_log), unanswered_only=True)
    body = listener.SerializeToString(deterministic=True)
    return resource(listener.name, body, tuple(dict.fromkeys((*origins, mesh_ref()))))


def _udp_listener(
    q: Q, namespace: str, labels: tuple[tuple[str, str], ...], name: str, counts: bool
) -> Resource | None:
    servers = [each for each in q(gateway_servers, namespace, labels) if each.quic_port and _udp_name(each) == name]
    if not servers:
        return None
    enforced = q(security, Workloads(namespace, labels, True))
    listener = Listener()
    listener.name = name
    listener.traffic_direction = OUTBOUND
    _set_address(listener.address, name.removeprefix(UDP_PREFIX))
    listener.address.socket_address.protocol = SocketAddress.UDP
    listener.udp_listener_config.quic_options.SetInParent()
    listener.udp_listener_config.downstream_socket_config.prefer_gro.value = True
    for server in servers:
        if server.tls is not None and not server.guest:
            chain = _chain(listener, server)
            context = termination(server.tls, (), q(mesh_tls), q(outer_tls), alpn=ALPN_HTTP3)
            set_quic_socket(chain.transport_socket, context)
            chain.filters.append(_manager(q, listener, server, enforced, counts, http3=True))
    add_access_log(listener.access_log.add, q(access_log), unanswered_only=True)
    origins = dict.fromkeys((*enforced.origins, *(each.gateway for each in servers), mesh_ref()))
    return resource(name, listener.SerializeToString(deterministic=True), tuple(origins))


def _udp_name(server: GatewayServer) -> str:
    return f"{UDP_PREFIX}{server.bind or ANY_ADDRESS}_{server.quic_port}"


def _set_address(address: Address, name: str) -> None:
    if name.startswith(UNIX):
        address.pipe.path = name.removeprefix(UNIX)
        return
    host, _, port = name.rpartition("_")
    address.socket_address.address = host
    address.socket_address.port_value = int(port)


def _add_server(
    q: Q, client: Client, listener: Listener, server: GatewayServer, enforced: Security, counts: bool
) -> list[Ref]:
    """Adds the chains of a server of TLS or bytes; returns what else decided them."""
    if server.guest:
        return []
    match server.kind:
        case ServerKind.HTTP:
            return []
        case ServerKind.HTTPS | ServerKind.TLS:
            streams = q(gateway_tcp_routes, client, server)[:1] if server.kind is ServerKind.TLS else ()
            if server.tls is None or (server.kind is ServerKind.TLS and not streams):
                return []
            chain = _chain(listener, server)
            alpn = SERVER_ALPN_HTTP if server.kind is ServerKind.HTTPS else ()
            bounds = (q(mesh_tls), q(outer_tls))
            set_socket(chain.transport_socket, termination(server.tls, q(accepted_domains), *bounds, alpn=alpn))
            if server.kind is ServerKind.HTTPS:
                chain.filters.append(_manager(q, listener, server, enforced, counts))
            for each in streams:
                _add_stream(q, client, chain, server, each, enforced, tls=True)
            return [each.source for each in streams]
        case ServerKind.PASSTHROUGH:
            return _add_streams(q, client, listener, server, q(gateway_tls_routes, client, server), enforced)
        case ServerKind.AUTO_PASSTHROUGH:
            _add_automatic(q, listener, server, enforced)
            return []
        case ServerKind.TCP:
            return _add_streams(q, client, listener, server, q(gateway_tcp_routes, client, server), enforced)


def _add_streams(
    q: Q,
    client: Client,
    listener: Listener,
    server: GatewayServer,
    streams: tuple[StreamRoute, ...],
    enforced: Security,
) -> list[Ref]:
    """A chain for each stream, as far as no earlier one has its connections."""
    for each in distinct(streams):
        chain = FilterChain()
        _set_match(chain, listener, server, () if ANY in each.server_names else each.server_names)
        for said in each.subnets:
            set_range(chain.filter_chain_match.prefix_ranges.add(), said)
        for said in each.sources:
            set_range(chain.filter_chain_match.source_prefix_ranges.add(), said)
        _add_stream(q, client, chain, server, each, enforced, tls=False)
        _add_if_free(listener, chain)
    return [each.source for each in streams]


def _add_if_free(listener: Listener, chain: FilterChain) -> None:
    """Adds a chain without the server names that others have; Envoy refuses two for one match."""
    place = _place(chain)
    taken = [each.filter_chain_match.server_names for each in listener.filter_chains if _place(each) == place]
    names = list(chain.filter_chain_match.server_names)
    free = [name for name in names if not any(name in each for each in taken)]
    if free or (not names and all(taken)):
        del chain.filter_chain_match.server_names[:]
        chain.filter_chain_match.server_names.extend(free)
        listener.filter_chains.append(chain)


def _place(chain: FilterChain) -> bytes:
    """What a chain asks for besides the server name."""
    match = FilterChainMatch()
    match.CopyFrom(chain.filter_chain_match)
    match.ClearField("server_names")
    match.ClearField("transport_protocol")
    return match.SerializeToString(deterministic=True)


def _add_automatic(q: Q, listener: Listener, server: GatewayServer, enforced: Security) -> None:
    """Mutual TLS of the mesh goes on to the service that its server name says."""
    names = tuple(dict.fromkeys(each if each.startswith("*") else f"*.{each}" for each in server.sni))
    chain = FilterChain()
    _set_match(chain, listener, server, () if ANY in names else names)
    chain.filter_chain_match.application_protocols.extend(MESH_ALPN)
    waits = add_network_security(chain, enforced, tls=False, settable=False)
    add_named_stream(q, chain, f"{AUTOMATIC_PREFIX}%REQUESTED_SERVER_NAME%", waits=waits)
    _add_if_free(listener, chain)


def _add_stream(
    q: Q,
    client: Client,
    chain: FilterChain,
    server: GatewayServer,
    stream: StreamRoute,
    enforced: Security,
    *,
    tls: bool,
) -> None:
    waits = add_network_security(chain, enforced, tls=tls, settable=False)
    add_stream(q, client, chain, stream.destinations, waits=waits, stat_prefix=server.title)


def _chain(listener: Listener, server: GatewayServer) -> FilterChain:
    """A new chain for the server names of a server."""
    chain = listener.filter_chains.add()
    chain.transport_socket_connect_timeout.seconds = CLIENT_TIMEOUT_S
    _set_match(chain, listener, server, server.own_names)
    return chain


def _set_match(chain: FilterChain, listener: Listener, server: GatewayServer, names: tuple[str, ...]) -> None:
    """Names a chain and its server names; none: for all that no other chain has."""
    chain.name = f"{listener.name}_{server.namespace}_{server.gateway.name}_{server.index}"
    chain.filter_chain_match.server_names.extend(names)
    if server.kind.by_name and names and not listener.HasField("udp_listener_config"):
        chain.filter_chain_match.transport_protocol = TLS


def _manager(
    q: Q,
    listener: Listener,
    server: GatewayServer,
    enforced: Security,
    counts: bool,
    *,
    http3: bool = False,
    grpc_web: bool = False,
) -> Filter:
    prefix = server.title or f"outbound_{listener.name}"
    return http_manager(
        q,
        Direction.GATEWAY,
        prefix,
        server.route,
        tls=True,
        http3=http3,
        grpc_web=grpc_web,
        security=enforced,
        counts=counts,
    )
