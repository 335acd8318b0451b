"""Gateway, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.coverage.case import REFUSED, Case, Json, Probe, Refusal, new
from tests.lab.client import TlsClient, ask, exchange
from tests.lab.lab import Lab

KIND = "Gateway"


def gateway(*servers: Json, **spec: Any) -> Json:
    return new(
        KIND, "edge", {"selector": {"istio": "ingressgateway"}, "servers": list(servers), **spec}, "istio-system"
    )


def server(protocol: str = "HTTP", number: int = 8080, **more: Any) -> Json:
    return {"port": {"number": number, "name": "main", "protocol": protocol}, "hosts": ["*"], **more}


def secure(protocol: str = "HTTPS", **tls: Any) -> Json:
    return gateway(server(protocol, 8443, tls=tls))


def _destination(host: str, port: int) -> list[Json]:
    return [{"destination": {"host": f"{host}.default.svc.cluster.local", "port": {"number": port}}}]


SHOP = (
    yaml.safe_dump(
        new(
            "VirtualService",
            "shop",
            {
                "hosts": ["shop.test"],
                "gateways": ["istio-system/edge"],
                "http": [{"route": _destination("ratings", 9080)}],
                "tcp": [{"match": [{"port": 8080}, {"port": 8443}], "route": _destination("details", 9080)}],
                "tls": [
                    {"match": [{"port": 8443, "sniHosts": ["shop.test"]}], "route": _destination("reviews", 9443)},
                ],
            },
        )
    )
    + "---\n"
)


def plain(lab: Lab) -> str | int:
    """Who answers a request in the clear, or the status; 0 when nobody listens."""
    answer = ask(lab, "gateway", port=8080, authority="shop.test")
    return answer.server if answer.status == 200 else answer.status


CLIENT = TlsClient("gateway", 8443, "shop.test")
handshake, versions = CLIENT.handshake, CLIENT.versions


def lines(lab: Lab) -> Json:
    """What a server of lines behind TLS saw."""
    with lab.connect("gateway", 8443, tls=lab.certificates.client_context(), sni="shop.test") as one:
        return exchange(one)


def case(place: str, document: Json, value: Any, probe: Probe, before: Any, after: Any, **more: Any) -> Case:
    return Case(KIND, f"spec.{place}", document, value, probe, before, after, SHOP, **more)


def cases() -> Iterator[Case]:
    yield from _ports()
    yield from _modes()
    yield from _certificates()


def refusals() -> Iterator[Refusal]:
    base = gateway(server())
    yield Refusal(KIND, "spec.servers[0].defaultEndpoint", base, "127.0.0.1:9000", "IST0106")
    yield Refusal(KIND, "spec.servers[0].port.targetPort", base, 9000, "IST0106")


def _ports() -> Iterator[Case]:
    http = gateway(server())
    yield case("selector{istio}", http, "other", plain, "ratings-v1", 0)
    yield case("servers[0].bind", http, "10.88.0.9", plain, "ratings-v1", 0)
    yield case("servers[0].hosts[0]", http, "other.test", plain, "ratings-v1", 404)
    yield case("servers[0].port.number", http, 8081, plain, "ratings-v1", 0)
    for first, second, after in (("HTTP", "TCP", "details-v1"), ("TCP", "GRPC", "ratings-v1")):
        before = "ratings-v1" if first == "HTTP" else "details-v1"
        yield case("servers[0].port.protocol", gateway(server(first)), second, plain, before, after)
    for protocol in ("HTTP2", "GRPC-WEB"):
        yield case("servers[0].port.protocol", gateway(server("TCP")), protocol, plain, "details-v1", "ratings-v1")
    yield case("servers[0].port.protocol", gateway(server("HTTP")), "MONGO", plain, "ratings-v1", "details-v1")
    yield case("servers[0].port.protocol", gateway(server("HTTP")), "GRPC-WEB", _translated, False, True)
    edge: Json = {"mode": "SIMPLE", "credentialName": "edge"}
    https, inside = secure(**edge), handshake("server")
    yield case("servers[0].port.protocol", https, "TLS", inside, "ratings-v1", "details-v1")
    yield case("servers[0].port.name", https, "other", _table, [1, 0], [0, 1])
    yield case("servers[0].name", http, "front", _counted, False, True)
    yield case("servers[0].tls.httpsRedirect", http, True, plain, "ratings-v1", 301)


def _counted(lab: Lab) -> bool:
    """True when requests are counted under a name of the server's own."""
    plain(lab)
    return lab.stat(r"http\.front\.downstream_rq_total", "gateway") > 0


def _translated(lab: Lab) -> bool:
    """True when gRPC-Web of a browser arrives as gRPC."""
    lab.servers.log.clear()
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    ask(lab, "gateway", port=8080, authority="shop.test", headers=headers, method="POST")
    return [each["headers"]["content-type"] for each in lab.servers.log] == ["application/grpc"]


def _table(lab: Lab) -> list[int]:
    """Which route tables the gateway has."""
    return [
        lab.stat(rf"http\..*\.rds\.https\.8443\.{name}\.edge\.istio-system\.update_success", "gateway") and 1
        if f"https.8443.{name}.edge.istio-system"
        in lab.gateway.envoy.admin("/config_dump", resource="dynamic_route_configs")
        else 0
        for name in ("main", "other")
    ]


def _modes() -> Iterator[Case]:
    place = "servers[0].tls.mode"
    edge: Json = {"credentialName": "edge"}
    server, strange = handshake("server"), handshake("server", "stranger")
    yield case(place, secure(mode="SIMPLE", **edge), "MUTUAL", server, "ratings-v1", 0)
    yield case(place, secure(mode="MUTUAL", **edge), "OPTIONAL_MUTUAL", server, 0, "ratings-v1")
    yield case(place, secure(mode="SIMPLE", **edge), "OPTIONAL_MUTUAL", strange, "ratings-v1", 0)
    names = handshake("names", "client")
    inside = "reviews,reviews.default.svc.cluster.local,outside.test,*.outside.test"
    own = "spiffe://cluster.local/ns/default/sa/default"
    yield case(place, secure(mode="PASSTHROUGH"), "ISTIO_MUTUAL", names, inside, own)
    yield case(place, secure("TLS", mode="PASSTHROUGH"), "AUTO_PASSTHROUGH", _passed_on, "", "reviews-v2")


def _passed_on(lab: Lab) -> str:
    """Who answers mutual TLS for a subset of a service."""
    context, name = lab.certificates.client_context("client", ("istio",)), "reviews.default.svc.cluster.local"
    try:
        with lab.connect("gateway", 8443, tls=context, sni=f"outbound_.9000_.v2_.{name}") as one:
            return str(exchange(one).get("server", ""))
    except OSError:
        return ""


def _certificates() -> Iterator[Case]:
    at = "servers[0].tls"
    names, client, strange = handshake("names"), handshake("server", "client"), handshake("server", "stranger")
    shop, inside = "shop.test,*.shop.test", "reviews,reviews.default.svc.cluster.local,outside.test,*.outside.test"
    yes = "ratings-v1"
    edge: Json = {"credentialName": "edge"}
    yield case(f"{at}.credentialName", secure(mode="SIMPLE", **edge), "server", names, shop, inside)
    pair: Json = {"credentialNames": ["edge"]}
    named = secure(mode="SIMPLE", **pair)
    yield case(f"{at}.credentialNames[0]", named, "server", names, shop, inside)
    files: Json = {"serverCertificate": "@files/client.pem", "privateKey": "@files/client.key"}
    one, two = "spiffe://cluster.local/ns/default/sa/client,client.test", "twin.test"
    certificates: Json = {"tlsCertificates": [files]}
    for prefix, tls in ((at, files), (f"{at}.tlsCertificates[0]", certificates)):
        document = secure(mode="SIMPLE", **tls)
        yield case(f"{prefix}.serverCertificate", document, "@files/twin.pem", names, one, two)
        yield case(f"{prefix}.privateKey", document, "@files/edge.key", names, one, REFUSED)
    own: Json = {"mode": "MUTUAL", **files, "caCertificates": "@files/root.pem"}
    yield case(f"{at}.caCertificates", secure(**own), "@files/other.pem", client, yes, 0)
    listed: Any = {"mode": "MUTUAL", "tlsCertificates": [{**files, "caCertificates": "@files/root.pem"}]}
    place = f"{at}.tlsCertificates[0].caCertificates"
    yield case(place, secure(**listed), "@files/other.pem", client, yes, 0)
    yield case(f"{at}.caCrl", secure(**own), "@files/revoked-client.pem", client, yes, 0)
    mutual = secure(mode="MUTUAL", **edge)
    yield case(f"{at}.caCertCredentialName", mutual, "stranger", client, yes, 0)
    yield case(f"{at}.insecureSkipVerify", mutual, True, strange, 0, yes)
    yield case(f"{at}.subjectAltNames[0]", mutual, "nobody.test", client, yes, 0)
    yield case(f"{at}.verifyCertificateHash[0]", mutual, "00" * 32, client, yes, 0)
    yield case(f"{at}.verifyCertificateSpki[0]", mutual, "A" * 43 + "=", client, yes, 0)
    old = secure(mode="SIMPLE", maxProtocolVersion="TLSV1_2", **edge)
    yield case(
        f"{at}.cipherSuites[0]",
        old,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        handshake("cipher"),
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    )
    ciphers: Json = {"cipherSuites": ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-GCM-SHA256"]}
    every = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
    anything = secure(mode="SIMPLE", minProtocolVersion="TLSV1_0", **edge, **ciphers)
    for value, least in (("TLSV1_1", 1), ("TLSV1_2", 2), ("TLSV1_3", 3), ("TLS_AUTO", 2)):
        yield case(f"{at}.minProtocolVersion", anything, value, versions, every, every[least:])
    for value, most in (("TLSV1_0", 1), ("TLSV1_1", 2), ("TLSV1_2", 3)):
        yield case(f"{at}.maxProtocolVersion", anything, value, versions, every, every[:most])
    old = secure(mode="SIMPLE", minProtocolVersion="TLSV1_0", maxProtocolVersion="TLSV1_2", **edge, **ciphers)
    for value in ("TLSV1_3", "TLS_AUTO"):
        yield case(f"{at}.maxProtocolVersion", old, value, versions, every[:3], every)
