"""Addresses that several services claim on one port, and who gets the connections there.

HTTP tells services apart by the host name, so addresses may be shared. Anything else is told apart by the address
alone: a port that is not HTTP takes every connection to its address, the narrower of two ranges comes before the wider
one, and of two equal ones the host that sorts first counts (`lateen/intent/outbound.py`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec

from lateen.api.core.service import Service
from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.objects import everywhere, get
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.protocols import Protocol
from lateen.model.services import MeshService, entry_service, kubernetes_service


class Claim(msgspec.Struct, frozen=True, order=True):
    """A service's claim to an address or a range on one port."""

    host: str
    network: str
    port: int
    by_name: bool
    ref: Ref

    @property
    def range(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The addresses that are meant."""
        return ipaddress.ip_network(self.network, strict=False)


class Taken(msgspec.Struct, frozen=True):
    """An address of an object (by its index) where another service gets the connections."""

    index: int
    port: int
    winner: Claim
    why: str


def taken(q: Q, ref: Ref) -> tuple[Taken, ...]:
    """The addresses of a ServiceEntry on which another service gets connections that are not told apart by name."""
    entry = get(q, ServiceEntry, ref.namespace, ref.name)
    addresses = {address: index for index, address in enumerate(entry.spec.addresses)} if entry is not None else {}
    if not addresses:
        return ()
    every = q(_claims)
    found: dict[tuple[int, int], Taken] = {}
    for own in every:
        if own.ref != ref:
            continue
        for other in every:
            place = (addresses[own.network], own.port)
            if place not in found and (why := _loses(own, other)):
                found[place] = Taken(*place, other, why)
    return tuple(found[each] for each in sorted(found))


def _loses(own: Claim, other: Claim) -> str:
    """Why the other claim gets connections of this one, empty when it doesn't."""
    if own.host == other.host or own.port != other.port or (own.by_name and other.by_name):
        return ""
    mine, theirs = own.range, other.range
    if mine.version != theirs.version or not mine.overlaps(theirs):
        return ""
    if other.by_name:
        return ""
    if own.by_name:
        return "its port is not HTTP, so the address alone decides" if mine.prefixlen <= theirs.prefixlen else ""
    if theirs.prefixlen != mine.prefixlen:
        return "its range is narrower" if theirs.prefixlen > mine.prefixlen else ""
    return "its host sorts first" if other.host < own.host else ""


def _claims(q: Q) -> tuple[Claim, ...]:
    return tuple(sorted(set(_all_claims(q))))


def _all_claims(q: Q) -> Iterator[Claim]:
    for service in everywhere(q, Service):
        made = q(kubernetes_service, service.namespace, service.name)
        if made is not None:
            yield from _of_ports(made, made.addresses)
    for entry in everywhere(q, ServiceEntry):
        for host in entry.spec.hosts:
            made = q(entry_service, entry.namespace, entry.name, host.lower())
            if made is not None:
                yield from _of_ports(made, entry.spec.addresses)


def _of_ports(service: MeshService, addresses: tuple[str, ...]) -> Iterator[Claim]:
    for port in service.ports:
        for address in addresses if port.protocol is not Protocol.UDP else ():
            yield Claim(service.host, address, port.number, port.protocol.is_http, service.ref)
