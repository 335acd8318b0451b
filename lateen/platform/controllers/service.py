"""Services: an address for each from the range of virtual addresses, and the table that leads from it to Pods.

An address is written into `spec.clusterIP` once and stays. Which one is a function of the Service's name (the next
free one on a collision), so a mesh made anew from the same documents gets the same addresses.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence

from lateen.api.struct import Json
from lateen.platform.controllers import documents as d
from lateen.platform.controllers.actions import Action, Outcome, Patch
from lateen.platform.pod import ServiceVip

RESERVED = 256
"""Addresses at the start of the range that are never given out: clients expect their fixed ones there."""


def needs_address(service: Json) -> bool:
    """Whether the Service is to have an address and has none: not headless, not a mere name for another."""
    spec = d.spec(service)
    return not spec.get("clusterIP") and spec.get("type") != "ExternalName" and not d.terminating(service)


def allocate(services: Iterable[Json], vip_range: str) -> Outcome:
    """Addresses for all Services that lack one."""
    everything = sorted(services, key=d.key)
    taken = {d.spec(service).get("clusterIP") or "" for service in everything}
    actions: list[Action] = []
    for service in everything:
        if needs_address(service):
            address = free_address(d.key(service), taken, vip_range)
            taken.add(address)
            actions.append(Patch("Service", d.key(service), {"spec": {"clusterIP": address, "clusterIPs": [address]}}))
    return Outcome(tuple(actions))


def free_address(key: d.Key, taken: set[str], vip_range: str) -> str:
    """The address for that Service: where its name points, or the next one that is free. LookupError when full."""
    network = ipaddress.IPv4Network(vip_range)
    size = network.num_addresses - RESERVED - 1  # without the last, the broadcast address
    start = int.from_bytes(hashlib.sha256("/".join(key).encode()).digest()[:8], "big")
    for step in range(size):
        address = str(network[RESERVED + (start + step) % size])
        if address not in taken:
            return address
    raise LookupError(f"all {size} addresses of {vip_range} are taken")


def vips(services: Iterable[Json], slices: Iterable[Json]) -> tuple[ServiceVip, ...]:
    """The table of virtual addresses: each port of each Service that has one, with its ready endpoints."""
    by_service: dict[d.Key, list[Json]] = {}
    for each in slices:
        name = d.labels(each).get("kubernetes.io/service-name", "")
        by_service.setdefault((d.namespace(each), name), []).append(each)
    table: list[ServiceVip] = []
    for service in sorted(services, key=d.key):
        spec = d.spec(service)
        address = spec.get("clusterIP") or "None"
        if address == "None" or ":" in address:
            continue
        for port in d.parts(spec, "ports"):
            protocol = port.get("protocol", "TCP")
            if protocol in ("TCP", "UDP"):
                table.append(
                    ServiceVip(
                        vip=address,
                        port=port["port"],
                        protocol="udp" if protocol == "UDP" else "tcp",
                        endpoints=_endpoints(port, by_service.get(d.key(service), ())),
                    )
                )
    return tuple(table)


def _endpoints(port: Json, slices: Sequence[Json]) -> tuple[tuple[str, int], ...]:
    """Addresses and ports behind one Service port; those that end but still serve, if there are no others."""
    wanted = (port.get("name", ""), port.get("protocol", "TCP"))
    found: dict[bool, set[tuple[str, int]]] = {True: set(), False: set()}
    for each in slices:
        number = next(
            (
                one["port"]
                for one in d.parts(each, "ports")
                if (one.get("name", ""), one.get("protocol", "TCP")) == wanted and one.get("port")
            ),
            None,
        )
        if number is None:
            continue
        for endpoint in d.parts(each, "endpoints"):
            conditions = d.part(endpoint, "conditions")
            ready = conditions.get("ready", True)
            if ready or (conditions.get("serving") and conditions.get("terminating")):
                found[ready].update((address, number) for address in endpoint["addresses"] if ":" not in address)
    return tuple(sorted(found[True] or found[False]))
