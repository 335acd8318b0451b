"""Security policies on a gateway through the real Envoy: requests, connections, host ports, routes by claims."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.envoy.guarded_pod import APPLICATION_OF_ALL_METHODS, Call, GuardedPod
from tests.envoy.identity_provider import IdentityProvider
from tests.envoy.single_pod import ADDRESS, ECHO_APPLICATION
from tests.envoy.test_security_authorization import operation, policy, source
from tests.envoy.test_security_tokens import bearing, inline

CONFIGURATION = f"""
apiVersion: v1
kind: Service
metadata: {{name: app}}
spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 80, targetPort: 9080}}, {{name: tcp, port: 7000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}
endpoints: [{{addresses: [{ADDRESS}]}}]
ports: [{{name: http, port: 9080}}, {{name: tcp, port: 7000}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{istio: gw}}
  servers:
  - {{port: {{number: 8080, name: http, protocol: HTTP}}, hosts: ["*"]}}
  - {{port: {{number: 7001, name: tcp, protocol: TCP}}, hosts: ["*"]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - match: [{{headers: {{"@request.auth.claims.groups": {{exact: admin}}}}}}]
    headers: {{request: {{set: {{x-route: admin}}}}}}
    route: [{{destination: {{host: app, port: {{number: 80}}}}}}]
  - match: [{{headers: {{"@request.auth.claims[realm][name]": {{prefix: r}}}}}}]
    headers: {{request: {{set: {{x-route: realm}}}}}}
    route: [{{destination: {{host: app, port: {{number: 80}}}}}}]
  - match: [{{withoutHeaders: {{"@request.auth.claims[sub]": {{regex: ".*"}}}}}}]
    headers: {{request: {{set: {{x-route: nobody}}}}}}
    route: [{{destination: {{host: app, port: {{number: 80}}}}}}]
  - route: [{{destination: {{host: app, port: {{number: 80}}}}}}]
  tcp:
  - match: [{{port: 7001}}]
    route: [{{destination: {{host: app, port: {{number: 7000}}}}}}]
---
"""
HOST_PORT = 15080


@pytest.fixture(scope="module")
def gateway() -> Iterator[GuardedPod]:
    with GuardedPod([("istio", "gw"), ("gateway.networking.k8s.io/gateway-name", "gw")], router=True) as made:
        made.application(APPLICATION_OF_ALL_METHODS, 9080)
        made.application(ECHO_APPLICATION, 7000)
        yield made


def from_outside(gateway: GuardedPod, client: str = "198.51.100.7", path: str = "/") -> int:
    """The status of a request that came by a port of the host, as its forwarder passes it on."""
    addresses = socket.inet_aton(client) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 5555, HOST_PORT)
    header = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack("!H", len(addresses)) + addresses
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(gateway.socket))
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection.sendall(header + request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split()[1])


GET = Call(port=8080)


def test_requests(gateway: GuardedPod) -> None:
    gateway.configure(CONFIGURATION, policy("{action: DENY, " + operation("paths: [/admin*]") + "}"))
    calls = [GET, Call(port=8080, path="/admin"), Call(port=8080, path="//x/../../%61dmin")]
    assert gateway.statuses(calls) == [200, 403, 403]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: gw}]", 403),
        ("targetRef: {kind: Gateway, group: gateway.networking.k8s.io, name: gw}", 403),
        ("targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: other}]", 200),
        ("targetRefs: [{kind: Service, group: '', name: gw}]", 200),
        ("selector: {matchLabels: {istio: gw}}", 403),
        ("selector: {matchLabels: {istio: other}}", 200),
    ],
)
def test_what_policies_are_attached_to(gateway: GuardedPod, target: str, status: int) -> None:
    gateway.configure(CONFIGURATION, policy(f"{{{target}, action: DENY, rules: [{{}}]}}"))
    assert gateway.statuses([GET]) == [status]


def test_ports_are_those_the_gateway_listens_on(gateway: GuardedPod) -> None:
    for number, status in (("8080", 403), (str(HOST_PORT), 200)):
        gateway.configure(CONFIGURATION, policy("{action: DENY, " + operation(f"ports: ['{number}']") + "}"))
        assert gateway.statuses([GET]) == [status]
        assert from_outside(gateway) == status


@pytest.mark.parametrize("field", ["ipBlocks", "remoteIpBlocks"])
def test_addresses_of_clients_that_come_by_a_port_of_the_host(gateway: GuardedPod, field: str) -> None:
    gateway.configure(CONFIGURATION, policy("{action: DENY, " + source(f"{field}: [198.51.100.0/24]") + "}"))
    assert [from_outside(gateway), from_outside(gateway, "203.0.113.1")] == [403, 200]
    gateway.configure(CONFIGURATION, policy("{" + source(f"{field}: [198.51.100.0/24]") + "}"))
    assert [from_outside(gateway), from_outside(gateway, "203.0.113.1")] == [200, 403]


def test_clients_may_not_say_where_they_are_from(gateway: GuardedPod) -> None:
    """Unless so many proxies before the gateway are trusted."""
    denies = policy("{action: DENY, " + source("remoteIpBlocks: [10.99.0.0/16]") + "}")
    said = Call(port=8080, headers=(("x-forwarded-for", "10.99.0.1"),))
    gateway.configure(CONFIGURATION, denies)
    assert gateway.statuses([said]) == [200]
    mesh = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}"}
---
"""
    gateway.configure(CONFIGURATION, mesh, denies)
    assert gateway.statuses([said, Call(port=8080, headers=(("x-forwarded-for", "10.99.0.1, 10.98.0.1"),))]) == [
        403,
        200,
    ]


def test_connections(gateway: GuardedPod) -> None:
    line = Call(port=7001, line=True, send="x\n")
    for network, text in (("10.88.0.0/16", ""), ("10.99.0.0/16", "got x\n")):
        gateway.configure(CONFIGURATION, policy("{action: DENY, " + source(f"ipBlocks: [{network}]") + "}"))
        assert gateway.calls([line])[0].text == text


def test_routes_by_claims(gateway: GuardedPod) -> None:
    provider = IdentityProvider()
    tokens = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens}}
spec: {{selector: {{matchLabels: {{istio: gw}}}}, jwtRules: [{inline(provider)}]}}
---
"""
    gateway.configure(CONFIGURATION, tokens)
    cases = [
        (provider.token(groups=["x", "admin"]), "admin"),
        (provider.token(groups="admin"), "admin"),
        (provider.token(realm={"name": "real"}), "realm"),
        (provider.token(groups=["x"]), None),
    ]
    for token, route in cases:
        call = bearing(token)
        got = gateway.calls([Call(port=8080, headers=call.headers)])[0]
        assert got.status == 200
        assert got.seen_headers.get("x-route") == route
    lies = (("@request.auth.claims.groups", "admin"), ("x", "y"))
    assert gateway.calls([GET])[0].seen_headers["x-route"] == "nobody"
    assert gateway.calls([Call(port=8080, headers=lies)])[0].status in (200, 400)
    forged = IdentityProvider().token(iss=provider.issuer, groups=["admin"])
    assert gateway.calls([Call(port=8080, headers=bearing(forged).headers)])[0].status == 401
    assert json.loads(gateway.envoy.admin("/server_info"))["state"] == "LIVE"
    provider.close()
