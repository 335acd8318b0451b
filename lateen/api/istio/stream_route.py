"""TLS and TCP rules of a VirtualService: which connections, and where they go (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lateen.api import rules
from lateen.api.istio import traffic_rules as traffic
from lateen.api.istio.http_route import Destination
from lateen.api.problems import Problem, at, deprecated, warning
from lateen.api.struct import Int32, Struct, UInt32
from lateen.lib.names import is_address


class L4MatchAttributes(Struct, frozen=True):
    """What a connection must look like."""

    destination_subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    port: UInt32 | None = None
    source_labels: Mapping[str, str] = {}
    source_namespace: str | None = None
    source_subnet: str | None = None

    def problems(self) -> Iterator[Problem]:
        yield from traffic.l4_match(self.destination_subnets, self.port, self.source_labels, self.gateways)
        yield from traffic.source_namespace("sourceNamespace", self.source_namespace)
        if self.source_subnet is not None:
            yield deprecated("sourceSubnet", "sourceLabels or sourceNamespace")
            yield from rules.network("sourceSubnet", self.source_subnet)


class RouteDestination(Struct, frozen=True):
    """A destination of a rule with its share of the connections."""

    destination: Destination
    weight: Int32 | None = None

    def problems(self) -> Iterator[Problem]:
        yield from rules.not_negative("weight", self.weight)


class TCPRoute(Struct, frozen=True):
    """One rule for connections."""

    match: tuple[L4MatchAttributes, ...] = ()
    route: tuple[RouteDestination, ...] = ()

    def problems(self) -> Iterator[Problem]:
        if not self.route:
            yield Problem("", '"route" is missing', "name at least one destination")
        yield from traffic.weights([each.weight for each in self.route])


class TLSMatchAttributes(Struct, frozen=True):
    """What a TLS connection must look like."""

    sni_hosts: tuple[str, ...]
    destination_subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    port: UInt32 | None = None
    source_labels: Mapping[str, str] = {}
    source_namespace: str | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.sni_hosts:
            yield Problem("sniHosts", "the list is empty", "name at least one server name")
        for index, host in enumerate(self.sni_hosts):
            yield from rules.host_pattern(at("sniHosts", index), host, addresses=True)
            if is_address(host):
                message = f"{host} is an address, and clients put names into a handshake"
                yield warning(at("sniHosts", index), message, "write the name")
        yield from traffic.l4_match(self.destination_subnets, self.port, self.source_labels, self.gateways)
        yield from traffic.source_namespace("sourceNamespace", self.source_namespace)


class TLSRoute(Struct, frozen=True):
    """One rule for TLS connections that are passed through."""

    match: tuple[TLSMatchAttributes, ...]
    route: tuple[RouteDestination, ...] = ()

    def problems(self) -> Iterator[Problem]:
        if not self.match:
            yield Problem("match", "the list is empty", "match at least one server name")
        if not self.route:
            yield Problem("", '"route" is missing', "name at least one destination")
        yield from traffic.weights([each.weight for each in self.route])
