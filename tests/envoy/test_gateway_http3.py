"""HTTP/3 of gateways through the real Envoy, asked by an independent client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent

from tests.envoy.test_gateway_connections import gateway, over, routes, server
from tests.lab.client import ask
from tests.lab.lab import Lab
from tests.lab.world import GATEWAY

FRONT = """
apiVersion: v1
kind: Service
metadata: {name: front, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  ports:
  - {name: https, port: 443, targetPort: 8443}
  - {name: http3, port: %s, targetPort: 8443, protocol: UDP}
---
"""
SHOPS = routes("a", "[a.test]", "ratings", "[istio-system/edge]") + routes(
    "b", "[b.test]", "details", "[istio-system/edge]"
)
ANSWER_S = 20


class Client(QuicConnectionProtocol):
    """An HTTP/3 client on one connection."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._http = H3Connection(self._quic)
        self._waiting: dict[int, tuple[dict[str, str], asyncio.Future[dict[str, str]]]] = {}
        self.ended = False

    async def get(self, host: str) -> dict[str, str]:
        """The headers of an answer; status 0 when the connection ends."""
        stream = self._quic.get_next_available_stream_id()
        names = ((":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/"))
        over: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._waiting[stream] = ({}, over)
        self._http.send_headers(stream, [(name.encode(), value.encode()) for name, value in names], end_stream=True)
        self.transmit()
        return await asyncio.wait_for(over, ANSWER_S)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.ended = True
            for _, over in self._waiting.values():
                if not over.done():
                    over.set_result({":status": "0"})
        for found in self._http.handle_event(event):
            if isinstance(found, HeadersReceived):
                got, _ = self._waiting[found.stream_id]
                got.update({name.decode(): value.decode() for name, value in found.headers})
            if isinstance(found, (HeadersReceived, DataReceived)) and found.stream_ended:
                got, over = self._waiting[found.stream_id]
                over.set_result(got)


async def _over_http3(lab: Lab, sni: str, hosts: tuple[str, ...]) -> list[dict[str, str]]:
    settings = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=sni)
    settings.verify_mode = ssl.CERT_REQUIRED
    settings.load_verify_locations(lab.certificates.path("root.pem"))
    one = lab.socket(kind="udp")
    one.setblocking(False)
    one.bind(("0.0.0.0", 0))
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(
        lambda: Client(QuicConnection(configuration=settings)), sock=one
    )
    try:
        client.connect((GATEWAY, 8443))
        await asyncio.wait_for(client.wait_connected(), ANSWER_S)
        return [await client.get(host) for host in hosts]
    except (ConnectionError, TimeoutError):
        return []
    finally:
        client.close()
        transport.close()


def headers_over_http3(lab: Lab, sni: str, *hosts: str) -> list[dict[str, str]]:
    """The headers of the answers to requests for those hosts on one connection; [] without a connection."""
    return asyncio.run(_over_http3(lab, sni, hosts))


def over_http3(lab: Lab, sni: str, *hosts: str) -> list[str]:
    """Who answers requests for those hosts on one connection, or their status; [] without a connection."""
    return [each.get("x-server") or each[":status"] for each in headers_over_http3(lab, sni, *hosts)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def certificate(lab: Lab) -> str:
    """The client checks the server's name."""
    for host in ("a", "b"):
        lab.certificates.leaf(f"{host}-test", "root", f"{host}.test")
    return lab.certificates.secrets()


def secure(name: str, host: str, mode: str = "SIMPLE") -> str:
    return server(name, f"[{host}.test]", mode=mode, more=f", credentialName: {host}-test").replace("8443", "443")


def test_http3_where_the_service_has_the_port_for_udp(lab: Lab) -> None:
    edge = gateway("edge", secure("a", "a"), secure("b", "b"))
    lab.configure(certificate(lab), FRONT % 443, edge, SHOPS)
    assert over_http3(lab, "a.test", "a.test", "b.test", "a.test") == ["ratings-v1", "421", "ratings-v1"]
    assert over_http3(lab, "b.test", "b.test", "unknown.test") == ["details-v1", "404"]
    tls = lab.certificates.client_context()
    answer = ask(lab, "gateway", port=8443, authority="a.test", tls=tls, sni="a.test")
    assert (answer.server, answer.headers["alt-svc"]) == ("ratings-v1", 'h3=":443"; ma=86400')
    assert over(lab, "a.test", "a.test") == ["ratings-v1"]


def test_http3_is_not_there_unless_asked_for(lab: Lab) -> None:
    """The UDP port of another number asks for nothing, and servers that want certificates of clients have none."""
    for front, mode in ((FRONT % 444, "SIMPLE"), (FRONT % 443, "OPTIONAL_MUTUAL")):
        lab.configure(certificate(lab), front, gateway("edge", secure("a", "a", mode)), SHOPS)
        tls = lab.certificates.client_context()
        answer = ask(lab, "gateway", port=8443, authority="a.test", tls=tls, sni="a.test")
        assert (answer.server, answer.headers.get("alt-svc")) == ("ratings-v1", None)
        assert "udp_" not in lab.gateway.envoy.admin("/listeners")
