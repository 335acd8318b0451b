"""Gateways: which of them configure a router, and what their servers have of each of its ports.

A Gateway applies to every router whose labels its selector picks, in any namespace. A server's port is a port of a
Service in front of the router (80), or a port of the router itself (8080); both lead to the listener on the port
the router listens on. Where that Service has the same port for UDP, HTTPS is offered by HTTP/3 besides.

Servers of several Gateways on one port and address share it by these rules; first means the older Gateway, then the
first by name and namespace, then the order inside of a Gateway:

- A port carries plain HTTP, TLS, or plain bytes. What the first server carries counts; others are left out.
- Plain HTTP servers share one route table. Servers of plain bytes do not share: the first has the port.
- A TLS server has the connections whose server name one of its hosts matches best. Of servers with the very same
  host the first has it. Where the other has the same TLS settings its VirtualServices join in (`guest`).

Source: https://istio.io/latest/docs/reference/config/networking/gateway/
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from lateen.api.istio.gateway import Gateway, Server, ServerTLSSettings
from lateen.api.objects import everywhere, get, selects
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.hosts import covers, is_wildcard, most_specific
from lateen.model.protocols import Protocol, parse_protocol
from lateen.model.services import ServicePort, selected_by, service
from lateen.model.workloads import Labels, pod_workload, selected_pods

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 (gateways listen to everybody)
ANY = "*"
MOST_ELSEWHERE = 256
"""How many names of other servers a route table lists. Beyond that it says 421 to every name it does not have."""


class ServerKind(enum.StrEnum):
    """How a server treats a connection."""

    HTTP = "http"
    """Requests in the clear."""
    HTTPS = "https"
    """TLS ends here, requests inside."""
    TLS = "tls"
    """TLS ends here, bytes inside."""
    PASSTHROUGH = "passthrough"
    """TLS goes through; the server name chooses by the rules of VirtualServices."""
    AUTO_PASSTHROUGH = "auto passthrough"
    """TLS goes through; the server name says the service, port and subset itself."""
    TCP = "tcp"

    @property
    def by_name(self) -> bool:
        """True for TLS: the server name of a handshake says which server has the connection."""
        return self not in (ServerKind.HTTP, ServerKind.TCP)


class GatewayServer(msgspec.Struct, frozen=True, kw_only=True):
    """One server of one Gateway on one port of a router.

    `port` is where the router listens, `number` what the Gateway says; `hosts` are (namespace or `*`, host
    pattern); `route` is the name of the route table for HTTP and HTTPS. `elsewhere` are the host patterns that other
    TLS servers have on the port. `title` is what the server and its counters are called. `quic_port` is where HTTP/3
    is asked for, 0 for nowhere. A `guest` has no connections of its own: its hosts are in the table of a server with
    the same TLS settings.
    """

    gateway: Ref
    index: int
    port: int
    number: int
    kind: ServerKind
    protocol: Protocol
    hosts: tuple[tuple[str, str], ...]
    route: str = ""
    bind: str = ""
    port_name: str = ""
    title: str = ""
    tls: ServerTLSSettings | None = None
    https_redirect: bool = False
    elsewhere: tuple[str, ...] = ()
    quic_port: int = 0
    guest: bool = False

    @property
    def namespace(self) -> str:
        """The Gateway's namespace."""
        return self.gateway.namespace

    @property
    def name(self) -> str:
        """The Gateway as VirtualServices name it: `namespace/name`."""
        return f"{self.gateway.namespace}/{self.gateway.name}"

    @property
    def sni(self) -> tuple[str, ...]:
        """The host patterns without their namespaces."""
        return tuple(dict.fromkeys(host for _, host in self.hosts))

    @property
    def listener(self) -> str:
        """The name of its listener: `address_port`, or the address of a socket."""
        return self.bind if self.bind.startswith(UNIX) else f"{self.bind or ANY_ADDRESS}_{self.port}"

    @property
    def own_names(self) -> tuple[str, ...]:
        """The server names of its filter chain; empty for any."""
        return () if ANY in self.sni else self.sni

    def has(self, host: str) -> bool:
        """True when no other server of the port matches a host better."""
        mine, theirs = most_specific(host, self.sni), most_specific(host, self.elsewhere)
        return mine is not None and (theirs is None or theirs == mine or not covers(mine, theirs))


class Conflict(msgspec.Struct, frozen=True):
    """What a server of a Gateway does not get: a host, or everything (no host). `winner` has it."""

    gateway: Ref
    index: int
    host: str
    winner: Ref
    winner_index: int
    port: int


class Plan(msgspec.Struct, frozen=True):
    """The servers of a router and what others wanted in vain."""

    servers: tuple[GatewayServer, ...] = ()
    conflicts: tuple[Conflict, ...] = ()


UNIX = "unix://"


def gateway_servers(q: Q, namespace: str, labels: Labels) -> tuple[GatewayServer, ...]:
    """The servers of the Gateways that pick routers with those labels, as far as they have anything of their port,
    the oldest Gateway first."""
    return q(gateway_plan, namespace, labels).servers


def gateway_plan(q: Q, namespace: str, labels: Labels) -> Plan:
    """The servers of the Gateways that pick routers with those labels, with their conflicts settled."""
    places: dict[str, list[GatewayServer]] = {}
    for ref in q(gateways_for, namespace, labels):
        for each in q(_servers_of, ref.namespace, ref.name):
            quic_port = q(udp_port, namespace, labels, each.number) if _http3(each) else 0
            for port in q(router_ports, namespace, labels, each.number):
                route = f"http.{port}" if each.kind is ServerKind.HTTP else each.route
                suffix = f".{each.bind}" if each.bind and route else ""
                placed = msgspec.structs.replace(each, port=port, route=route + suffix, quic_port=quic_port)
                places.setdefault(placed.listener, []).append(placed)
    servers: list[GatewayServer] = []
    conflicts: list[Conflict] = []
    for wanted in places.values():
        taken = list(_of_one_traffic(wanted, conflicts))
        servers += _by_name(taken, conflicts) if taken[0].kind.by_name else taken
    return Plan(tuple(servers), tuple(conflicts))


def _of_one_traffic(wanted: list[GatewayServer], conflicts: list[Conflict]) -> Iterator[GatewayServer]:
    """Those that carry the same kind of traffic as the first; of plain bytes only the first."""
    first = wanted[0]
    yield first
    for each in wanted[1:]:
        same = each.kind.by_name == first.kind.by_name and (each.kind.by_name or each.kind is first.kind)
        if same and each.kind is not ServerKind.TCP:
            yield each
        else:
            conflicts.append(_conflict(each, "", first))


def _by_name(servers: list[GatewayServer], conflicts: list[Conflict]) -> Iterator[GatewayServer]:
    """Gives each host to one server, and says to each what others have."""
    owners: dict[str, GatewayServer] = {}
    parts: list[GatewayServer] = []
    for each in servers:
        hosts = [pair for pair in each.hosts if _own(owners.setdefault(pair[1], each), each)]
        parts += [msgspec.structs.replace(each, hosts=tuple(hosts))] if hosts else []
        guests: dict[str, list[tuple[str, str]]] = {}
        for pair in each.hosts:
            owner = owners[pair[1]]
            if not _own(owner, each) and owner.kind is each.kind is ServerKind.HTTPS and owner.tls == each.tls:
                guests.setdefault(owner.route, []).append(pair)
            elif not _own(owner, each):
                conflicts.append(_conflict(each, pair[1], owner))
        for route, pairs in guests.items():
            parts.append(msgspec.structs.replace(each, hosts=tuple(pairs), route=route, guest=True))
    patterns = _Patterns(owners)
    for each in parts:
        yield msgspec.structs.replace(each, elsewhere=patterns.elsewhere(each))


def _own(owner: GatewayServer, server: GatewayServer) -> bool:
    """True for the owner itself. What passes through has no settings that could differ: such servers share names."""
    through = (ServerKind.PASSTHROUGH, ServerKind.AUTO_PASSTHROUGH)
    return owner is server or (owner.kind is server.kind and owner.kind in through)


class _Patterns:
    """The host patterns of all TLS servers of a port."""

    def __init__(self, owners: Mapping[str, GatewayServer]) -> None:
        self._groups = {host: _group(owner) for host, owner in owners.items()}
        self._below: dict[str, list[str]] = {}
        for host in owners:
            for wildcard in _above(host):
                if wildcard in owners:
                    self._below.setdefault(wildcard, []).append(host)

    def elsewhere(self, server: GatewayServer) -> tuple[str, ...]:
        """What others have: all of it, or where that is too much what is below the server's own wildcards, and `*`."""
        found: Iterable[str] = self._groups
        own, group = server.sni, _group(server)
        if len(self._groups) > MOST_ELSEWHERE:
            found = [ANY, *(host for each in own for host in self._below.get(each, ()))]
        return tuple(sorted({each for each in found if each not in own and self._groups.get(each) != group}))


def _group(server: GatewayServer) -> str:
    """What servers with the same connections have in common."""
    return server.route or f"{server.name}/{server.index}"


def _above(host: str) -> Iterator[str]:
    """The wildcards that cover a host."""
    rest = host.removeprefix("*.") if is_wildcard(host) else host
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    if host != ANY:
        yield ANY


def automatic_hosts(q: Q, namespace: str, labels: Labels) -> tuple[str, ...]:
    """The host patterns of services that a router passes mutual TLS on to by the server name alone."""
    servers = q(gateway_servers, namespace, labels)
    automatic = [each for each in servers if each.kind is ServerKind.AUTO_PASSTHROUGH]
    return tuple(sorted({host for each in automatic for host in each.sni}))


def _conflict(loser: GatewayServer, host: str, winner: GatewayServer) -> Conflict:
    return Conflict(loser.gateway, loser.index, host, winner.gateway, winner.index, loser.number)


def gateways_for(q: Q, namespace: str, labels: Labels) -> tuple[Ref, ...]:
    """The Gateways whose selector picks routers with those labels, oldest first. An empty selector picks all."""
    have = dict(labels)
    return tuple(ref for ref, selector in q(_selectors) if selects(dict(selector), have))


def gateway_exists(q: Q, namespace: str, name: str) -> bool:
    """True when there is a Gateway of that name."""
    return get(q, Gateway, namespace, name) is not None


def router_ports(q: Q, namespace: str, labels: Labels, number: int) -> tuple[int, ...]:
    """The ports a router listens on for a port said by a Gateway: the target ports of its Services' port of that
    number, else the number itself."""
    targets: list[int] = []
    for host in q(selected_by, namespace, labels):
        found = q(service, host)
        port = found.port(number) if found is not None else None
        if port is not None and (target := _target(q, namespace, labels, port)):
            targets.append(target)
    return tuple(dict.fromkeys(targets)) or (number,)


def udp_port(q: Q, namespace: str, labels: Labels, number: int) -> int:
    """Where a router gets what is sent to a UDP port of its Services; 0 when they have none of that number."""
    for host in q(selected_by, namespace, labels):
        found = q(service, host)
        for port in found.ports if found is not None else ():
            if port.number == number and port.protocol is Protocol.UDP:
                return _target(q, namespace, labels, port)
    return 0


def _target(q: Q, namespace: str, labels: Labels, port: ServicePort) -> int:
    """The port of a router behind a port of its Service; 0 when it is a name that no container of it has."""
    if isinstance(port.target_port, str):
        return q(_named_port, namespace, labels, port.target_port)
    return port.target_port or port.number


def _named_port(q: Q, namespace: str, labels: Labels, name: str) -> int:
    pods = (q(pod_workload, namespace, each) for each in q(selected_pods, namespace, labels))
    return next((number for pod in pods if pod is not None for said, number in pod.ports if said == name), 0)


def server_hosts(hosts: tuple[str, ...], namespace: str) -> tuple[tuple[str, str], ...]:
    """`[namespace/]host` as pairs; no namespace means any, `.` the Gateway's own."""
    pairs: list[tuple[str, str]] = []
    for each in hosts:
        said, _, host = each.rpartition("/")
        pairs.append((namespace if said == "." else said or "*", host.lower()))
    return tuple(pairs)


def _selectors(q: Q) -> tuple[tuple[Ref, Labels], ...]:
    found = sorted(
        everywhere(q, Gateway), key=lambda each: (each.metadata.creation_timestamp or "9999", each.name, each.namespace)
    )
    return tuple((each.ref, tuple(sorted(each.spec.selector.items()))) for each in found)


def _servers_of(q: Q, namespace: str, name: str) -> tuple[GatewayServer, ...]:
    gateway = get(q, Gateway, namespace, name)
    if gateway is None:
        return ()
    return tuple(_server(gateway, index, each) for index, each in enumerate(gateway.spec.servers))


def _server(gateway: Gateway, index: int, server: Server) -> GatewayServer:
    protocol = parse_protocol(server.port.protocol)
    kind = _kind(protocol, server.tls)
    number = server.port.number
    https = f"https.{number}.{server.port.name}.{gateway.name}.{gateway.namespace}"
    return GatewayServer(
        gateway=gateway.ref,
        index=index,
        port=number,
        number=number,
        kind=kind,
        protocol=protocol,
        hosts=server_hosts(server.hosts, gateway.namespace),
        route=https if kind is ServerKind.HTTPS else "",
        bind="" if server.bind in (None, ANY_ADDRESS) else server.bind,
        port_name=server.port.name,
        title=server.name or "",
        tls=server.tls,
        https_redirect=bool(server.tls and server.tls.https_redirect),
    )


def _kind(protocol: Protocol, tls: ServerTLSSettings | None) -> ServerKind:
    if protocol.is_http:
        return ServerKind.HTTP
    if tls is not None and tls.passes:
        return _THROUGH[tls.effective_mode]
    if protocol is Protocol.HTTPS:
        return ServerKind.HTTPS if tls is not None else ServerKind.PASSTHROUGH
    if protocol is Protocol.TLS or tls is not None:
        return ServerKind.TLS if tls is not None else ServerKind.PASSTHROUGH
    return ServerKind.TCP


_THROUGH = {"PASSTHROUGH": ServerKind.PASSTHROUGH, "AUTO_PASSTHROUGH": ServerKind.AUTO_PASSTHROUGH}


def _http3(server: GatewayServer) -> bool:
    """QUIC has no certificates of clients in Envoy, so a server that asks for them stays with TCP."""
    return server.kind is ServerKind.HTTPS and server.tls is not None and server.tls.mode == "SIMPLE"
