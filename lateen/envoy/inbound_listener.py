"""The inbound listener of sidecars: `virtualInbound` on 15006, with filter chains per declared port.

What a port takes follows from PeerAuthentication: mutual TLS only (STRICT), both (PERMISSIVE) or plain traffic only
(DISABLE). Under PERMISSIVE the ALPN of the mesh tells mutual TLS from TLS that the application speaks itself.
Ports that nothing declares are let in by chains without a port, under the policy of the workload.

The port's protocol decides between requests and bytes; where it has to be found out, the ALPN (mutual TLS) or the
first bytes (plain) decide. The first bytes are not looked at on ports declared as TCP, nor for TLS on ports that
take plain traffic only, so servers that speak first aren't held up there.

A Sidecar may end clients' own TLS on a port (`tls`, where mutual TLS of the mesh is off), and may have the proxy
listen on it (`captureMode: NONE`): a listener `inbound_ADDRESS_PORT` with the chains of that port.

Source: https://istio.io/latest/docs/reference/config/security/peer_authentication/
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.core.v3.base_pb2 import INBOUND
from envoy.config.listener.v3.listener_components_pb2 import FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener

from lateen.engine import Q
from lateen.envoy.access_log import add_access_log
from lateen.envoy.endpoint import set_address
from lateen.envoy.filters import (
    HTTP_ALPN,
    RAW,
    TLS,
    add_http_inspector,
    add_original_destination,
    add_tls_inspector,
)
from lateen.envoy.http_manager import http_manager
from lateen.envoy.inbound_cluster import INBOUND_PASSTHROUGH
from lateen.envoy.resource import Resource, mentioned, resource
from lateen.envoy.route import inbound_configuration
from lateen.envoy.security_filters import add_network_security
from lateen.envoy.security_log import add_connection_logs
from lateen.envoy.stream import inbound_tcp_proxy, tcp_proxy
from lateen.envoy.tls import (
    MESH_ALPN,
    MESH_HTTP_ALPN,
    MESH_TCP_ALPN,
    SERVER_ALPN_HTTP,
    mesh_server,
    set_socket,
    termination,
)
from lateen.features.encoding import set_seconds
from lateen.features.feature import Direction
from lateen.intent.destination import BLACK_HOLE
from lateen.intent.inbound import InboundPort, inbound_ports
from lateen.intent.scope import Scope
from lateen.intent.security import Security, security
from lateen.lib.ids import Ref
from lateen.model.mesh import accepted_domains, access_log, detection_timeout_s, mesh_ref, mesh_tls, outer_tls
from lateen.model.peer_authentication import MtlsMode, peer_policy
from lateen.model.policy_attachment import Workloads
from lateen.model.protocols import Protocol

VIRTUAL_INBOUND = "virtualInbound"
CLIENT_ALPN = ("http/1.0", "http/1.1", "h2")
"""What a client of HTTP offers in a handshake."""
INBOUND_PORT = 15006
DETECTION_TIMEOUT_S = 5.0
"""How long plain connections may be silent on a port that also takes mutual TLS, unless the mesh says otherwise:
a server that speaks first gets its turn then."""


def virtual_inbound(q: Q, scope: Scope) -> Resource:
    """The listener all inbound connections come to."""
    ports = q(inbound_ports, scope)
    policy = q(peer_policy, scope.namespace, scope.labels)
    listener = Listener()
    listener.name = VIRTUAL_INBOUND
    set_address(listener.address, "0.0.0.0", INBOUND_PORT)  # noqa: S104 (what redirection sends to)
    add_original_destination(listener)
    enforced = q(security, Workloads(scope.namespace, scope.labels))
    loop = listener.filter_chains.add()
    loop.name = f"{VIRTUAL_INBOUND}-blackhole"
    loop.filter_chain_match.destination_port.value = INBOUND_PORT
    loop.filters.append(tcp_proxy(q, BLACK_HOLE))
    for each in ports:
        _add_port(q, listener, each, enforced)
    catch_all = InboundPort(port=0, protocol=Protocol.AUTO, mode=policy.mode)
    _add_port(q, listener, catch_all, enforced)
    return _finished(q, listener, ports, enforced, policy.origins)


def opened_listener_names(q: Q, scope: Scope) -> tuple[str, ...]:
    """The listeners of ports that redirection doesn't bring connections to."""
    return tuple(_opened_name(each) for each in q(inbound_ports, scope) if each.bind)


def opened_listener(q: Q, scope: Scope, name: str) -> Resource | None:
    """A listener that the proxy opens for a port of its workload, or None when there is none of that name."""
    port = next((each for each in q(inbound_ports, scope) if each.bind and _opened_name(each) == name), None)
    if port is None:
        return None
    listener = Listener()
    listener.name = name
    set_address(listener.address, port.bind, port.port)
    enforced = q(security, Workloads(scope.namespace, scope.labels))
    _add_port(q, listener, port, enforced)
    return _finished(q, listener, (port,), enforced)


def _opened_name(port: InboundPort) -> str:
    return f"inbound_{port.bind}_{port.port}"


def _finished(
    q: Q, listener: Listener, ports: tuple[InboundPort, ...], enforced: Security, origins: tuple[Ref, ...] = ()
) -> Resource:
    """A listener with what it needs to choose among the chains of some ports."""
    listener.traffic_direction = INBOUND
    uninspected = [each for each in ports if each.mode is MtlsMode.DISABLE and each.protocol.is_tcp and not each.tls]
    add_tls_inspector(listener, (each.port for each in uninspected))
    add_http_inspector(listener, (each.port for each in ports if each.protocol.is_tcp))
    set_seconds(listener.listener_filters_timeout, q(detection_timeout_s) or DETECTION_TIMEOUT_S)
    listener.continue_on_listener_filters_timeout = True
    add_access_log(listener.access_log.add, q(access_log), unanswered_only=True)
    add_connection_logs(listener.access_log.add, enforced, q(access_log).file)
    every = dict.fromkeys((mesh_ref(), *origins, *enforced.origins, *(ref for each in ports for ref in each.origins)))
    body = listener.SerializeToString(deterministic=True)
    return resource(listener.name, body, tuple(every), mentioned(body))


def _add_port(q: Q, listener: Listener, port: InboundPort, enforced: Security) -> None:
    """The chains of a declared port, or of all others (port 0)."""
    reads = not port.protocol.is_tcp
    finds_out = port.protocol is Protocol.AUTO
    permissive = port.mode is MtlsMode.PERMISSIVE
    if port.tls is not None:
        if reads:
            _add_chain(q, listener, port, enforced, TLS, CLIENT_ALPN if finds_out else (), mutual=False, http=True)
        if not reads or finds_out:
            _add_chain(q, listener, port, enforced, TLS, (), mutual=False, http=False)
        return
    if port.mode is not MtlsMode.DISABLE:
        if reads:
            alpn = MESH_HTTP_ALPN if finds_out else MESH_ALPN if permissive else ()
            _add_chain(q, listener, port, enforced, TLS, alpn, mutual=True, http=True)
        if not reads or finds_out:
            alpn = () if not permissive else MESH_TCP_ALPN if finds_out else MESH_ALPN
            _add_chain(q, listener, port, enforced, TLS, alpn, mutual=True, http=False)
    if port.mode is MtlsMode.STRICT:
        return
    # What an inspector has not seen is plain as well, so without one the chain must not ask for it.
    uninspected = port.mode is MtlsMode.DISABLE and port.protocol.is_tcp
    if reads:
        _add_chain(q, listener, port, enforced, RAW, HTTP_ALPN if finds_out else (), mutual=False, http=True)
    if not reads or finds_out:
        _add_chain(q, listener, port, enforced, "" if uninspected else RAW, (), mutual=False, http=False)
    if not uninspected:
        _add_chain(q, listener, port, enforced, TLS, (), mutual=False, http=False)


def _add_chain(
    q: Q,
    listener: Listener,
    port: InboundPort,
    enforced: Security,
    transport: str,
    alpn: Sequence[str],
    *,
    mutual: bool,
    http: bool,
) -> None:
    chain: FilterChain = listener.filter_chains.add()
    match = chain.filter_chain_match
    if port.port:
        chain.name = f"0.0.0.0_{port.port}"
        match.destination_port.value = port.port
    else:
        chain.name = f"{VIRTUAL_INBOUND}-catchall-http" if http else VIRTUAL_INBOUND
    match.transport_protocol = transport
    match.application_protocols.extend(alpn)
    if mutual:
        set_socket(
            chain.transport_socket,
            mesh_server(q(accepted_domains), SERVER_ALPN_HTTP if http else MESH_TCP_ALPN, q(mesh_tls)),
        )
    elif port.tls is not None:
        alpn = SERVER_ALPN_HTTP if http else ()
        bounds = (q(mesh_tls), q(outer_tls))
        set_socket(chain.transport_socket, termination(port.tls, q(accepted_domains), *bounds, alpn=alpn))
    cluster = f"inbound|{port.port}||" if port.port else INBOUND_PASSTHROUGH
    if not http:
        waits = add_network_security(chain, enforced, tls=mutual, settable=not port.endpoint)
        chain.filters.append(inbound_tcp_proxy(q, cluster, tls=mutual, waits=waits, pool=port.pool))
        return
    operation = f"{port.host}:{port.service_port}/*" if port.host else cluster
    table = inbound_configuration(f"inbound|{port.port}||", operation)
    table.name = cluster
    table.virtual_hosts[0].routes[0].route.cluster = cluster
    stat_prefix = f"inbound_0.0.0.0_{port.port}" if port.port else INBOUND_PASSTHROUGH
    chain.filters.append(http_manager(q, Direction.INBOUND, stat_prefix, table, tls=mutual, security=enforced))
