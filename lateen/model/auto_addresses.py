"""Virtual addresses of ServiceEntry hosts that have none of their own, from 240.240.0.0/16.

An address is the one in the entry's status, else one that is a function of all such hosts, so that every replica and
restart agrees. What is written to the status (`unwritten_addresses`) stays with its host as long as that lasts: no
other host's coming or going moves an address that applications have looked up.

Source: https://istio.io/latest/docs/ops/configuration/traffic-management/dns-proxy/
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from lateen.api.istio.service_entry import ServiceEntry
from lateen.api.objects import everywhere, get, ref_of
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.hosts import is_wildcard

AUTOALLOCATE_LABEL = "networking.istio.io/enable-autoallocate-ip"
AUTO_RANGE = "240.240.0.0/16"
_SLOTS = 255 * 256 - 2


def auto_address(q: Q, host: str) -> str | None:
    """The automatic virtual address of a ServiceEntry host, or None when it gets none."""
    return q(_auto_addresses).get(host)


def unwritten_addresses(q: Q) -> tuple[tuple[Ref, tuple[tuple[str, str], ...]], ...]:
    """ServiceEntries whose status has other addresses than they have: each with its hosts and their addresses."""
    found: list[tuple[Ref, tuple[tuple[str, str], ...]]] = []
    for namespace, name, written in q(_written):
        wanted = q(_addresses_of, namespace, name)
        if wanted != written:
            found.append((ref_of(ServiceEntry, namespace, name), wanted))
    return tuple(found)


def _addresses_of(q: Q, namespace: str, name: str) -> tuple[tuple[str, str], ...]:
    found = get(q, ServiceEntry, namespace, name)
    if found is None or not _wants_address(found):
        return ()
    hosts = dict.fromkeys(host.lower() for host in found.spec.hosts)
    return tuple((host, address) for host in hosts if (address := q(auto_address, host)) is not None)


def _written(q: Q) -> tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]:
    """Each ServiceEntry's namespace and name, and the hosts and addresses of its status; the oldest first."""
    found = [
        (
            each.metadata.creation_timestamp or "9999",
            each.namespace,
            each.name,
            tuple((address.host or "", address.value) for address in each.status.addresses),
        )
        for each in everywhere(q, ServiceEntry)
    ]
    return tuple((namespace, name, written) for _, namespace, name, written in sorted(found))


def _auto_addresses(q: Q) -> Mapping[str, str]:
    hosts = q(hosts_without_address)
    taken: dict[int, str] = {}
    placed: set[str] = set()
    known = frozenset(hosts)
    for _, _, written in q(_written):
        for host, address in written:
            slot = _slot(address)
            if host in known and host not in placed and slot is not None and slot not in taken:
                taken[slot] = host
                placed.add(host)
    for host in hosts:
        if host in placed:
            continue
        slot = int.from_bytes(hashlib.sha256(host.encode()).digest()[:4]) % _SLOTS
        while slot in taken:  # another host of the same hash: the next free address
            slot = (slot + 1) % _SLOTS
        taken[slot] = host
    return {host: f"240.240.{(slot + 1) >> 8}.{(slot + 1) & 255}" for slot, host in taken.items()}


def auto_hosts(q: Q) -> Mapping[str, str]:
    """Which host has which automatic address, by address."""
    return {address: host for host, address in q(_auto_addresses).items()}


def _slot(address: str) -> int | None:
    """The slot of an automatic address; None for any other text."""
    first, _, rest = address.partition("240.240.")
    high, _, low = rest.partition(".")
    if first or not (high.isascii() and low.isascii() and high.isdigit() and low.isdigit()):
        return None
    slot = (int(high) << 8) + int(low) - 1
    return slot if int(low) < 256 and 0 <= slot < _SLOTS else None


def hosts_without_address(q: Q) -> tuple[str, ...]:
    """The hosts that get an automatic address, sorted."""
    hosts = {
        host.lower()
        for each in everywhere(q, ServiceEntry)
        if _wants_address(each)
        for host in each.spec.hosts
        if not is_wildcard(host)
    }
    return tuple(sorted(hosts)[:_SLOTS])


def allocates(q: Q, namespace: str, name: str) -> bool:
    """True when the hosts of a ServiceEntry get automatic addresses."""
    found = get(q, ServiceEntry, namespace, name)
    return found is not None and _wants_address(found)


def _wants_address(entry: ServiceEntry) -> bool:
    return (
        not entry.spec.addresses
        and (entry.spec.resolution or "NONE") != "NONE"
        and entry.metadata.labels.get(AUTOALLOCATE_LABEL) != "false"
    )
