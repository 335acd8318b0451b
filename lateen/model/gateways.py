"""Gateways: which of them configure a router, and their servers merged per port.

A Gateway applies to every router whose labels its selector picks, in any namespace. A server's port is a port of a
Service in front of the router (80), or a port of the router itself (8080); both lead to the listener on the port
the router listens on. Servers of several Gateways on one port make one listener: plain HTTP servers share a route
table, each TLS server has its own filter chain, chosen by server name; the oldest Gateway wins a conflict.

Source: https://istio.io/latest/docs/reference/config/networking/gateway/
"""

from __future__ import annotations

import enum

import msgspec

from lateen.api.istio.gateway import Gateway, Server, ServerTLSSettings
from lateen.api.objects import everywhere, get, selects
from lateen.engine import Q
from lateen.lib.ids import Ref
from lateen.model.protocols import Protocol, parse_protocol
from lateen.model.services import selected_by, service
from lateen.model.workloads import Labels


class ServerKind(enum.StrEnum):
    """How a server treats a connection."""

    HTTP = "http"
    """Requests in the clear."""
    HTTPS = "https"
    """TLS ends here, requests inside."""
    TLS = "tls"
    """TLS ends here, bytes inside."""
    PASSTHROUGH = "passthrough"
    """TLS goes through; the server name chooses."""
    TCP = "tcp"


class GatewayServer(msgspec.Struct, frozen=True, kw_only=True):
    """One server of one Gateway on one port of a router.

    `port` is where the router listens, `number` what the Gateway says; `hosts` are (namespace or `*`, host
    pattern); `route` is the name of the route table for HTTP and HTTPS.
    """

    gateway: Ref
    index: int
    port: int
    number: int
    kind: ServerKind
    hosts: tuple[tuple[str, str], ...]
    route: str = ""
    bind: str = ""
    port_name: str = ""
    tls: ServerTLSSettings | None = None
    https_redirect: bool = False
    http2_only: bool = False

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


def gateway_servers(q: Q, namespace: str, labels: Labels) -> tuple[GatewayServer, ...]:
    """All servers of the Gateways that pick routers with those labels, the oldest Gateway first.

    A server whose kind of traffic conflicts with an older one on the same port and address is left out.
    """
    found: list[GatewayServer] = []
    kinds: dict[tuple[int, str], bool] = {}
    for ref in q(gateways_for, namespace, labels):
        for each in q(_servers_of, ref.namespace, ref.name):
            for port in q(router_ports, namespace, labels, each.number):
                plain = each.kind in (ServerKind.HTTP, ServerKind.TCP)
                clear = each.kind is ServerKind.HTTP
                before = kinds.setdefault((port, each.bind), clear)
                if before is not clear or (each.kind is ServerKind.TCP and plain and _taken(found, port, each.bind)):
                    continue
                route = f"http.{port}" if clear else each.route
                found.append(
                    msgspec.structs.replace(
                        each, port=port, route=route + (f".{each.bind}" if each.bind and route else "")
                    )
                )
    return tuple(found)


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
        if port is not None and isinstance(port.target_port, int):
            targets.append(port.target_port or number)
    return tuple(dict.fromkeys(targets)) or (number,)


def server_hosts(hosts: tuple[str, ...], namespace: str) -> tuple[tuple[str, str], ...]:
    """`[namespace/]host` as pairs; no namespace means any, `.` the Gateway's own."""
    pairs: list[tuple[str, str]] = []
    for each in hosts:
        said, _, host = each.rpartition("/")
        pairs.append((namespace if said == "." else said or "*", host.lower()))
    return tuple(pairs)


def _taken(found: list[GatewayServer], port: int, bind: str) -> bool:
    return any(each.port == port and each.bind == bind for each in found)


def _selectors(q: Q) -> tuple[tuple[Ref, Labels], ...]:
    found = sorted(
        everywhere(q, Gateway), key=lambda each: (each.metadata.creation_timestamp or "9999", each.namespace, each.name)
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
        hosts=server_hosts(server.hosts, gateway.namespace),
        route=https if kind is ServerKind.HTTPS else "",
        bind=server.bind or "",
        port_name=server.port.name,
        tls=server.tls,
        https_redirect=bool(server.tls and server.tls.https_redirect),
        http2_only=protocol.is_http2,
    )


def _kind(protocol: Protocol, tls: ServerTLSSettings | None) -> ServerKind:
    if protocol.is_http:
        return ServerKind.HTTP
    if tls is not None and tls.mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH"):
        return ServerKind.PASSTHROUGH
    if protocol is Protocol.HTTPS:
        return ServerKind.HTTPS if tls is not None else ServerKind.PASSTHROUGH
    if protocol is Protocol.TLS or tls is not None:
        return ServerKind.TLS if tls is not None else ServerKind.PASSTHROUGH
    return ServerKind.TCP
