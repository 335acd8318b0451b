"""VirtualService: routing of HTTP requests, TLS and TCP connections (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import msgspec

from lateen.api import rules
from lateen.api.istio import traffic_rules as traffic
from lateen.api.istio.http_match import HTTPMatchRequest, StringMatch
from lateen.api.istio.http_route import Destination, HTTPRoute
from lateen.api.problems import Problem, at, deprecated, warning
from lateen.api.struct import Int32, Object, Struct, UInt32
from lateen.lib.names import is_address, is_host_pattern


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
            yield from rules.host_pattern(at("sniHosts", index), host)
        yield from traffic.l4_match(self.destination_subnets, self.port, self.source_labels, self.gateways)


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


class VirtualServiceSpec(Struct, frozen=True):
    """Routing rules for requests and connections to some hosts."""

    export_to: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    http: tuple[HTTPRoute, ...] = ()
    tcp: tuple[TCPRoute, ...] = ()
    tls: tuple[TLSRoute, ...] = ()

    def problems(self) -> Iterator[Problem]:
        yield from rules.export_to(self.export_to)
        yield from traffic.gateways("gateways", self.gateways)
        if not (self.http or self.tcp or self.tls):
            yield Problem("", "there are no rules", 'set "http", "tls" or "tcp"')
        if self.hosts:
            yield from self._host_problems()
        else:
            yield from self._delegate_problems()
        yield from self._unreachable_rules()

    def _host_problems(self) -> Iterator[Problem]:
        mesh = not self.gateways or "mesh" in self.gateways
        for index, host in enumerate(self.hosts):
            if host == "*" and mesh:
                remedy = "name hosts, or gateways without mesh"
                yield Problem(at("hosts", index), "* is not possible for sidecars (gateway mesh)", remedy)
            else:
                yield from rules.host_pattern(at("hosts", index), host, addresses=True)
            if not mesh and "." not in host and host != "*" and not is_address(host):
                message = f'"{host[:80]}" on a gateway means the service of that name, not a name clients ask for'
                yield warning(at("hosts", index), message, "write the full name")
        yield from rules.no_duplicates(("hosts",), [each.lower() for each in self.hosts], "host")
        for index, route in enumerate(self.tls):
            for inner, match in enumerate(route.match):
                for last, sni in enumerate(match.sni_hosts):
                    if is_host_pattern(sni) and not any(traffic.covers(host, sni) for host in self.hosts):
                        place = at("tls", index, "match", inner, "sniHosts", last)
                        yield Problem(place, f"{sni} is not covered by hosts", "add it to hosts")

    def _delegate_problems(self) -> Iterator[Problem]:
        for part, values in (("gateways", self.gateways), ("tls", self.tls), ("tcp", self.tcp)):
            if values:
                message = f"a VirtualService without hosts is a delegate and has no {part}"
                yield Problem(part, message, "set hosts, or leave the field out")
        for index, route in enumerate(self.http):
            if route.delegate is not None:
                yield Problem(at("http", index, "delegate"), "a delegate cannot delegate again", "write the rules here")

    def _unreachable_rules(self) -> Iterator[Problem]:
        seen: dict[str, int] = {}
        for index, route in enumerate(self.http):
            matches = [msgspec.structs.replace(each, name=None) for each in route.match]
            if index + 1 < len(self.http) and (not matches or any(each in _EVERYTHING for each in matches)):
                message = f"no request reaches this rule: http[{index}] takes them all"
                yield warning(at("http", index + 1), message, "move it up, or give the other a match", "IST0130")
                return
            key = str(matches)
            if key in seen:
                message = f"no request reaches this rule: http[{seen[key]}] has the same match"
                yield warning(at("http", index), message, "change one of the matches", "IST0130")
            seen.setdefault(key, index)


_EVERYTHING = (HTTPMatchRequest(), HTTPMatchRequest(uri=StringMatch(prefix="/")))


class VirtualService(Object, frozen=True):
    """Routing rules."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "VirtualService"

    spec: VirtualServiceSpec = VirtualServiceSpec()
