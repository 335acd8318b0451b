"""Which virtual host answers to a name, looked up for one name: what a proxy asks that discovers on demand.

The answer is the one of the whole table (`route_table.sidecar_hosts`), found without making the table: a full name
is itself, a short one or an address leads to its service, any other to the narrowest wildcard that covers it. So a
lookup depends on the objects that could be meant by the name, and a change elsewhere in the mesh re-runs nothing.

A wildcard on a proxy ends its questions about names below it: what the table has there must come along (`below`).

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/other_features/vhds
"""

from __future__ import annotations

from collections.abc import Iterator

from lateen.engine import Q
from lateen.intent.route_table import (
    ANY,
    ServiceHost,
    alone_ports,
    http_ports_of,
    names_for,
    sidecar_hosts,
    virtual_service_for,
)
from lateen.model.hosts import covers, is_address, is_wildcard, parse_service_host, service_host, wildcards_over
from lateen.model.mesh import domain
from lateen.model.services import entry_hosts, hosts_at, services_in
from lateen.model.sharing import alike, common
from lateen.model.virtual_services import named_hosts
from lateen.model.visibility import Client, visible

SEPARATOR = "/"
"""Between the name of a table and a host, in the name of a virtual host."""


def split_name(name: str) -> tuple[int, str] | None:
    """Port of the table and host of a virtual host's name; None for the name of something else."""
    table, separator, host = name.partition(SEPARATOR)
    return (int(table), host) if separator and host and table.isdecimal() else None


def without_port(host: str) -> str:
    """A host as it was asked for, in lower case and without a port."""
    head, colon, port = host.lower().rpartition(":")
    return head if colon and port.isdecimal() and (":" not in head or head.endswith("]")) else host.lower()


def asking(q: Q, client: Client, name: str) -> Client:
    """The client to look a name up for: only names without a dot mean something else in another namespace."""
    return common(q, client) if "." in name.removeprefix("*.") else client


def hosting(q: Q, client: Client, host: str) -> Client:
    """The client to make a virtual host for: it has other names, and a wildcard hides others, in its own namespace."""
    parts = parse_service_host(host, q(domain))
    at_home = parts is not None and parts[1] == client.namespace
    return client if at_home or is_wildcard(host) else asking(q, client, host)


def table_host(q: Q, client: Client, host: str, port: int) -> ServiceHost | None:
    """The virtual host of a host in the table of a port; None when that table has none."""
    if not _in_table(q, client, host, port):
        return None
    virtual_service = virtual_service_for(q, client, host)
    if q(visible, alike(q, client, host), host) is None:
        return ServiceHost(host, port, (host,), virtual_service)
    first, *names = names_for(q, client, host)
    own = (
        name
        for name in dict.fromkeys(names)
        if name != first and q(find_host, asking(q, client, name), port, name) == host
    )
    return ServiceHost(host, port, (first, *own), virtual_service)


def find_host(q: Q, client: Client, port: int, name: str) -> str | None:
    """The host in the table of a port that a name means; None when nobody there answers to it."""
    if _in_table(q, client, name, port):
        return name
    for host in _candidates(q, client, name):
        if port in http_ports_of(q, client, host) and name in names_for(q, client, host):
            return host
    if is_wildcard(name):
        return None
    for pattern in wildcards_over(name):
        if (found := q(find_host, asking(q, client, pattern), port, pattern)) is not None:
            return found
    return None


def spare_wildcard(q: Q, client: Client, port: int, name: str) -> str | None:
    """The broadest wildcard over a name nobody has below which nobody has one; None for names without a domain of their
    own. One virtual host then answers to all that a workload calls there, be it thousands."""
    if is_address(name) or name.endswith((".", f".svc.{q(domain)}")):
        return None
    for pattern in [*wildcards_over(name)][-2::-1]:  # not `*`: all names are below it
        if not _broad(q, pattern) and not below(q, client, ServiceHost(name, port, (pattern,), None)):
            return pattern
    return None


def below(q: Q, client: Client, entry: ServiceHost) -> tuple[str, ...]:
    """The hosts of the table with a name that a wildcard of this one covers and that is not its own."""
    found: set[str] = set()
    for pattern in entry.domains:
        if not is_wildcard(pattern):
            continue
        if is_wildcard(entry.host) or pattern == ANY or _broad(q, pattern):
            found.update(
                each.host
                for each in q(sidecar_hosts, client, entry.port)
                if any(covers(pattern, name) for name in each.domains)
            )
            continue
        named = (*q(entry_hosts), *q(named_hosts))
        names = [each for each in named if covers(pattern, each) and _in_table(q, client, each, entry.port)]
        found.update(names)
        found.update(each for each in _short(q, pattern) if _in_table(q, client, each, entry.port))
    return tuple(sorted(found - {entry.host}))


def _in_table(q: Q, client: Client, host: str, port: int) -> bool:
    if port in http_ports_of(q, client, host):
        return True
    if virtual_service_for(q, client, host) is None or q(visible, alike(q, client, host), host) is not None:
        return False
    return port in q(alone_ports, client, host)


def _candidates(q: Q, client: Client, name: str) -> Iterator[str]:
    """The services that may be called by another name than their own, in the order in which they claim it."""
    inner = name.removeprefix("*.")  # a headless service's Pods
    cluster_domain = q(domain)
    labels = inner.split(".")
    if inner.endswith("."):
        yield inner[:-1]
    elif len(labels) == 1:
        yield service_host(inner, client.namespace, cluster_domain)
    elif len(labels) == 2 or (len(labels) == 3 and labels[2] == "svc"):
        yield service_host(labels[0], labels[1], cluster_domain)
    elif name != inner:
        yield inner
    yield from q(hosts_at, name.removeprefix("[").removesuffix("]"))


def _broad(q: Q, pattern: str) -> bool:
    """True for a pattern of a headless service that covers services of every namespace: it is called `svc`, `local`."""
    return pattern == "*.svc" or f".svc.{q(domain)}".endswith(pattern[1:])


def _short(q: Q, pattern: str) -> tuple[str, ...]:
    """The services that have a short name covered by a pattern `*.NAMESPACE` or `*.NAMESPACE.svc`."""
    suffix = pattern[2:].removesuffix(".svc")
    return q(services_in, suffix) if suffix and "." not in suffix else ()
