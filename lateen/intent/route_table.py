"""Which virtual hosts a route table has, under which names they answer, and which VirtualServices decide them.

A sidecar has one table for each HTTP port of the services it sees: one virtual host a service, answering to every
name a client of its namespace may use (full, short, by address), and one for each name that only a VirtualService
knows. A gateway's table has one virtual host for each name that both a server and a VirtualService of the gateway
cover. Names that another TLS server of the port has are `misdirected` there: a client that uses one connection for
several hosts is told to ask again on another. No name is in a table twice: a full name belongs to its own host, a
short one to the first that claims it.

Where a Sidecar has a Unix socket or a forward proxy, its table has all ports of the services it gives: the request
names the port (`reviews:9080`), and a name alone is for the first.

Routes are not here: a table changes when a host comes, goes or is renamed, never when a rule changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from lateen.api.istio.sidecar import Sidecar
from lateen.api.objects import get
from lateen.engine import Q
from lateen.intent.destination import BLACK_HOLE, BY_NAME, PASSTHROUGH, destination
from lateen.lib.ids import Ref
from lateen.model.gateways import ANY, GatewayServer, gateway_servers
from lateen.model.hosts import covers, is_wildcard, most_specific, parse_service_host, resolve
from lateen.model.listing import parts, seen, visible_services
from lateen.model.mesh import domain, outbound_policy
from lateen.model.protocols import Protocol
from lateen.model.services import ServicePort
from lateen.model.sharing import alike, common
from lateen.model.virtual_services import (
    Binding,
    Order,
    gateway_virtual_services,
    hosts_of,
    mesh_hosts,
    mesh_virtual_service,
    source_labels,
)
from lateen.model.visibility import (
    Client,
    EgressListener,
    egress,
    listening,
    numbered_ports,
    visible,
)
from lateen.model.workloads import Labels

HTTP_PORT = 80
"""Where a name answers that no service has."""


class ServiceHost(msgspec.Struct, frozen=True, cache_hash=True):
    """A virtual host for sidecars: a service, or a name of the VirtualService alone."""

    host: str
    port: int
    domains: tuple[str, ...]
    virtual_service: Ref | None = None

    @property
    def name(self) -> str:
        """The name of the virtual host."""
        return f"{self.host}:{self.port}"


class GatewayBinding(msgspec.Struct, frozen=True, cache_hash=True):
    """A VirtualService on a virtual host of a gateway: `gateway` is how it names it, `number` the server's port."""

    gateway: str
    number: int
    virtual_service: Ref


class GatewayHost(msgspec.Struct, frozen=True, cache_hash=True):
    """A virtual host of a gateway. Without bindings it only redirects to HTTPS, or finds nothing."""

    host: str
    number: int
    bindings: tuple[GatewayBinding, ...] = ()
    gateways: tuple[Ref, ...] = ()
    https_only: bool = False

    @property
    def name(self) -> str:
        """The name of the virtual host."""
        return f"{self.host}:{self.number}"


# -- sidecars ----------------------------------------------------------------------------------------------


def http_ports(q: Q, client: Client) -> tuple[int, ...]:
    """The ports on which a client sees HTTP, sorted."""
    client = common(q, client)
    return tuple(sorted({*q(_services_by_port, client), *q(_names_by_port, client)}))


def sidecar_hosts(q: Q, client: Client, port: int) -> tuple[ServiceHost, ...]:
    """The virtual hosts of the table of a port, by host."""
    services = q(_hosts_on_port, common(q, client), port)
    names = q(_names_on_port, common(q, client), port)
    taken = {*services, *names}
    found = [
        ServiceHost(host, port, _claim(taken, names_for(q, client, host)), virtual_service_for(q, client, host))
        for host in services
    ]
    found += [ServiceHost(host, port, (host,), virtual_service_for(q, client, host)) for host in names]
    return tuple(found)


def service_host(q: Q, client: Client, host: str, port: int) -> ServiceHost | None:
    """The only virtual host of a listener that is one service's alone: whatever name was asked for, the address
    has decided. None when the client doesn't see that port."""
    found = q(visible, alike(q, client, host), host)
    if found is None or found.port(port) is None:
        return None
    return ServiceHost(host, port, (ANY,), virtual_service_for(q, client, host))


def virtual_service_for(q: Q, client: Client, host: str) -> Ref | None:
    """The VirtualService that counts for a client and a host."""
    return q(mesh_virtual_service, alike(q, client, host), host)


def names_for(q: Q, client: Client, host: str) -> tuple[str, ...]:
    """The names by which a client may ask for a service; those of the same namespace have one more."""
    parts = parse_service_host(host, q(domain))
    at_home = parts is not None and parts[1] == client.namespace
    return q(service_names, client if at_home else alike(q, client, host), host)


def service_names(q: Q, client: Client, host: str) -> tuple[str, ...]:
    """Every name by which clients of a namespace may ask for a service, the full one first."""
    found = q(visible, alike(q, client, host), host)
    names = [host]
    if (parts := parse_service_host(host, q(domain))) is not None:
        name, namespace = parts
        names += [f"{host}.", f"{name}.{namespace}.svc", f"{name}.{namespace}"]
        if namespace == client.namespace:
            names.append(name)
    if found is not None and found.headless:  # its Pods have names of their own below it
        names += [f"*.{each}" for each in names if not each.endswith(".")]
    if found is not None:
        names += [f"[{each}]" if ":" in each else each for each in found.addresses if "/" not in each]
    return tuple(names)


def http_ports_of(q: Q, client: Client, host: str) -> tuple[int, ...]:
    """The ports of a service on which a client may speak HTTP to it."""
    return _http(numbered_ports(q, alike(q, client, host), host))


def alone_ports(q: Q, client: Client, host: str) -> tuple[int, ...]:
    """The ports on which a name answers that no service has but a VirtualService for sidecars: the HTTP ports of the
    services named beside it, else port 80."""
    ref = virtual_service_for(q, client, host)
    if ref is None or host not in (names := q(hosts_of, ref)) or q(_names_a_service, client, host):
        return ()
    return tuple(sorted({port for other in names for port in http_ports_of(q, client, other)})) or (HTTP_PORT,)


def whole_tables(q: Q, client: Client) -> tuple[str, ...]:
    """The names of the tables of a client's Unix sockets and forward proxies."""
    return tuple(table_of(each) for each in q(egress, client) if each.whole)


def table_of(listener: EgressListener) -> str:
    """The name of the table of an egress listener: its port, for a Unix socket or a forward proxy where it is."""
    if listener.socket:
        return listener.bind
    return f"{listener.address}:{listener.port}" if listener.whole else str(listener.port)


def whole_hosts(q: Q, client: Client, table: str) -> tuple[ServiceHost, ...]:
    """The virtual hosts of the table of a Unix socket or a forward proxy, by host and port."""
    listener = next(each for each in q(egress, client) if each.whole and table_of(each) == table)
    taken: set[str] = set()
    found: list[ServiceHost] = []
    for host in q(visible_services, client):
        service = q(visible, alike(q, client, host), host)
        for port in _http(service.ports) if service is not None and listener.sees(service) else ():
            names = names_for(q, client, host)
            free = [each for each in (*names, *(f"{name}:{port}" for name in names)) if each not in taken]
            taken.update(free)
            found.append(ServiceHost(host, port, tuple(free), virtual_service_for(q, client, host)))
    names = [each for each in q(mesh_hosts, client) if each not in taken and not q(_names_a_service, client, each)]
    found += [ServiceHost(host, HTTP_PORT, (host,), virtual_service_for(q, client, host)) for host in names]
    return tuple(found)


def locked(q: Q, client: Client) -> bool:
    """True when a client may call known hosts only: what nobody knows goes nowhere, or to a proxy that is named."""
    return q(unknown_cluster, client) != PASSTHROUGH


def unknown_cluster(q: Q, client: Client) -> str:
    """The cluster of traffic that nobody knows: the egress proxy of the client's Sidecar, PASSTHROUGH or BLACK_HOLE.
    The Sidecar decides it, or without a word from it the mesh."""
    sidecar = get(q, Sidecar, client.sidecar.namespace, client.sidecar.name) if client.sidecar is not None else None
    policy = sidecar.spec.outbound_traffic_policy if sidecar is not None else None
    if sidecar is None or policy is None:
        return PASSTHROUGH if q(outbound_policy).allow_any else BLACK_HOLE
    if policy.mode != "ALLOW_ANY":
        return BLACK_HOLE
    if (proxy := policy.egress_proxy) is None:
        return PASSTHROUGH
    named = msgspec.structs.replace(proxy, host=resolve(proxy.host, sidecar.namespace, q(domain)))
    return destination(q, client, named, HTTP_PORT).cluster


def unknown_requests(q: Q, client: Client, port: int) -> str:
    """The cluster of requests to hosts that nobody knows: BY_NAME where the mesh looks them up."""
    cluster = q(unknown_on_port, client, port)
    return BY_NAME if cluster == PASSTHROUGH and q(goes_by_name, client) else cluster


def goes_by_name(q: Q, client: Client) -> bool:
    """True when requests of a client to hosts that nobody knows are looked up by name: a Sidecar has no such word."""
    sidecar = get(q, Sidecar, client.sidecar.namespace, client.sidecar.name) if client.sidecar is not None else None
    own = sidecar is not None and sidecar.spec.outbound_traffic_policy is not None
    return not own and not client.router and q(outbound_policy).by_name


def unknown_on_port(q: Q, client: Client, port: int) -> str:
    """The same for what comes to one port. Where the proxy itself was called, there is nothing to pass on to: it would
    call itself."""
    found = listening(q(egress, client), port)
    cluster = q(unknown_cluster, client)
    return BLACK_HOLE if found is not None and not found.captures and cluster == PASSTHROUGH else cluster


def read_labels(q: Q, client: Client, port: int) -> frozenset[tuple[str, str]]:
    """The labels that decide anything in the table of a port when a proxy has them; mostly none, so that proxies of a
    namespace share it."""
    refs = dict.fromkeys(each.virtual_service for each in q(sidecar_hosts, client, port))
    return frozenset(label for ref in refs if ref is not None for label in q(source_labels, ref))


def _claim(taken: set[str], names: tuple[str, ...]) -> tuple[str, ...]:
    """The names nobody has yet, which are taken now; the first is the host's own."""
    free = [name for name in names[1:] if name not in taken]
    taken.update(free)
    return (names[0], *dict.fromkeys(free))


def _hosts_on_port(q: Q, client: Client, port: int) -> tuple[str, ...]:
    return q(_services_by_port, client).get(port, ())


def _services_by_port(q: Q, client: Client) -> Mapping[int, tuple[str, ...]]:
    found: dict[int, set[str]] = {}
    for by, part in parts(q, client):
        for number, hosts in q(_ports_in, by, part).items():
            found.setdefault(number, set()).update(hosts)
    return {number: tuple(sorted(hosts)) for number, hosts in found.items()}


def _ports_in(q: Q, client: Client, part: str) -> Mapping[int, tuple[str, ...]]:
    found: dict[int, list[str]] = {}
    for host in q(seen, client, part):
        for number in http_ports_of(q, client, host):
            found.setdefault(number, []).append(host)
    return {number: tuple(hosts) for number, hosts in found.items()}


def _http(ports: Iterable[ServicePort]) -> tuple[int, ...]:
    return tuple(each.number for each in ports if each.protocol.is_http or each.protocol is Protocol.AUTO)


def _names_on_port(q: Q, client: Client, port: int) -> tuple[str, ...]:
    return q(_names_by_port, client).get(port, ())


def _names_by_port(q: Q, client: Client) -> Mapping[int, tuple[str, ...]]:
    found: dict[int, list[str]] = {}
    for host in q(mesh_hosts, client):
        for port in q(alone_ports, client, host):
            found.setdefault(port, []).append(host)
    return {port: tuple(hosts) for port, hosts in found.items()}


def _names_a_service(q: Q, client: Client, host: str) -> bool:
    """True for the host of a service, and for a wildcard that covers one."""
    if is_wildcard(host):
        return any(covers(host, each) for each in q(visible_services, client))
    return q(visible, alike(q, client, host), host) is not None


# -- gateways ----------------------------------------------------------------------------------------------


def gateway_routes(q: Q, namespace: str, labels: Labels) -> tuple[str, ...]:
    """The names of the route tables of routers with those labels, sorted."""
    return tuple(sorted({each.route for each in q(gateway_servers, namespace, labels) if each.route}))


def gateway_table(q: Q, namespace: str, labels: Labels, route: str) -> tuple[GatewayServer, ...]:
    """The servers that share a route table; empty when there is no such table."""
    return tuple(each for each in q(gateway_servers, namespace, labels) if each.route == route)


def gateway_hosts(q: Q, namespace: str, servers: tuple[GatewayServer, ...]) -> tuple[GatewayHost, ...]:
    """The virtual hosts of the table those servers share, by host. A name that a server has and no VirtualService
    is there, without bindings, where it would be taken for another server's."""
    found: dict[str, dict[GatewayBinding, Order]] = {}
    for server in servers:
        for each in q(gateway_virtual_services, namespace, server.name):
            binding = GatewayBinding(server.name, server.number, each.ref)
            for host in shared_hosts(server, each):
                found.setdefault(host, {}).setdefault(binding, each.order)
        for host in server.sni:
            if server.https_redirect or any(covers(other, host) for other in server.elsewhere):
                found.setdefault(host, {})
    return tuple(_gateway_host(host, found[host], servers) for host in sorted(found))


def misdirected(servers: tuple[GatewayServer, ...]) -> tuple[str, ...]:
    """The names in the table of those servers that belong to other servers of the port, sorted."""
    own = {host for server in servers for host in server.sni}
    others = sorted({host for server in servers for host in server.elsewhere} - own)
    wide = [each for each in others if is_wildcard(each)]
    return tuple(each for each in others if not _told_by(each, wide, own))


def _told_by(host: str, wide: list[str], own: set[str]) -> bool:
    """True when a wildcard of other servers says the same, and no own name stands between them."""
    return any(
        other != host and covers(other, host) and not any(covers(other, each) and covers(each, host) for each in own)
        for other in wide
    )


def shared_hosts(server: GatewayServer, binding: Binding) -> tuple[str, ...]:
    """The names that both a server and a VirtualService cover and no other server has: of each pair that overlaps
    the narrower one."""
    patterns = [host for namespace, host in server.hosts if namespace in (ANY, binding.ref.namespace)]
    return tuple(dict.fromkeys(each for each in _narrower(patterns, binding.hosts) if server.has(each)))


def _narrower(patterns: list[str], hosts: tuple[str, ...]) -> Iterable[str]:
    for host in hosts:
        for pattern in patterns:
            if covers(pattern, host):
                yield host
            elif is_wildcard(host) and covers(host, pattern):
                yield pattern


def _gateway_host(
    host: str, bindings: Mapping[GatewayBinding, Order], servers: tuple[GatewayServer, ...]
) -> GatewayHost:
    """The server that names the host most closely says whether it is for HTTPS only; of equals one that does."""
    naming = [(pattern, each) for each in servers if (pattern := most_specific(host, each.sni)) is not None]
    closest = most_specific(host, (pattern for pattern, _ in naming))
    return GatewayHost(
        host,
        naming[0][1].number,
        tuple(sorted(bindings, key=bindings.__getitem__)),
        tuple(dict.fromkeys(each.gateway for _, each in naming)),
        any(each.https_redirect for pattern, each in naming if pattern == closest),
    )
