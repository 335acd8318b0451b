"""ServiceEntry: hosts that no Service stands for (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from lateen.api import rules
from lateen.api.istio.selectors import WorkloadSelector
from lateen.api.istio.workload_entry import WorkloadEntrySpec
from lateen.api.problems import Problem, at, warning
from lateen.api.struct import Meta, Object, Port, Struct
from lateen.lib.names import is_address, is_network

_NAMING = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS")
"""Protocols whose traffic says which host it is for."""


class ServiceEntryPort(Struct, frozen=True):
    """A port of the hosts."""

    name: Annotated[str, Meta(max_length=256)]
    number: Port
    protocol: Annotated[str, Meta(max_length=256)] | None = None
    target_port: Port | None = None

    def problems(self) -> Iterator[Problem]:
        if not self.name:
            yield Problem("name", "the port has no name", "name it, such as http or tls")
        if self.protocol:
            yield from rules.protocol("protocol", self.protocol, (*rules.PROTOCOLS, "UDP"))


class ServiceEntrySpec(Struct, frozen=True):
    """Hosts that the registry of services does not have."""

    hosts: Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]
    addresses: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=256)] = ()
    endpoints: Annotated[tuple[WorkloadEntrySpec, ...], Meta(max_length=4096)] = ()
    export_to: tuple[str, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] | None = None
    ports: Annotated[tuple[ServiceEntryPort, ...], Meta(max_length=256)] = ()
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] | None = None
    subject_alt_names: tuple[str, ...] = ()
    workload_selector: WorkloadSelector | None = None

    def problems(self) -> Iterator[Problem]:
        for index, host in enumerate(self.hosts):
            if host == "*":
                yield Problem(
                    at("hosts", index), "* cannot be the host of a ServiceEntry", "name a host, or *.example.com"
                )
            else:
                yield from rules.host_pattern(at("hosts", index), host)
        yield from rules.no_duplicates(("hosts",), [each.lower() for each in self.hosts], "host")
        for index, address in enumerate(self.addresses):
            yield from rules.network(at("addresses", index), address)
            if is_network(address) and "/" in address:
                meant = str(ipaddress.ip_network(address, strict=False))
                if meant != address.lower():
                    yield warning(at("addresses", index), f"{address} stands for all of {meant}", f"write {meant}")
        yield from rules.no_duplicates(("ports",), [each.number for each in self.ports], "port", "number")
        yield from rules.no_duplicates(("ports",), [each.name for each in self.ports], "the name of a port", "name")
        yield from rules.export_to(self.export_to)
        if not self.ports:
            yield warning("", "without ports nothing can be reached", "set ports")
        if self.workload_selector is not None and self.endpoints:
            yield Problem("endpoints", '"endpoints" and "workloadSelector" exclude each other', "keep one of them")
        if self.workload_selector is not None and not self.workload_selector.labels:
            yield warning("workloadSelector", "it selects every workload of the namespace", "set labels", "LTN0108")
        plain = [each.name for each in self.ports if (each.protocol or "TCP").upper() not in _NAMING]
        if self.addresses and len(self.hosts) > 1 and plain and (self.resolution or "NONE") != "NONE":
            message = f"connections to port {plain[0]} of these hosts look alike: they share their addresses"
            yield Problem("hosts", message, "write one ServiceEntry a host, or leave addresses out")
        yield from self._resolution_problems()
        yield from self._endpoint_problems()

    def _resolution_problems(self) -> Iterator[Problem]:
        resolution = self.resolution or "NONE"
        by_name = resolution.startswith(("DNS", "DYNAMIC"))
        for index, address in enumerate(self.addresses):
            if "/" in address and by_name:
                place = at("addresses", index)
                yield Problem(
                    place, f"resolution {resolution} has no networks", "write an address, or use NONE or STATIC"
                )
        match resolution:
            case "NONE":
                if self.endpoints:
                    yield Problem("endpoints", "resolution NONE has no endpoints", "use STATIC or DNS")
                if self.workload_selector is not None:
                    yield warning("workloadSelector", "resolution NONE has no endpoints", "use STATIC")
            case "STATIC":
                if not self.endpoints and self.workload_selector is None:
                    yield Problem("", "resolution STATIC needs endpoints", "set endpoints or workloadSelector")
            case "DNS" | "DNS_ROUND_ROBIN":
                if resolution == "DNS_ROUND_ROBIN" and len(self.endpoints) > 1:
                    yield Problem("endpoints", "DNS_ROUND_ROBIN has one endpoint at most", "keep one, or use DNS")
                for index, host in enumerate(self.hosts):
                    if host.startswith("*") and not self.endpoints and self.workload_selector is None:
                        remedy = "name hosts, or set endpoints"
                        yield Problem(
                            at("hosts", index), f"a wildcard cannot be looked up (resolution {resolution})", remedy
                        )
            case _:
                if self.endpoints or self.workload_selector is not None:
                    place = "endpoints" if self.endpoints else "workloadSelector"
                    yield Problem(place, "DYNAMIC_DNS has no endpoints", "leave them out")
                for index, port in enumerate(self.ports):
                    if (port.protocol or "").upper() not in _NAMING:
                        problem = f"DYNAMIC_DNS needs traffic that names its host; {port.protocol or 'it'} may not"
                        yield Problem(at("ports", index, "protocol"), problem, f"use {', '.join(_NAMING)}, or DNS")

    def _endpoint_problems(self) -> Iterator[Problem]:
        names = {each.name for each in self.ports}
        resolution = self.resolution or "NONE"
        for index, endpoint in enumerate(self.endpoints):
            for name in endpoint.ports:
                if name not in names:
                    place = at("endpoints", index, "ports", name)
                    yield Problem(
                        place, f"the entry has no port named {name}", f"it has {', '.join(sorted(names)) or 'none'}"
                    )
            address = endpoint.address or ""
            socket = address.startswith("unix://")
            if socket and len(self.ports) != 1:
                yield Problem(at("endpoints", index, "address"), "a socket serves exactly one port", "keep one port")
            if resolution == "STATIC" and address and not socket and not is_address(address):
                remedy = "write an IP address, or use resolution DNS"
                yield Problem(
                    at("endpoints", index, "address"), f"{address[:80]} is a name, and STATIC looks no names up", remedy
                )
            if resolution.startswith("DNS") and socket:
                yield Problem(at("endpoints", index, "address"), "a socket needs resolution STATIC", "use STATIC")


class ServiceEntryAddress(Struct, frozen=True):
    """An address that was given to a host without one; `host` is empty when it is for all of them."""

    value: str
    host: str | None = None


class ServiceEntryStatus(Struct, frozen=True):
    """The part of the status that translation reads."""

    addresses: tuple[ServiceEntryAddress, ...] = ()


class ServiceEntry(Object, frozen=True):
    """Hosts outside of the registry of services."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "ServiceEntry"

    spec: ServiceEntrySpec
    status: ServiceEntryStatus = ServiceEntryStatus()
