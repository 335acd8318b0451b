"""The inbound listener of sidecars: `virtualInbound` on 15006, with filter chains per declared port.

What a port takes follows from PeerAuthentication: mutual TLS only (STRICT), both (PERMISSIVE) or plain traffic only
(DISABLE). Under PERMISSIVE the ALPN of the mesh tells mutual TLS from TLS that the application speaks itself.
Ports that nothing declares are let in by chains without a port, under the policy of the workload.

The port's protocol decides between requests and bytes; where it has to be found out, the ALPN (mutual TLS) or the
first bytes (plain) decide. The first bytes are not looked at on ports declared as TCP, nor for TLS on ports that
take plain traffic only, so servers that speak first aren't held up there.

Source: https://istio.io/latest/docs/reference/config/security/peer_authentication/
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.core.v3.base_pb2 import INBOUND
from envoy.config.listener.v3.listener_components_pb2 import FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener

from lateen.engine import Q
from lateen.envoy.access_log import add_access_log
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
from lateen.envoy.tls import MESH_ALPN, MESH_HTTP_ALPN, MESH_TCP_ALPN, SERVER_ALPN_HTTP, mesh_server, set_socket
from lateen.features.encoding import set_seconds
from lateen.features.feature import Direction
from lateen.intent.inbound import InboundPort, inbound_ports
from lateen.intent.scope import Scope
from lateen.intent.security import Security, security
from lateen.model.mesh import accepted_domains, access_log, detection_timeout_s, mesh_ref, mesh_tls
from lateen.model.peer_authentication import MtlsMode, peer_policy
from lateen.model.policy_attachment import Workloads
from lateen.model.protocols import Protocol

VIRTUAL_INBOUND = "virtualInbound"
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
    listener.address.socket_address.address = "0.0.0.0"  # noqa: S104 (what redirection sends to)
    listener.address.socket_address.port_value = INBOUND_PORT
    listener.traffic_direction = INBOUND
    add_original_destination(listener)
    add_tls_inspector(listener, (each.port for each in ports if each.mode is MtlsMode.DISABLE and each.protocol.is_tcp))
    add_http_inspector(listener, (each.port for each in ports if each.protocol.is_tcp))
    set_seconds(listener.listener_filters_timeout, q(detection_timeout_s) or DETECTION_TIMEOUT_S)
    listener.continue_on_listener_filters_timeout = True
    enforced = q(security, Workloads(scope.namespace, scope.labels))
    loop = listener.filter_chains.add()
    loop.name = f"{VIRTUAL_INBOUND}-blackhole"
    loop.filter_chain_match.destination_port.value = INBOUND_PORT
    loop.filters.append(tcp_proxy(q, "BlackHoleCluster"))
    for each in ports:
        _add_port(q, listener, each, enforced)
    catch_all = InboundPort(port=0, protocol=Protocol.AUTO, mode=policy.mode)
    _add_port(q, listener, catch_all, enforced)
    add_access_log(listener.access_log.add, q(access_log), unanswered_only=True)
    add_connection_logs(listener.access_log.add, enforced, q(access_log).file)
    origins = [mesh_ref(), *policy.origins, *enforced.origins, *(ref for each in ports for ref in each.origins)]
    body = listener.SerializeToString(deterministic=True)
    return resource(VIRTUAL_INBOUND, body, tuple(dict.fromkeys(origins)), mentioned(body))


def _add_port(q: Q, listener: Listener, port: InboundPort, enforced: Security) -> None:
    """The chains of a declared port, or of all others (port 0)."""
    reads = not port.protocol.is_tcp
    finds_out = port.protocol is Protocol.AUTO
    permissive = port.mode is MtlsMode.PERMISSIVE
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
