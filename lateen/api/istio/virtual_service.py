"""VirtualService: routing of HTTP requests, TLS and TCP connections (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from lateen.api import rules
from lateen.api.istio import traffic_rules as traffic
from lateen.api.istio.http_match import CLAIM_PREFIX
from lateen.api.istio.http_route import HTTPRoute
from lateen.api.istio.reach import unreachable
from lateen.api.istio.stream_route import TCPRoute, TLSRoute
from lateen.api.problems import Problem, at, warning
from lateen.api.struct import Object, Struct
from lateen.lib.names import is_address, is_host_pattern


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
        yield from unreachable(self.http, self.tls, self.tcp)

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
        yield from self._overlapping_hosts()
        yield from self._claim_problems(mesh)
        for index, route in enumerate(self.tls):
            for inner, match in enumerate(route.match):
                for last, sni in enumerate(match.sni_hosts):
                    if (is_host_pattern(sni) or is_address(sni)) and not any(
                        traffic.covers(host, sni) for host in self.hosts
                    ):
                        place = at("tls", index, "match", inner, "sniHosts", last)
                        yield Problem(place, f"{sni} is not covered by hosts", "add it to hosts")

    def _overlapping_hosts(self) -> Iterator[Problem]:
        for index, host in enumerate(self.hosts):
            wider = next(
                (each for each in self.hosts if each.lower() != host.lower() and traffic.covers(each, host)), None
            )
            if wider is not None:
                yield Problem(at("hosts", index), f"{host} is one of {wider}, which is here too", "keep one of them")

    def _claim_problems(self, mesh: bool) -> Iterator[Problem]:
        """Tokens are verified before a rule is chosen only on gateways."""
        gateways = [each for each in self.gateways if each != "mesh"]
        for index, route in enumerate(self.http):
            for inner, match in enumerate(route.match):
                for part, names in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
                    for name in names:
                        place = at("http", index, "match", inner, part, name)
                        if not name.lower().startswith(CLAIM_PREFIX):
                            continue
                        if not gateways:
                            yield Problem(place, "claims choose rules on gateways only", "bind it to a gateway")
                        elif mesh and (not match.gateways or "mesh" in match.gateways):
                            yield warning(
                                place,
                                "claims choose rules on gateways only: this matches nothing in sidecars",
                                "list the gateways in the match",
                            )

    def _delegate_problems(self) -> Iterator[Problem]:
        for part, values in (("gateways", self.gateways), ("tls", self.tls), ("tcp", self.tcp)):
            if values:
                message = f"a VirtualService without hosts is a delegate and has no {part}"
                yield Problem(part, message, "set hosts, or leave the field out")
        for index, route in enumerate(self.http):
            if route.delegate is not None:
                yield Problem(at("http", index, "delegate"), "a delegate cannot delegate again", "write the rules here")


class VirtualService(Object, frozen=True):
    """Routing rules."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "VirtualService"

    spec: VirtualServiceSpec = VirtualServiceSpec()
