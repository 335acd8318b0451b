"""Sidecar, field by field."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import yaml

from tests.coverage.case import Case, Json, Probe, Refusal, new
from tests.coverage.fields import fields
from tests.lab.client import Caller, Caller2, ask, at_once, exchange, outside
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
    yield from _ingress()
    yield from _pools()


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
    yield from pool("tcp.connectTimeout", {"tcp": {"connectTimeout": "0.1s"}}, "1s", _app_patient, False, True)
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
    """Whether the proxy waits longer than 0.4 s for an application that is silent."""
    lab.silence("10.88.0.5")
    try:
        answer = outside(lab, source="10.88.0.7")
        assert answer.status == 503, answer
        return answer.seconds > 0.4
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
    for place, value in (
        ("egress[0].bind", "127.0.0.1"),
        *(("egress[0].captureMode", mode) for mode in ("DEFAULT", "IPTABLES", "NONE")),
        ("ingress[0].bind", "127.0.0.1"),
        *(("ingress[0].captureMode", mode) for mode in ("DEFAULT", "IPTABLES", "NONE")),
        ("outboundTrafficPolicy.egressProxy.host", "ratings"),
    ):
        yield Refusal(KIND, f"spec.{place}", base, value, "LTN0001")
    proxied = sidecar(outboundTrafficPolicy={"egressProxy": {"host": "ratings"}})
    for place, value in (("subset", "v1"), ("port.number", 9080)):
        yield Refusal(KIND, f"spec.outboundTrafficPolicy.egressProxy.{place}", proxied, value, "LTN0001")
    for place in (
        "egress[0].port.name",
        "egress[0].port.targetPort",
        "ingress[0].port.name",
        "ingress[0].port.targetPort",
    ):
        yield Refusal(KIND, f"spec.{place}", base, 9080 if place.endswith("Port") else "other", "LTN0006")
    for level in ("inboundConnectionPool", "ingress[0].connectionPool"):
        for place, value in (
            ("http.maxRetries", 3),
            *(("http.h2UpgradePolicy", each) for each in ("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE")),
        ):
            yield Refusal(KIND, f"spec.{level}.{place}", base, value, "LTN0006")
    yield from _ingress_tls()


def _ingress_tls() -> Iterator[Refusal]:
    """Sidecars speak TLS to clients only as mutual TLS of the mesh; all else is said to have no effect."""
    named = sidecar(ingress=[ingress(9443, "HTTPS", tls={"mode": "SIMPLE", "credentialName": "server"})])
    listed = sidecar(ingress=[ingress(9443, "HTTPS", tls={"mode": "SIMPLE"})])
    files: Json = {"serverCertificate": "/a", "privateKey": "/b"}
    in_files = sidecar(ingress=[ingress(9443, "HTTPS", tls={"mode": "SIMPLE", "tlsCertificates": [files]})])
    alone = sidecar(ingress=[ingress(9443, "HTTPS", tls={"mode": "SIMPLE", **files})])
    base = "spec.ingress[].tls."
    for kind, path in fields():
        if kind != KIND or not path.startswith(base):
            continue
        name, _, value = path.removeprefix(base).partition("=")
        document = in_files if name.startswith("tlsCertificates") else alone if name in files else named
        document = listed if name == "credentialNames[]" else document
        said: Any = value or _SAID.get(name, "name")
        code = "IST0106" if name == "mode" and value not in ("SIMPLE", "MUTUAL") else "LTN0001"
        yield Refusal(KIND, path.partition("=")[0].replace("[]", "[0]"), document, said, code)


_SAID: Json = {
    "httpsRedirect": True,
    "insecureSkipVerify": True,
    "verifyCertificateHash[]": "00" * 32,
    "verifyCertificateSpki[]": "A" * 43 + "=",
    "cipherSuites[]": "ECDHE-ECDSA-AES128-GCM-SHA256",
}
