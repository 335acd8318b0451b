"""Where connections go that are not read as requests: the `tls` and `tcp` rules of VirtualServices.

A TLS rule chooses by the server name of a handshake that passes through, a TCP rule by the address dialled. Who
asks and by which port is decided here, as for HTTP. Where no rule applies the answer is empty: a service without
a word about it goes to itself, a gateway's port to nowhere.

Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#TLSRoute and #TCPRoute
"""

from __future__ import annotations

import msgspec

from lateen.engine import Q
from lateen.intent.destination import counted, destinations
from lateen.intent.route import Destination
from lateen.intent.route_table import shared_hosts
from lateen.lib.ids import Ref
from lateen.model.gateways import GatewayServer
from lateen.model.hosts import overlap
from lateen.model.virtual_services import (
    MESH,
    Reader,
    gateway_virtual_services,
    mesh_virtual_service,
    reader,
    tcp_rules,
    tls_rules,
)
from lateen.model.visibility import Client
from lateen.model.workloads import Labels


class StreamRoute(msgspec.Struct, frozen=True):
    """Connections to one of the `server_names` in one of the `subnets`, from one of the `sources` (any when empty), go
    to the destinations by weight. Routes are tried in order."""

    destinations: tuple[Destination, ...]
    source: Ref
    server_names: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def tls_routes(q: Q, client: Client, labels: Labels, host: str, port: int) -> tuple[StreamRoute, ...]:
    """What the VirtualService that counts for a host says about TLS connections of sidecars to one of its ports."""
    ref = q(mesh_virtual_service, client, host)
    return () if ref is None else _tls(q, client, ref, q(reader, ref, MESH, client.namespace, labels), port)


def tcp_routes(q: Q, client: Client, labels: Labels, host: str, port: int) -> tuple[StreamRoute, ...]:
    """What the VirtualService that counts for a host says about TCP connections of sidecars to one of its ports."""
    ref = q(mesh_virtual_service, client, host)
    return () if ref is None else _tcp(q, client, ref, q(reader, ref, MESH, client.namespace, labels), port)


def gateway_tls_routes(q: Q, client: Client, server: GatewayServer) -> tuple[StreamRoute, ...]:
    """The TLS rules of all VirtualServices bound to a server that passes TLS through; only server names that the
    server has."""
    found: list[StreamRoute] = []
    for each in q(gateway_virtual_services, client.namespace, server.name):
        covered = shared_hosts(server, each)
        for route in _tls(q, client, each.ref, Reader(server.name, client.namespace), server.number):
            names = tuple(
                name for name in route.server_names if server.has(name) and any(overlap(name, host) for host in covered)
            )
            if names:
                found.append(msgspec.structs.replace(route, server_names=names))
    return tuple(found)


def gateway_tcp_routes(q: Q, client: Client, server: GatewayServer) -> tuple[StreamRoute, ...]:
    """The TCP rules of all VirtualServices bound to a server."""
    return tuple(
        route
        for each in q(gateway_virtual_services, client.namespace, server.name)
        if shared_hosts(server, each)
        for route in _tcp(q, client, each.ref, Reader(server.name, client.namespace), server.number)
    )


def _tls(q: Q, client: Client, ref: Ref, who: Reader, port: int) -> tuple[StreamRoute, ...]:
    return tuple(
        StreamRoute(to, ref, tuple(dict.fromkeys(name.lower() for name in match.sni_hosts)), match.destination_subnets)
        for rule in q(tls_rules, ref, who, port)
        if (to := destinations(q, client, counted(rule.route), port))
        for match in rule.match
    )


def _tcp(q: Q, client: Client, ref: Ref, who: Reader, port: int) -> tuple[StreamRoute, ...]:
    found: list[StreamRoute] = []
    for rule in q(tcp_rules, ref, who, port):
        to = destinations(q, client, counted(rule.route), port)
        if to:
            found += [
                StreamRoute(
                    to,
                    ref,
                    subnets=each.destination_subnets,
                    sources=(each.source_subnet,) if each.source_subnet else (),
                )
                for each in rule.match
            ]
            found += [] if rule.match else [StreamRoute(to, ref)]
    return tuple(found)
