"""Slow clients at a gateway, through the real Envoy: handshakes and heads have their time, others are served."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lateen.envoy.http_manager import CLIENT_TIMEOUT_S
from tests.envoy.test_gateway_connections import gateway, routes, server
from tests.lab.client import ask
from tests.lab.lab import Lab
from tests.lab.world import GATEWAY
from tests.security.slow import ends

SLACK_S = 10.0
INSPECTION_S = 15.0
"""Envoy's own time for the first bytes, by which it finds the server of TLS."""
EACH = 10
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
HEAD = b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-"
PLAIN = "{port: {number: 8080, name: http, protocol: HTTP}, hosts: [shop.test]}"


@dataclass(frozen=True)
class Slow:
    """A way to be slow; what is said at once, again every half second, and how long the connection may last."""

    name: str
    port: int
    says: bytes
    again: bytes
    lasts_s: float
    tls: bool = False


WAYS = (
    Slow("nothing before the handshake", 8443, b"", b"", INSPECTION_S),
    Slow("a handshake byte by byte", 8443, HELLO, b"\0", INSPECTION_S),
    Slow("a head byte by byte over TLS", 8443, HEAD, b"a", CLIENT_TIMEOUT_S, tls=True),
    Slow("a head byte by byte", 8080, HEAD, b"a", CLIENT_TIMEOUT_S),
    Slow("a head that stops", 8080, HEAD, b"", CLIENT_TIMEOUT_S),
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.configure(
            gateway("edge", PLAIN, server("https", "[shop.test]")),
            routes("shop", "[shop.test]", "reviews", "[istio-system/edge]"),
        )
        yield made


def test_slow_clients_are_hung_up_on_and_hold_up_nobody(lab: Lab) -> None:
    context = lab.certificates.client_context("", ("http/1.1",))
    opened: list[tuple[Slow, socket.socket, float]] = []
    for way in WAYS:
        for _ in range(EACH):
            at = time.monotonic()
            one = lab.connect(GATEWAY, way.port, tls=context if way.tls else None, sni="shop.test" if way.tls else "")
            one.sendall(way.says)
            opened.append((way, one, at))
    for port in (8080, 8443):
        tls = context if port == 8443 else None
        answer = ask(lab, GATEWAY, port=port, tls=tls, sni="shop.test" if tls else "", authority="shop.test")
        assert answer.status == 200
    lasted = ends(opened, max(way.lasts_s for way in WAYS) + 2 * SLACK_S)
    assert len(lasted) == len(opened)
    assert not {way.name: lasted_s for way, lasted_s in lasted if lasted_s > way.lasts_s + SLACK_S}
