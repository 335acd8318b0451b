"""Outbound listeners of sidecars: `virtualOutbound` on 15001 and what it hands connections to.

Redirection brings every connection of the application to 15001; Envoy then picks the listener of the address that
was dialled (`10.96.0.5_3306`) or of its port (`0.0.0.0_80`). These listeners bind no port of their own, unless a
Sidecar says that connections to them are not captured. What none of them takes goes on to where it was meant to go,
to an egress proxy, or nowhere when only known hosts may be called.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/listener/v3/listener.proto
"""

from __future__ import annotations

from envoy.config.core.v3.base_pb2 import OUTBOUND
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
    set_range,
)
from lateen.envoy.http_manager import http_manager
from lateen.envoy.resource import Resource, mentioned, resource
from lateen.envoy.stream import add_address_stream, add_stream, tcp_proxy
from lateen.features.encoding import set_seconds
from lateen.features.feature import Direction
from lateen.intent.destination import BLACK_HOLE
from lateen.intent.outbound import Http, OutboundListener, outbound_listener
from lateen.intent.route_table import unknown_cluster, unknown_on_port
from lateen.intent.stream import StreamRoute
from lateen.lib.ids import Ref
from lateen.model.mesh import access_log, detection_timeout_s, mesh_ref
from lateen.model.services import address_ranges
from lateen.model.visibility import Client
from lateen.model.workloads import Labels

VIRTUAL_OUTBOUND = "virtualOutbound"
OUTBOUND_PORT = 15001
PASSTHROUGH_CHAIN = "PassthroughFilterChain"


def virtual_outbound(q: Q, client: Client, on_demand: bool) -> Resource:
    """The listener all outbound connections come to. `on_demand`: those to addresses of the mesh that have no listener
    go to a cluster called as their address, which is asked for."""
    listener = _listener(VIRTUAL_OUTBOUND, "0.0.0.0", OUTBOUND_PORT)  # noqa: S104 (what redirection sends to)
    listener.use_original_dst.value = True
    add_original_destination(listener)
    loop = listener.filter_chains.add()
    loop.name = f"{VIRTUAL_OUTBOUND}-blackhole"
    loop.filter_chain_match.destination_port.value = OUTBOUND_PORT
    loop.filters.append(tcp_proxy(q, BLACK_HOLE))
    if on_demand and (ranges := q(address_ranges)):
        asking = listener.filter_chains.add()
        asking.name = f"{VIRTUAL_OUTBOUND}-on-demand"
        for each in ranges:
            set_range(asking.filter_chain_match.prefix_ranges.add(), each)
        add_address_stream(q, asking)
    rest = listener.filter_chains.add()
    rest.name = f"{VIRTUAL_OUTBOUND}-catchall-tcp"
    rest.filters.append(tcp_proxy(q, q(unknown_cluster, client)))
    add_access_log(listener.access_log.add, q(access_log), unanswered_only=True)
    return resource(VIRTUAL_OUTBOUND, listener.SerializeToString(deterministic=True), _origins(client))


def outbound_resource(
    q: Q, client: Client, labels: Labels, name: str, on_demand: bool, counts: bool
) -> Resource | None:
    """The listener of a port or of a service's address, or None when there is none of that name. `on_demand`: the
    proxy asks for what it needs. `counts`: it counts its requests."""
    intent = q(outbound_listener, client, labels, name)
    if intent is None:
        return None
    listener = _listener(name, intent.address, intent.port)
    listener.bind_to_port.value = not intent.captures
    for each in intent.streams:
        _add_stream(q, client, listener, intent, each)
    if intent.http is not Http.NO:
        chain = listener.filter_chains.add()
        chain.name = name
        chain.filter_chain_match.transport_protocol = RAW
        chain.filter_chain_match.application_protocols.extend(HTTP_ALPN)
        manager = http_manager(
            q,
            Direction.OUTBOUND,
            f"outbound_{name}",
            intent.route,
            on_demand=on_demand and intent.http is Http.SHARED,
            counts=counts,
        )
        chain.filters.append(manager)
        set_seconds(listener.listener_filters_timeout, q(detection_timeout_s))
        listener.continue_on_listener_filters_timeout = True
    if not listener.HasField("default_filter_chain"):
        rest = listener.default_filter_chain
        rest.name = PASSTHROUGH_CHAIN
        rest.filters.append(tcp_proxy(q, q(unknown_on_port, client, intent.port) if intent.port else BLACK_HOLE))
    if intent.http is not Http.NO or any(each.server_names for each in intent.streams):
        add_tls_inspector(listener)
    if intent.http is not Http.NO:
        add_http_inspector(listener)
    body = listener.SerializeToString(deterministic=True)
    return resource(name, body, (*intent.origins, *_origins(client)), mentioned(body))


def _add_stream(q: Q, client: Client, listener: Listener, intent: OutboundListener, stream: StreamRoute) -> None:
    if stream.server_names or stream.subnets or stream.sources:
        chain: FilterChain = listener.filter_chains.add()
        match = chain.filter_chain_match
        if stream.server_names:
            match.transport_protocol = TLS
            match.server_names.extend(stream.server_names)
        for each in stream.subnets:
            set_range(match.prefix_ranges.add(), each)
        for each in stream.sources:
            set_range(match.source_prefix_ranges.add(), each)
    elif not listener.HasField("default_filter_chain"):
        chain = listener.default_filter_chain
    else:
        return
    chain.name = intent.name
    add_stream(q, client, chain, stream.destinations)


def _listener(name: str, address: str, port: int) -> Listener:
    listener = Listener()
    listener.name = name
    set_address(listener.address, address, port)
    listener.traffic_direction = OUTBOUND
    return listener


def _origins(client: Client) -> tuple[Ref, ...]:
    return (mesh_ref(),) if client.sidecar is None else (mesh_ref(), client.sidecar)
