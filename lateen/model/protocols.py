"""The protocol of a port: what `appProtocol`, the port's name or its number say about it.

`appProtocol` counts first, then the part of the port's name before the first dash, then a few well-known ports
whose server speaks first (sniffing would stall them). Anything else is AUTO: the proxies look at the first bytes.

Source: https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/
"""

from __future__ import annotations

import enum


class Protocol(enum.StrEnum):
    """What is spoken on a port. AUTO means it is found out for each connection."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    GRPC_WEB = "grpc-web"
    HTTP_PROXY = "http-proxy"
    HTTPS = "https"
    TLS = "tls"
    TCP = "tcp"
    MONGO = "mongo"
    REDIS = "redis"
    MYSQL = "mysql"
    UDP = "udp"
    AUTO = "auto"

    @property
    def is_http(self) -> bool:
        """Plain HTTP of any version: the proxy reads the requests."""
        return self in _HTTP

    @property
    def is_http2(self) -> bool:
        """HTTP/2 with prior knowledge."""
        return self in _HTTP2

    @property
    def is_tls(self) -> bool:
        """TLS that the application speaks itself; the proxy sees the server name only."""
        return self in (Protocol.HTTPS, Protocol.TLS)

    @property
    def is_tcp(self) -> bool:
        """Bytes the proxy does not look into, TLS included."""
        return self in _TCP or self.is_tls


_HTTP = frozenset({Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC, Protocol.GRPC_WEB, Protocol.HTTP_PROXY})
_HTTP2 = frozenset({Protocol.HTTP2, Protocol.GRPC, Protocol.GRPC_WEB})
_TCP = frozenset({Protocol.TCP, Protocol.MONGO, Protocol.REDIS, Protocol.MYSQL})
_NAMES = {each.value: each for each in Protocol if each is not Protocol.AUTO} | {"http_proxy": Protocol.HTTP_PROXY}
_APP_PROTOCOLS = {
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.HTTPS,
}
_SERVER_FIRST = {25: Protocol.TCP, 53: Protocol.TCP, 3306: Protocol.MYSQL, 27017: Protocol.MONGO}


def parse_protocol(text: str) -> Protocol:
    """The protocol of that name in any case (`HTTP`, `grpc-web`), AUTO for an unknown one."""
    return _NAMES.get(text.lower(), Protocol.AUTO)


def port_protocol(number: int, name: str, app_protocol: str, transport: str) -> Protocol:
    """The protocol of a Kubernetes Service port; `transport` is its `protocol` field (TCP, UDP, SCTP)."""
    if transport.upper() == "UDP":
        return Protocol.UDP
    if app_protocol:
        said = _APP_PROTOCOLS.get(app_protocol.lower()) or parse_protocol(app_protocol)
        if said is not Protocol.AUTO:
            return said
    said = _by_name(name.lower())
    return said if said is not Protocol.AUTO else _SERVER_FIRST.get(number, Protocol.AUTO)


def _by_name(name: str) -> Protocol:
    if name == "grpc-web" or name.startswith("grpc-web-"):
        return Protocol.GRPC_WEB
    return parse_protocol(name.partition("-")[0])
