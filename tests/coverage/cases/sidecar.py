"""Sidecar, field by field."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import yaml

from tests.coverage.case import REFUSED, Case, Json, Probe, Refusal, new
from tests.lab.client import Caller, Caller2, TlsClient, ask, at_once, exchange, outside
from tests.lab.lab import OUTSIDE, Lab

KIND = "Sidecar"
ALL: Json = {"hosts": ["*/*"]}


def sidecar(**spec: Any) -> Json:
    return new(KIND, "app", spec)


def ingress(number: int = 9080, protocol: str = "HTTP", **more: Any) -> Json:
    return {"port": {"number": number, "name": "main", "protocol": protocol}, **more}


def case(place: str, document: Json, value: Any, probe: Probe, before: Any, after: Any, beside: str = "") -> Case:
    return Case(KIND, f"spec.{place}", document, value, probe, before, after, beside)


def who(host: str, **how: Any) -> Probe:
    def probe(lab: Lab) -> str | int:
        answer = ask(lab, host, **how)
        return answer.server if answer.status == 200 else answer.status

    return probe


KNOWN_ONLY = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
---
"""


def cases() -> Iterator[Case]:
    first = "./reviews.default.svc.cluster.local"
    scoped = sidecar(egress=[{"hosts": [first]}])
    known = who("ratings")
    other = "./ratings.default.svc.cluster.local"
    yield case("egress[0].hosts[0]", scoped, other, known, 502, "ratings-v1", KNOWN_ONLY)
    ports = sidecar(egress=[{"port": {"number": 9080, "protocol": "HTTP"}, "hosts": [first]}, ALL])
    yield case("egress[0].port.number", ports, 9081, known, 502, "ratings-v1", KNOWN_ONLY)
    brewed = yaml.safe_dump(
        new("VirtualService", "ratings", {"hosts": ["ratings"], "http": [{"directResponse": {"status": 418}}]})
    )
    ports = sidecar(egress=[{"port": {"number": 9080, "protocol": "HTTP"}, "hosts": ["*/*"]}])
    yield case("egress[0].port.protocol", ports, "TCP", known, 418, "ratings-v1", brewed + "---\n")
    place = "outboundTrafficPolicy.mode"
    nobody = who("10.88.3.1", authority="nobody.test")
    yield case(place, sidecar(outboundTrafficPolicy={"mode": "ALLOW_ANY"}), "REGISTRY_ONLY", nobody, "outside-1", 502)
    selecting = sidecar(workloadSelector={"labels": {"app": "app"}}, egress=[{"hosts": [first]}])
    yield case("workloadSelector.labels{app}", selecting, "other", known, 502, "ratings-v1", KNOWN_ONLY)
    yield from _egress_places()
    yield from _egress_proxy()
    yield from _ingress()
    yield from _ingress_places()
    yield from _ingress_tls()
    yield from _pools()


NUMBERED = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: numbered}
spec:
  hosts: [numbered.test]
  addresses: [10.97.0.6]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 9500, name: http, protocol: HTTP, targetPort: 9080}]
  endpoints: [{address: 10.88.2.1}]
---
"""


def _egress_places() -> Iterator[Case]:
    """Where an egress listener is: at the services' addresses, at one of its own, or on a port that the proxy opens."""
    hosts = ["*/numbered.test"]
    port: Json = {"number": 9500, "protocol": "HTTP"}
    elsewhere = who("10.97.0.7", port=9500, authority="numbered.test")
    plain = sidecar(egress=[{"port": port, "hosts": hosts, "bind": "10.97.0.8"}])
    yield case("egress[0].bind", plain, "10.97.0.7", elsewhere, 0, "ratings-v1", KNOWN_ONLY + NUMBERED)
    opened = who("127.0.0.1", port=9500, authority="numbered.test")
    for mode in ("DEFAULT", "IPTABLES"):
        captured = sidecar(egress=[{"port": port, "hosts": hosts, "captureMode": mode}])
        yield case("egress[0].captureMode", captured, "NONE", opened, 0, "ratings-v1", NUMBERED)
    socket = sidecar(egress=[{"port": {"protocol": "HTTP"}, "hosts": ["./*"], "bind": "unix://@files/a.sock"}])
    yield case("egress[0].bind", socket, "unix://@files/b.sock", _at_socket("b.sock"), 0, "ratings-v1")


def _at_socket(name: str, authority: str = "ratings:9080") -> Probe:
    def probe(lab: Lab) -> str | int:
        answer = ask(lab, f"unix://{lab.directory}/{name}", authority=authority)
        return answer.server if answer.status == 200 else answer.status

    return probe


def _egress_proxy() -> Iterator[Case]:
    """What nobody knows goes to a proxy, which is played by a server here."""
    full = "{}.default.svc.cluster.local"
    place = "outboundTrafficPolicy.egressProxy"
    nobody = who("10.88.3.1", authority="nobody.test")
    said: Json = {"host": full.format("details"), "port": {"number": 9080}}
    document = sidecar(outboundTrafficPolicy={"mode": "ALLOW_ANY", "egressProxy": said})
    yield case(f"{place}.host", document, full.format("ratings"), nobody, "details-v1", "ratings-v1")
    arrived: Probe = lambda lab: ask(lab, "10.88.3.1", authority="nobody.test").seen["port"]  # noqa: E731
    yield case(f"{place}.port.number", document, 9081, arrived, 9080, 9081)
    said = {"host": full.format("reviews"), "port": {"number": 9080}, "subset": "v1"}
    document = sidecar(outboundTrafficPolicy={"mode": "ALLOW_ANY", "egressProxy": said})
    yield case(f"{place}.subset", document, "v2", nobody, "reviews-v1", "reviews-v2")


def _arrives(part: str, port: int = 9080) -> Probe:
    """What the application saw of a request from outside; the status when it got none."""

    def probe(lab: Lab) -> Any:
        answer = outside(lab, port=port)
        return answer.seen[part] if answer.status == 200 else answer.status

    return probe


def _ingress() -> Iterator[Case]:
    there = ingress(9082, defaultEndpoint="127.0.0.1:9080")
    at = "ingress[0]"
    yield case(f"{at}.defaultEndpoint", sidecar(ingress=[there]), "127.0.0.1:9081", _arrives("port", 9082), 9080, 9081)
    yield case(f"{at}.port.number", sidecar(ingress=[there]), 9081, _arrives("port", 9081), 9081, 9080)
    read = sidecar(ingress=[ingress(9080)])
    yield case(f"{at}.port.protocol", read, "TCP", _read_as_http, True, False)


def _read_as_http(lab: Lab) -> bool:
    """Whether the proxy in front of the application reads requests."""
    return "x-request-id" in outside(lab).seen["headers"]


OFF = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: app}
spec: {selector: {matchLabels: {app: app}}, mtls: {mode: DISABLE}}
---
"""


def _ingress_places() -> Iterator[Case]:
    at = "ingress[0]"
    own = ingress(9083, defaultEndpoint="127.0.0.1:9080", captureMode="NONE", bind="127.0.0.1")
    yield case(f"{at}.bind", sidecar(ingress=[own]), "127.0.0.9", who("127.0.0.9", port=9083), 0, "app")
    for mode in ("DEFAULT", "IPTABLES"):
        captured = sidecar(ingress=[{**own, "captureMode": mode}])
        yield case(f"{at}.captureMode", captured, "NONE", who("127.0.0.1", port=9083), 0, "app")


def secure(**tls: Any) -> Json:
    """A port where the sidecar ends clients' TLS."""
    return sidecar(ingress=[ingress(9443, "HTTPS", defaultEndpoint="127.0.0.1:9080", tls=tls)])


TLS = TlsClient("10.88.0.5", 9443, "app.test", {"mark": OUTSIDE})


def _ingress_tls() -> Iterator[Case]:
    at = "ingress[0].tls"
    names, client, strange = (
        TLS.handshake("names"),
        TLS.handshake("server", "client"),
        TLS.handshake("server", "stranger"),
    )
    nobody = TLS.handshake("server")
    files: Json = {"serverCertificate": "@files/client.pem", "privateKey": "@files/client.key"}
    own: Json = {**files, "caCertificates": "@files/root.pem"}
    one, two = "spiffe://cluster.local/ns/default/sa/client,client.test", "twin.test"

    def row(place: str, document: Json, value: Any, probe: Probe, before: Any, after: Any) -> Case:
        return case(place, document, value, probe, before, after, OFF)

    yield row(f"{at}.mode", secure(mode="SIMPLE", **own), "MUTUAL", nobody, "app", 0)
    yield row(f"{at}.mode", secure(mode="MUTUAL", **own), "OPTIONAL_MUTUAL", nobody, 0, "app")
    certificates: Json = {"tlsCertificates": [files]}
    for prefix, tls in ((at, files), (f"{at}.tlsCertificates[0]", certificates)):
        document = secure(mode="SIMPLE", **tls)
        yield row(f"{prefix}.serverCertificate", document, "@files/twin.pem", names, one, two)
        yield row(f"{prefix}.privateKey", document, "@files/edge.key", names, one, REFUSED)
    mutual = secure(mode="MUTUAL", **own)
    yield row(f"{at}.caCertificates", mutual, "@files/other.pem", client, "app", 0)
    listed: Any = {"mode": "MUTUAL", "tlsCertificates": [own]}
    yield row(f"{at}.tlsCertificates[0].caCertificates", secure(**listed), "@files/other.pem", client, "app", 0)
    yield row(f"{at}.caCrl", mutual, "@files/revoked-client.pem", client, "app", 0)
    yield row(f"{at}.insecureSkipVerify", mutual, True, strange, 0, "app")
    yield row(f"{at}.verifyCertificateHash[0]", mutual, "00" * 32, client, "app", 0)
    yield row(f"{at}.verifyCertificateSpki[0]", mutual, "A" * 43 + "=", client, "app", 0)
    old, last = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"
    document = secure(mode="SIMPLE", maxProtocolVersion="TLSV1_2", **files)
    yield row(f"{at}.cipherSuites[0]", document, last, TLS.handshake("cipher"), old, last)
    ciphers: Json = {**files, "cipherSuites": ["ECDHE-ECDSA-AES128-SHA", old]}
    every = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
    anything = secure(mode="SIMPLE", minProtocolVersion="TLSV1_0", **ciphers)
    for value, least in (("TLSV1_1", 1), ("TLSV1_2", 2), ("TLSV1_3", 3), ("TLS_AUTO", 2)):
        yield row(f"{at}.minProtocolVersion", anything, value, TLS.versions, every, every[least:])
    for value, most in (("TLSV1_0", 1), ("TLSV1_1", 2), ("TLSV1_2", 3)):
        yield row(f"{at}.maxProtocolVersion", anything, value, TLS.versions, every, every[:most])
    document = secure(mode="SIMPLE", minProtocolVersion="TLSV1_0", maxProtocolVersion="TLSV1_2", **ciphers)
    for value in ("TLSV1_3", "TLS_AUTO"):
        yield row(f"{at}.maxProtocolVersion", document, value, TLS.versions, every[:3], every)


# -- inbound connection pools -----------------------------------------------------------------------------


def _app_most(lab: Lab) -> int:
    assert outside(lab).status == 200  # requests that come first, at once, would each make an endpoint
    at_once(lab, 3, host="10.88.0.5", mark=OUTSIDE, headers={"x-do": "wait 0.3"})
    return lab.servers.most_open("app")


def _app_overflows(lab: Lab) -> int:
    assert outside(lab).status == 200
    answers = at_once(lab, 3, host="10.88.0.5", mark=OUTSIDE, headers={"x-do": "wait 0.3"})
    return sum(each.status == 503 for each in answers)


def _app_connections(lab: Lab) -> int:
    with Caller(lab, "10.88.0.5", mark=OUTSIDE) as caller:
        first = caller.ask(authority="app").seen["connection"]
        time.sleep(0.3)
        return len({first, caller.ask(authority="app").seen["connection"]})


def _app_alive(lab: Lab) -> bool:
    with lab.connect("10.88.0.5", 9000, mark=OUTSIDE) as one:
        assert exchange(one)["server"] == "app"
        time.sleep(0.4)
        return bool(exchange(one))


def _app_spoken2(lab: Lab) -> str:
    with Caller2(lab, "10.88.0.5", mark=OUTSIDE) as caller:
        return str(caller.ask("app")[0].seen["protocol"])


def pool(
    place: str, said: Json, value: Any, probe: Probe, before: Any, after: Any, port: int = 9080, *, long: bool = False
) -> Iterator[Case]:
    """A field of an inbound pool, for all ports and for one."""
    protocol = {9000: "TCP", 9090: "HTTP2"}.get(port, "HTTP")
    whole = sidecar(inboundConnectionPool=said)
    one = sidecar(ingress=[ingress(port, protocol, connectionPool=said)])
    for level, document in (("spec.inboundConnectionPool", whole), ("spec.ingress[0].connectionPool", one)):
        yield Case(KIND, f"{level}.{place}", document, value, probe, before, after, long=long)


def _pools() -> Iterator[Case]:
    wide: Json = {"tcp": {"maxConnections": 100}}
    yield from pool("tcp.maxConnections", wide, 1, _app_most, 3, 1)
    yield from pool("tcp.idleTimeout", wide, "0.2s", _app_alive, True, False, 9000)
    yield from pool("tcp.maxConnectionDuration", wide, "0.2s", _app_alive, True, False, 9000)
    wide = {"http": {"maxRetries": 100}}
    yield from pool("http.http1MaxPendingRequests", {"tcp": {"maxConnections": 1}}, 1, _app_overflows, 0, 1)
    yield from pool("http.http2MaxRequests", wide, 1, _app_overflows, 0, 2)
    yield from pool("http.maxRequestsPerConnection", wide, 1, _app_connections, 1, 2)
    yield from pool("http.idleTimeout", wide, "0.1s", _app_connections, 1, 2)
    yield from pool("http.useClientProtocol", wide, True, _app_spoken2, "http/1.1", "h2")
    yield from pool("http.maxConcurrentStreams", wide, 1, _app_connections2, 1, 3, 9090)
    for field, alive in (
        ("interval", {"interval": "3600s", "timeout": "0.1s"}),
        ("timeout", {"interval": "0.1s", "timeout": "60s"}),
    ):
        said: Json = {"http": {"http2KeepAlive": alive}}
        yield from pool(f"http.http2KeepAlive.{field}", said, "0.1s", _app_survives, True, False, 9090)
    yield from pool("tcp.connectTimeout", {"tcp": {"connectTimeout": "0.1s"}}, "3s", _app_patient, False, True)
    fast: Json = {"time": "1s", "interval": "1s", "probes": 1}
    for field, value in (("time", "3600s"), ("interval", "60s"), ("probes", 100)):
        place = f"tcp.tcpKeepalive.{field}"
        yield from pool(place, {"tcp": {"tcpKeepalive": fast}}, value, _app_outlives, False, True, 9000, long=True)


def _app_connections2(lab: Lab) -> int:
    with Caller2(lab, "10.88.0.5", 9090, mark=OUTSIDE) as caller:
        assert caller.ask("app")[0].status == 200
        lab.servers.script("app", "wait 0.3*")
        assert [each.status for each in caller.ask("app", 3)] == [200] * 3
    return lab.servers.most_open("app")


def _app_survives(lab: Lab) -> bool:
    lab.servers.silent.add("app")
    lab.servers.script("app", "wait 0.8*")
    with Caller2(lab, "10.88.0.5", 9090, mark=OUTSIDE) as caller:
        return caller.ask("app")[0].status == 200


def _app_patient(lab: Lab) -> bool:
    """Whether the proxy waits longer than 2 s for an application that is silent."""
    lab.silence("10.88.0.5")
    try:
        answer = outside(lab, source="10.88.0.7")
        assert answer.status == 503, answer
        return answer.seconds > 2
    finally:
        lab.silence("10.88.0.5", on=False)


def _app_outlives(lab: Lab) -> bool:
    """Whether a connection lives on 3.5 s after its application has fallen silent."""
    with lab.connect("10.88.0.5", 9000, mark=OUTSIDE, source="10.88.0.7") as one:
        assert exchange(one)["server"] == "app"
        lab.silence("10.88.0.5")
        try:
            one.settimeout(3.5)
            try:
                return one.recv(1) != b""
            except TimeoutError:
                return True
            except OSError:
                return False
        finally:
            lab.silence("10.88.0.5", on=False)


def refusals() -> Iterator[Refusal]:
    base = sidecar(egress=[{"port": {"number": 9080, "protocol": "HTTP"}, "hosts": ["*/*"]}], ingress=[ingress()])
    for listener in ("egress", "ingress"):
        yield Refusal(KIND, f"spec.{listener}[0].port.name", base, "other", "LTN0006")
        yield Refusal(KIND, f"spec.{listener}[0].port.targetPort", base, 9080, "IST0106")
    for level in ("inboundConnectionPool", "ingress[0].connectionPool"):
        for place, value in (
            ("http.maxRetries", 3),
            *(("http.h2UpgradePolicy", each) for each in ("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE")),
        ):
            yield Refusal(KIND, f"spec.{level}.{place}", base, value, "LTN0006")
    files: Json = {"serverCertificate": "/a", "privateKey": "/b"}
    alone, named = secure(mode="SIMPLE", **files), secure(mode="SIMPLE")
    for place, value in (
        *(("mode", each) for each in ("PASSTHROUGH", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL")),
        ("subjectAltNames[0]", "a.test"),
        ("httpsRedirect", True),
        ("caCertCredentialName", "name"),
    ):
        yield Refusal(KIND, f"spec.ingress[0].tls.{place}", alone, value, "IST0106")
    for place in ("credentialName", "credentialNames[0]"):
        yield Refusal(KIND, f"spec.ingress[0].tls.{place}", named, "name", "IST0106")
