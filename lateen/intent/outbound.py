"""What a sidecar listens on for its application's outbound traffic, beside the catch-all on 15001.

HTTP of all services shares one listener per port (`0.0.0.0_80`), where the host name decides. A port whose protocol
has to be found out, and every TCP or TLS port, gets a listener of its own at the service's address
(`10.96.0.5_3306`), where the address decides; without an address it becomes a filter chain of the shared listener,
chosen by server name or address range. The table of listeners changes when services come, go or change ports; what
is inside a listener is found when it is asked for.

Where the Sidecar of a client says where an egress listener is (`bind`), or that nothing is captured for it, all its
services are there: requests are told apart by their host, TLS by its server name, and of other streams the first
service by name has the address for itself.

Source: https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec

from lateen.engine import Q
from lateen.intent import route_table
from lateen.intent.cluster import outbound_cluster
from lateen.intent.destination import cluster_name
from lateen.intent.policy import Policy
from lateen.intent.route import Destination
from lateen.intent.stream import StreamRoute, tcp_routes, tls_routes
from lateen.lib.ids import Ref
from lateen.model.endpoints import endpoints
from lateen.model.listing import parts, seen
from lateen.model.protocols import Protocol, parse_protocol
from lateen.model.services import MeshService, ServicePort, address_ranges, hosts_at
from lateen.model.sharing import alike, common
from lateen.model.virtual_services import leads_to, mesh_virtual_service, routes_streams, source_labels
from lateen.model.visibility import (
    Client,
    EgressListener,
    egress,
    listening,
    numbered_ports,
    visible,
)
from lateen.model.workloads import Labels

WILDCARD = "0.0.0.0"  # noqa: S104 (part of a listener's name)


class Http(enum.StrEnum):
    """Whether a listener reads requests."""

    NO = "no"
    SHARED = "shared"
    """By the table of the port."""
    OWN = "own"
    """By the table of one service; connections that aren't HTTP go to its cluster."""


class OutboundListener(msgspec.Struct, frozen=True):
    """One listener: `address` is `0.0.0.0`, a service's, or what a Sidecar says (with port 0 a `unix://PATH`); `route`
    the name of its table when it reads requests. `captures`: redirection brings connections to it."""

    name: str
    address: str
    port: int
    captures: bool = True
    http: Http = Http.NO
    route: str = ""
    streams: tuple[StreamRoute, ...] = ()
    origins: tuple[Ref, ...] = ()


def listener_names(q: Q, client: Client) -> tuple[str, ...]:
    """The names of the outbound listeners of a client, sorted."""
    return tuple(sorted(q(_table, common(q, client))))


def own_listener_names(q: Q, client: Client) -> tuple[str, ...]:
    """Those of them that a client needs which asks for the cluster behind an address: not the ones that do nothing
    but pass connections to one cluster."""
    client = common(q, client)
    table = q(_table, client)
    return tuple(sorted(name for name, services in table.items() if not _plain(q, client, table, name, services)))


def address_host(q: Q, client: Client, address: str, port: int) -> str | None:
    """The service whose listener at an address would do nothing but pass connections to its cluster."""
    for host in q(hosts_at, address):
        seen_by = alike(q, client, host)
        service = q(visible, seen_by, host)
        if service is not None and f"{address}_{port}" in {name for name, *_ in q(_listeners_of, seen_by, host)}:
            return host if q(passes_on, seen_by, host, port) else None
    return None


def passes_on(q: Q, client: Client, host: str, port: int) -> bool:
    """True for a TCP port at virtual addresses of the mesh's own, about which nobody says anything that a listener
    would have to do."""
    service = q(visible, client, host)
    declared = service.port(port) if service is not None else None
    if service is None or declared is None or not declared.protocol.is_tcp or service.headless:
        return False
    ranges = q(address_ranges)
    if not all(_range(each) in ranges for each in service.addresses):
        return False
    ref = q(mesh_virtual_service, client, host)
    if ref is not None and q(routes_streams, ref):
        return False
    cluster = q(outbound_cluster, client, cluster_name(host, port))
    return cluster is not None and cluster.policy.tunnel is None and not decides_for_streams(cluster.policy)


def decides_for_streams(policy: Policy) -> bool:
    """True when a policy has a word about connections that is no cluster's affair but a listener's."""
    tcp = policy.connection_pool.tcp if policy.connection_pool is not None else None
    hashed = policy.load_balancer.consistent_hash if policy.load_balancer is not None else None
    times = tcp is not None and (tcp.idle_timeout is not None or tcp.max_connection_duration is not None)
    return times or (hashed is not None and bool(hashed.use_source_ip))


def _plain(
    q: Q,
    client: Client,
    table: Mapping[str, tuple[tuple[str, int], ...]],
    name: str,
    services: tuple[tuple[str, int], ...],
) -> bool:
    address, _, number = name.rpartition("_")
    if address == WILDCARD or len(services) != 1 or f"{WILDCARD}_{number}" in table:
        return False
    ((host, port),) = services
    return bool(host) and q(passes_on, alike(q, client, host), host, port)


def _range(address: str) -> str:
    parts = address.split(".")
    return f"{parts[0]}.{parts[1]}.0.0/16" if len(parts) == 4 else address


def listener_labels(q: Q, client: Client, name: str, labels: Labels) -> Labels:
    """Those labels of a proxy that decide anything in a listener; mostly none."""
    asked: set[tuple[str, str]] = set()
    for host, _ in _services_of(q, common(q, client), name):
        if (ref := q(mesh_virtual_service, alike(q, client, host), host)) is not None:
            asked |= q(source_labels, ref)
    return tuple(each for each in labels if each in asked)


def outbound_listener(q: Q, client: Client, labels: Labels, name: str) -> OutboundListener | None:
    """A listener of a client by name; `labels` are those of `listener_labels`."""
    if name not in q(_table, client):
        return None
    address, _, number = name.rpartition("_")
    port = int(number)
    placed = q(_placed, client, name)
    streams: list[StreamRoute] = []
    http, route = Http.NO, ""
    origins: list[Ref] = []
    for host, service_port in q(_services_of, client, name):
        if not host:
            http, route = Http.SHARED, route_table.table_of(placed) if placed is not None and placed.whole else number
            continue
        seen_by = alike(q, client, host)
        service = q(visible, seen_by, host)
        declared = service.port(service_port) if service is not None else None
        if service is None or declared is None:
            continue
        origins.append(service.ref)
        if declared.protocol is Protocol.AUTO and http is Http.NO:
            http, route = Http.OWN, f"{host}:{port}"
        by_address = address != WILDCARD and placed is None
        streams += _streams(q, client, labels, service, declared, by_address=by_address)
    return OutboundListener(
        name,
        address,
        port,
        placed is None or placed.captures,
        http,
        route,
        tuple(distinct(streams)),
        tuple(dict.fromkeys(origins)),
    )


def _table(q: Q, client: Client) -> Mapping[str, tuple[tuple[str, int], ...]]:
    """Listener names with the services that need them; an empty host stands for the HTTP table of the port."""
    found: dict[str, dict[tuple[str, int], None]] = {}
    for by, part in parts(q, client):
        for name, services in q(_table_in, by, part).items():
            found.setdefault(name, {}).update(dict.fromkeys(services))
    ports = {int(name.rpartition("_")[2]) for name in found}
    for port in q(route_table.http_ports, client):
        if port not in ports:  # only a VirtualService's own host name is served there
            where = listening(q(egress, client), port)
            address = where.address if where is not None else ""
            found.setdefault(f"{address or WILDCARD}_{port}", {})["", port] = None
    return {name: tuple(sorted(services)) for name, services in found.items()}


def _table_in(q: Q, client: Client, part: str) -> Mapping[str, tuple[tuple[str, int], ...]]:
    """The listeners that the services of a part need."""
    found: dict[str, dict[tuple[str, int], None]] = {}
    for host in q(seen, client, part):
        for name, port, http in q(_listeners_of, alike(q, client, host), host):
            found.setdefault(name, {})["" if http else host, port] = None
    return {name: tuple(services) for name, services in found.items()}


def _placed(q: Q, client: Client, name: str) -> EgressListener | None:
    """The egress listener that says where a listener is; None for a listener at services' own addresses."""
    address, _, number = name.rpartition("_")
    found = [each for each in q(egress, client) if each.address == address]
    return next((e for e in found if e.port == int(number)), next((e for e in found if not e.port), None))


def _services_of(q: Q, client: Client, name: str) -> tuple[tuple[str, int], ...]:
    return q(_table, client).get(name, ())


def _listeners_of(q: Q, client: Client, host: str) -> tuple[tuple[str, int, bool], ...]:
    """The listeners a service needs: name, port of the service, and whether a table of several serves it."""
    service = q(visible, client, host)
    listeners = q(egress, client)
    found: list[tuple[str, int, bool]] = []
    for port in numbered_ports(q, client, host):
        if port.protocol is Protocol.UDP:
            continue
        if (where := listening(listeners, port.number)) is not None and where.address:
            found += _of_placed(where, port)
            continue
        addresses = [each for each in service.addresses if "/" not in each] if service is not None else []
        if port.protocol.is_http or (port.protocol is Protocol.AUTO and not addresses):
            found.append((f"{WILDCARD}_{port.number}", port.number, True))
            continue
        if service is not None and service.headless:
            addresses = [each.address for each in q(endpoints, service.ref, host, port.number)]
            found += [(f"{each}_{port.number}", port.number, False) for each in addresses]
            continue
        found += [(f"{each}_{port.number}", port.number, False) for each in addresses or [WILDCARD]]
    for where in listeners:
        if where.whole and service is not None and where.sees(service):
            found += _of_whole(where, service)
    return tuple(found)


def _of_placed(where: EgressListener, port: ServicePort) -> Iterable[tuple[str, int, bool]]:
    """What a port needs of a listener that a Sidecar places. When its protocol is to be found out it may be both."""
    name = f"{where.address}_{port.number}"
    if not port.protocol.is_tcp:
        yield name, port.number, True
    if not port.protocol.is_http:
        yield name, port.number, False


def _of_whole(where: EgressListener, service: MeshService) -> Iterable[tuple[str, int, bool]]:
    """What a service needs of a Unix socket or a forward proxy."""
    streams = parse_protocol(where.protocol).is_tcp
    for port in service.ports:
        if port.protocol is not Protocol.UDP and (streams or not port.protocol.is_tcp):
            yield f"{where.address}_{where.port}", port.number, not streams


def _streams(
    q: Q, client: Client, labels: Labels, service: MeshService, port: ServicePort, *, by_address: bool
) -> Iterable[StreamRoute]:
    """The streams of a service port: those of its VirtualService, then the service itself."""
    host, number = service.host, port.number
    ranges = () if by_address else tuple(each for each in service.addresses if "/" in each)
    ref = q(mesh_virtual_service, alike(q, client, host), host)
    by = alike(q, client, host, *q(leads_to, ref)) if ref is not None else client
    by_name = q(tls_routes, by, labels, host, number)
    for each in (*by_name, *q(tcp_routes, by, labels, host, number)):
        names = tuple(name for name in each.server_names if name != "*")
        yield msgspec.structs.replace(each, server_names=names, subnets=each.subnets or ranges)
    if by_name:  # which server names go where has been said: others have no way to the service
        return
    names = (host,) if port.protocol.is_tls and not by_address and not ranges and host != "*" else ()
    yield StreamRoute((Destination(cluster_name(host, number), host, number),), service.ref, names, ranges)


def distinct(streams: Iterable[StreamRoute]) -> Iterable[StreamRoute]:
    """The streams without what an earlier one took: Envoy refuses two filter chains for one match."""
    taken: set[tuple[str, str, str]] = set()
    for each in streams:
        ranges = [(place, source) for place in each.subnets or ("",) for source in each.sources or ("",)]
        names = tuple(
            name for name in each.server_names or ("",) if not any((name, *place) in taken for place in ranges)
        )
        if names:
            taken.update((name, *place) for name in names for place in ranges)
            yield msgspec.structs.replace(each, server_names=tuple(name for name in names if name))
