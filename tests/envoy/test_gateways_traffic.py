"""A gateway with traffic through the real Envoy: plain, redirected, TLS from a Secret, and by its socket."""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.envoy.certificates import Authority
from tests.envoy.single_pod import ADDRESS, HTTP_APPLICATION, SinglePod

AUTHORITY = Authority()
CERTIFICATE, KEY = AUTHORITY.leaf("", "a.example")

CONFIGURATION = f"""
apiVersion: v1
kind: Service
metadata: {{name: app}}
spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 80, targetPort: 9080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}
endpoints: [{{addresses: [{ADDRESS}]}}]
ports: [{{name: http, port: 9080}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: a}}
data: {{tls.crt: {base64.b64encode(CERTIFICATE).decode()}, tls.key: {base64.b64encode(KEY).decode()}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{istio: gw}}
  servers:
  - {{port: {{number: 8080, name: http, protocol: HTTP}}, hosts: [plain.example]}}
  - {{port: {{number: 8080, name: moved, protocol: HTTP}}, hosts: [a.example], tls: {{httpsRedirect: true}}}}
  - {{port: {{number: 8443, name: https, protocol: HTTPS}}, hosts: [a.example],
      tls: {{mode: SIMPLE, credentialName: a}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge}}
spec:
  hosts: [plain.example, a.example]
  gateways: [edge]
  http: [{{route: [{{destination: {{host: app}}}}]}}]
---
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[SinglePod]:
    with SinglePod([("istio", "gw")], router=True) as made:
        made.application(HTTP_APPLICATION, 9080)
        made.configure(CONFIGURATION)
        yield made


def test_plain_requests_and_unknown_hosts(gateway: SinglePod) -> None:
    assert gateway.get(ADDRESS, 8080, "plain.example")["status"] == 200
    assert gateway.get(ADDRESS, 8080, "other.example")["status"] == 404


def test_a_redirect_to_https(gateway: SinglePod) -> None:
    assert gateway.get(ADDRESS, 8080, "a.example")["status"] == 301


def test_tls_with_the_certificate_of_a_secret(gateway: SinglePod) -> None:
    answer = gateway.tls(ADDRESS, 8443, "a.example", AUTHORITY.pem)
    assert answer["status"] == 200, answer
    assert json.loads(answer["body"])["headers"]["x-forwarded-proto"] == "https"
    assert gateway.tls(ADDRESS, 8443, "b.example", AUTHORITY.pem)["status"] == 0


def test_the_socket_tells_who_the_client_is(gateway: SinglePod) -> None:
    """A PROXY header of version 2 before the request, as the forwarder of host ports writes it."""
    addresses = socket.inet_aton("198.51.100.7") + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 5555, 8080)
    header = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack("!H", len(addresses)) + addresses
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(gateway.socket))
        connection.sendall(header + b"GET / HTTP/1.1\r\nHost: plain.example\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]["x-forwarded-for"] == "198.51.100.7"
