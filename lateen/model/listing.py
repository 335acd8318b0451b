"""Which hosts a client may see, listed in parts: one for each namespace of Services, one for all ServiceEntries.

A service that comes or goes changes one part, and what is worked out for each host of a part is worked out again for
that part alone. Clients share the parts in which they see what others see. One that a Sidecar scopes looks its hosts up
by the patterns of the Sidecar, so that services it does not import are nothing to it.
"""

from __future__ import annotations

from typing import Final

from lateen.engine import Q
from lateen.model.hosts import covers, is_wildcard, parse_service_host
from lateen.model.mesh import domain
from lateen.model.services import all_hosts, entries_in, entry_hosts, service_namespaces, services_in
from lateen.model.sharing import anybody, apart
from lateen.model.visibility import Client, egress, visible

ENTRIES: Final = ""
"""The part of the hosts of ServiceEntries."""
SCOPED: Final = "/"
"""The only part of a client that a Sidecar scopes."""


def visible_services(q: Q, client: Client) -> tuple[str, ...]:
    """Every host a client may see, sorted. Changes only when a host comes, goes, or changes its visibility."""
    return tuple(sorted({host for by, part in parts(q, client) for host in q(seen, by, part)}))


def parts(q: Q, client: Client) -> tuple[tuple[Client, str], ...]:
    """The parts of what a client may see, each with the client to look it up for."""
    if q(egress, client):
        return ((client, SCOPED),)
    namespaces = (*sorted(q(service_namespaces)), ENTRIES)
    if not client.namespace:
        return tuple((client, each) for each in namespaces)
    own, nobody = q(apart, client), anybody(client)
    if own.whole or own.patterns:
        return tuple((client, each) for each in namespaces)
    cluster_domain = q(domain)
    found = (parse_service_host(each, cluster_domain) for each in own.exact)
    touched = {each[1] for each in found if each is not None} | ({ENTRIES} if own.exact else set[str]())
    return tuple((client if each in touched else nobody, each) for each in namespaces)


def seen(q: Q, client: Client, part: str) -> tuple[str, ...]:
    """The hosts of a part that a client may see, sorted."""
    if part == SCOPED:
        hosts = _imported(q, client)
    else:
        hosts = sorted(q(entry_hosts)) if part == ENTRIES else q(services_in, part)
    return tuple(host for host in hosts if visible(q, client, host) is not None)


def _imported(q: Q, client: Client) -> list[str]:
    """The hosts that patterns of a Sidecar may mean."""
    found: set[str] = set()
    for namespace, pattern in dict.fromkeys(pair for each in q(egress, client) for pair in each.hosts):
        if not is_wildcard(pattern):
            found.add(pattern)
            continue
        among = q(all_hosts) if namespace == "*" else (*q(services_in, namespace), *q(entries_in, namespace))
        found.update(host for host in among if covers(pattern, host))
    return sorted(found)
