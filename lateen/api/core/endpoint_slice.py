"""EndpointSlice (discovery.k8s.io/v1): the addresses behind a Service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api.core.selectors import ObjectReference
from lateen.api.problems import Problem, at
from lateen.api.struct import Meta, Object, Port, Struct
from lateen.lib.names import is_address, is_host


class EndpointConditions(Struct, frozen=True):
    """The state of an endpoint; unset `ready` counts as ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Struct, frozen=True):
    """A zone whose clients should use an endpoint."""

    name: str


class ForNode(Struct, frozen=True):
    """A node whose clients should use an endpoint."""

    name: str


class EndpointHints(Struct, frozen=True):
    """Who should use an endpoint."""

    for_nodes: tuple[ForNode, ...] = ()
    for_zones: tuple[ForZone, ...] = ()


class Endpoint(Struct, frozen=True):
    """One Pod or machine behind a Service."""

    addresses: Annotated[tuple[str, ...], Meta(min_length=1, max_length=100)]
    conditions: EndpointConditions = EndpointConditions()
    deprecated_topology: Mapping[str, str] = {}
    hints: EndpointHints | None = None
    hostname: str | None = None
    node_name: str | None = None
    target_ref: ObjectReference | None = None
    zone: str | None = None


class EndpointPort(Struct, frozen=True):
    """A port that all endpoints of a slice have."""

    app_protocol: str | None = None
    name: str | None = None
    port: Port | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] | None = None


class EndpointSlice(Object, frozen=True):
    """Some of the endpoints of the Service that label `kubernetes.io/service-name` names."""

    GROUP: ClassVar[str] = "discovery.k8s.io"
    KIND: ClassVar[str] = "EndpointSlice"

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: Annotated[tuple[Endpoint, ...], Meta(max_length=1000)] = ()
    ports: tuple[EndpointPort, ...] = ()

    def problems(self) -> Iterator[Problem]:
        for index, endpoint in enumerate(self.endpoints):
            for inner, address in enumerate(endpoint.addresses):
                fits = is_host(address) if self.address_type == "FQDN" else is_address(address)
                if self.address_type != "FQDN" and fits:
                    fits = (":" in address) == (self.address_type == "IPv6")
                if not fits:
                    place = at("endpoints", index, "addresses", inner)
                    yield Problem(
                        place, f'"{address[:80]}" is not of type {self.address_type}', "change one of the two"
                    )
