"""Route tables (RDS): `80` and `host:80` for sidecars, `http.80` and `https.443.name.gateway.namespace` for routers.

Each virtual host is a query of its own that returns encoded bytes; a table is those bytes joined, so a changed
rule encodes one virtual host again and copies the rest. Requests for names nobody knows go on to where they were
sent (`allow_any`) or end in 502 (`block_all`): one virtual host `*`, the last and the only one that is not a
service's, so it can be left out where virtual hosts come on demand.
"""

from __future__ import annotations

import msgspec
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.config.route.v3 import route_pb2 as pb

from lateen.engine import Q
from lateen.envoy.resource import Resource, resource
from lateen.envoy.security_filters import SECURITY_FILTERS
from lateen.envoy.sources import set_ads
from lateen.envoy.virtual_host import encoded_routes, encoded_virtual_host, field
from lateen.features.compile import gateway_routes, service_routes
from lateen.features.dynamic_host import name_its_host
from lateen.features.encoding import pack, set_seconds
from lateen.intent import route_table
from lateen.intent.destination import BLACK_HOLE, BY_NAME
from lateen.intent.route_table import ANY, GatewayHost, ServiceHost
from lateen.intent.scope import Scope
from lateen.lib.ids import Ref
from lateen.model.gateways import GatewayServer
from lateen.model.sharing import alike
from lateen.model.virtual_services import MESH, leads_to, reader
from lateen.model.visibility import Client, client_of
from lateen.model.workloads import Labels

MAX_DIRECT_RESPONSE_BYTES = 1 << 20
EMPTY_AFTER_NS = 50_000_000
"""How long a proxy waits for the virtual hosts of an empty table before it uses it: nobody sends any unasked."""
ALLOW_ANY = "allow_any"
BLOCK_ALL = "block_all"
BLACKHOLE = "blackhole"
MISDIRECTED = "misdirected"
_VIRTUAL_HOSTS = 2
"""The number of the field `RouteConfiguration.virtual_hosts`."""


class Fragment(msgspec.Struct, frozen=True):
    """An encoded `virtual_hosts` field of a RouteConfiguration with its tag and length, the objects it was made from,
    and the clusters it sends to."""

    body: bytes
    origins: tuple[Ref, ...] = ()
    clusters: tuple[str, ...] = ()


def route_names(q: Q, scope: Scope) -> tuple[str, ...]:
    """The tables of a proxy that share a listener among services or gateways; those of one service alone come with
    their listener."""
    if scope.router:
        return q(route_table.gateway_routes, scope.namespace, scope.labels)
    client = q(client_of, scope.namespace, scope.labels, scope.router)
    return (*(str(port) for port in q(route_table.http_ports, client)), *q(route_table.whole_tables, client))


def route_configuration(q: Q, scope: Scope, name: str) -> Resource | None:
    """A table by its name, or None when the proxy has none of that name."""
    client = q(client_of, scope.namespace, scope.labels, scope.router)
    if scope.router:
        servers = q(route_table.gateway_table, scope.namespace, scope.labels, name)
        return q(gateway_configuration, client, name, servers) if servers else None
    if name in q(route_table.whole_tables, client):
        return q(whole_configuration, client, scope.labels, name)
    host, _, number = name.rpartition(":")
    if not number.isdecimal():
        return None
    port = int(number)
    if host:
        return q(service_configuration, client, scope.labels, host, port)
    if port not in q(route_table.http_ports, client):
        return None
    if scope.on_demand:
        return q(empty_table, name)
    asked = q(route_table.read_labels, client, port)
    return q(port_configuration, client, tuple(each for each in scope.labels if each in asked), port)


# -- tables ------------------------------------------------------------------------------------------------


def port_configuration(q: Q, client: Client, labels: Labels, port: int) -> Resource:
    """The table of a port for sidecars of a client, of whose labels only `labels` count."""
    hosts = q(route_table.sidecar_hosts, client, port)
    fragments = [q(sidecar_fragment, *routed_for(q, client, labels, each), each) for each in hosts]
    if not any(ANY in each.domains and made.body for each, made in zip(hosts, fragments, strict=True)):
        fragments.append(q(unknown_fragment, q(route_table.unknown_requests, client, port)))
    return _joined(str(port), fragments)


def whole_configuration(q: Q, client: Client, labels: Labels, name: str) -> Resource:
    """The table of a Unix socket or a forward proxy, where names come with ports. Other names end there: nobody knows
    where else the client wanted to go."""
    hosts = q(route_table.whole_hosts, client, name)
    fragments = [q(sidecar_fragment, *routed_for(q, client, labels, each), each) for each in hosts]
    fragments.append(q(unknown_fragment, BLACK_HOLE))
    return _joined(name, fragments, ports=True)


def service_configuration(q: Q, client: Client, labels: Labels, host: str, port: int) -> Resource | None:
    """The table of a listener that is one service's alone."""
    entry = q(route_table.service_host, client, host, port)
    if entry is None:
        return None
    return _joined(entry.name, [q(sidecar_fragment, *routed_for(q, client, labels, entry), entry)])


def gateway_configuration(q: Q, client: Client, name: str, servers: tuple[GatewayServer, ...]) -> Resource:
    """The table that some servers of a router share. Where no VirtualService is bound to them it finds nothing."""
    hosts = q(route_table.gateway_hosts, client.namespace, servers)
    fragments = [q(gateway_fragment, client, each) for each in hosts]
    if names := route_table.misdirected(servers):
        fragments.append(q(misdirected_fragment, servers[0].number, names))
    if not fragments:
        refs = tuple(dict.fromkeys(each.gateway for each in servers))
        body = encoded_virtual_host(f"{BLACKHOLE}:{servers[0].number}", (ANY,), b"")
        fragments = [_fragment(body, refs)]
    http3 = next((each.number for each in servers if each.quic_port), 0)
    return _joined(name, fragments, f'h3=":{http3}"; ma=86400' if http3 else "")


def inbound_configuration(name: str, operation: str) -> pb.RouteConfiguration:
    """The table inside an inbound listener: every request goes to the cluster of that name.

    A request that never reached the application (its connection was closed meanwhile) is tried again.
    """
    message = pb.RouteConfiguration()
    message.name = name
    message.validate_clusters.value = False
    host = message.virtual_hosts.add()
    host.name = "inbound|http|" + name.split("|")[1]
    host.domains.append(ANY)
    route = host.routes.add()
    route.name = "default"
    route.match.prefix = "/"
    route.route.cluster = name
    _no_time_limit(route)
    route.route.retry_policy.retry_on = "reset-before-request"
    route.route.retry_policy.num_retries.value = 2
    route.decorator.operation = operation
    return message


def empty_table(_q: Q, name: str) -> Resource:
    """The table of a port for proxies that ask for its virtual hosts one by one."""
    table = _settings()
    table.name = name
    set_ads(table.vhds.config_source)
    table.vhds.config_source.initial_fetch_timeout.nanos = EMPTY_AFTER_NS
    return resource(name, table.SerializeToString())


def _settings(*, ports: bool = False) -> pb.RouteConfiguration:
    table = pb.RouteConfiguration()
    table.validate_clusters.value = False
    table.max_direct_response_body_size_bytes.value = MAX_DIRECT_RESPONSE_BYTES
    table.ignore_port_in_host_matching = not ports
    return table


def _joined(name: str, fragments: list[Fragment], alternative: str = "", *, ports: bool = False) -> Resource:
    """A table; `alternative` tells clients where else the same is offered (RFC 7838). `ports`: the domains of its
    virtual hosts have ports, which count."""
    head = pb.RouteConfiguration()
    head.name = name
    tail = _settings(ports=ports)
    if alternative:
        header = tail.response_headers_to_add.add()
        header.header.key = "alt-svc"
        header.header.value = alternative
    parts = [head.SerializeToString(), *(each.body for each in fragments), tail.SerializeToString()]
    origins = dict.fromkeys(ref for each in fragments for ref in each.origins)
    clusters = dict.fromkeys(cluster for each in fragments for cluster in each.clusters)
    return resource(name, b"".join(parts), tuple(origins), tuple(clusters))


# -- virtual hosts -----------------------------------------------------------------------------------------


def sidecar_fragment(q: Q, client: Client, labels: Labels, entry: ServiceHost) -> Fragment:
    """A virtual host of a service, encoded; empty for a name that has no routes. `client` and `labels` are those of
    `routed_for`."""
    encoded = q(sidecar_routes, client, labels, entry.host, entry.port, entry.virtual_service)
    if not encoded.body:
        return encoded
    body = encoded_virtual_host(entry.name, entry.domains, encoded.body)
    return _fragment(body, encoded.origins, encoded.clusters)


def routed_for(q: Q, client: Client, labels: Labels, entry: ServiceHost) -> tuple[Client, Labels]:
    """The client and the labels that decide the routes of a virtual host: as little of a proxy as counts."""
    ref = entry.virtual_service
    if ref is None:
        return alike(q, client, entry.host), ()
    by = alike(q, client, entry.host, *q(leads_to, ref))
    return by, q(reader, ref, MESH, client.namespace, labels).labels


def sidecar_routes(q: Q, client: Client, labels: Labels, host: str, port: int, ref: Ref | None) -> Fragment:
    """What a virtual host of a service has beside its names, encoded without tag and length."""
    routes = q(service_routes, client, host, port, ref, labels)
    return Fragment(encoded_routes(routes) if routes.routes else b"", routes.origins, routes.clusters)


def gateway_fragment(q: Q, client: Client, entry: GatewayHost) -> Fragment:
    """A virtual host of a gateway, encoded."""
    routes = q(gateway_routes, client, entry)
    return _fragment(encoded_virtual_host(entry.name, (entry.host,), encoded_routes(routes)), routes.origins)


def misdirected_fragment(_: Q, number: int, names: tuple[str, ...]) -> Fragment:
    """The virtual host of the names that other servers of the port have: 421, before any policy is asked, so that
    the client asks again on a connection to the right server (RFC 9110, 15.5.20)."""
    host = components.VirtualHost()
    host.name = f"{MISDIRECTED}:{number}"
    host.domains.extend(names)
    route = host.routes.add()
    route.name = MISDIRECTED
    route.match.prefix = "/"
    route.direct_response.status = 421
    for each in SECURITY_FILTERS:
        skipped = components.FilterConfig()
        skipped.disabled = True
        pack(host.typed_per_filter_config[each], skipped)
    return _fragment(host.SerializeToString(deterministic=True))


def unknown_fragment(q: Q, cluster: str) -> Fragment:
    """The virtual host for names nobody knows: on to a cluster (where the request was sent), or 502."""
    name = BLOCK_ALL if cluster == BLACK_HOLE else ALLOW_ANY
    return _fragment(encoded_virtual_host(name, (ANY,), q(unknown_routes, cluster)))


def unknown_routes(_: Q, cluster: str) -> bytes:
    """What a virtual host for names nobody knows has beside its names, encoded."""
    host = components.VirtualHost()
    route = host.routes.add()
    route.match.prefix = "/"
    if cluster != BLACK_HOLE:
        route.name = ALLOW_ANY
        route.route.cluster = cluster
        _no_time_limit(route)
        if cluster == BY_NAME:
            name_its_host(route, "%DOWNSTREAM_LOCAL_PORT%")
    else:
        route.name = BLOCK_ALL
        route.direct_response.status = 502
    host.include_request_attempt_count = True
    return host.SerializeToString()


def _no_time_limit(route: components.Route) -> None:
    set_seconds(route.route.timeout, 0)
    set_seconds(route.route.max_stream_duration.grpc_timeout_header_max, 0)


def _fragment(body: bytes, origins: tuple[Ref, ...] = (), clusters: tuple[str, ...] = ()) -> Fragment:
    return Fragment(field(_VIRTUAL_HOSTS, body), origins, clusters)
