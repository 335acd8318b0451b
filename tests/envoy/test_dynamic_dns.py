"""ServiceEntries with resolution DYNAMIC_DNS on real proxies: names are looked up when the traffic names them.

The lab's name server knows one.test (outside-1) and two.test (both); clients dial outside-2, so what reaches
outside-1 went where its name leads.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from lateen.api.check import check_raw
from tests.coverage.cases.service_entry import HTTP, entry
from tests.lab.client import ask
from tests.lab.lab import Lab

DIALLED = "10.88.3.2"
WILD = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: default}
spec:
  hosts: ["*.test"]
  location: MESH_EXTERNAL
  resolution: DYNAMIC_DNS
  ports:
  - {name: http, number: 9080, protocol: HTTP, targetPort: 9082}
  - {name: tls, number: 9444, protocol: TLS, targetPort: 9443}
---
"""
LOCKED = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
---
"""
ORIGINATED = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: default}
spec:
  hosts: ["*.test"]
  location: MESH_EXTERNAL
  resolution: DYNAMIC_DNS
  ports: [{name: http, number: 9080, protocol: HTTP, targetPort: 443}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: wild, namespace: default}
spec:
  host: "*.test"
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: "@files/root.pem"}}
---
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*.test"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild, namespace: istio-system}
spec:
  hosts: ["*.test"]
  gateways: [edge]
  http:
  - match: [{uri: {prefix: /rewritten}}]
    rewrite: {authority: one.test}
    route: [{destination: {host: "*.test", port: {number: 9080}}}]
  - route: [{destination: {host: "*.test", port: {number: 9080}}}]
---
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.certificates.leaf("outside", "root", "one.test")
        yield made


def test_requests_go_where_their_name_leads_at_the_service_port(lab: Lab) -> None:
    lab.configure(WILD, LOCKED)
    found = ask(lab, DIALLED, authority="one.test")
    assert (found.status, found.server, found.seen["port"]) == (200, "outside-1", 9082)
    found = ask(lab, DIALLED, authority="one.test:9080")
    assert (found.status, found.server, found.seen["port"]) == (200, "outside-1", 9082)
    assert found.seen["headers"]["host"] == "one.test:9080", "the server sees what the client said"


def test_a_port_in_the_host_header_opens_no_other_port(lab: Lab) -> None:
    lab.configure(WILD, LOCKED)
    assert ask(lab, DIALLED, authority="one.test:3128").seen["port"] == 9082


def test_names_that_do_not_exist_and_names_that_are_not_covered(lab: Lab) -> None:
    lab.configure(WILD, LOCKED)
    assert ask(lab, DIALLED, authority="nobody.test").status == 503
    assert ask(lab, DIALLED, authority="one.example").status == 502
    assert ask(lab, DIALLED, authority="10.88.3.1").status == 502


def test_the_server_name_of_tls_is_looked_up(lab: Lab) -> None:
    lab.configure(WILD, LOCKED)
    trusting = ssl._create_unverified_context()
    for sni, server in (("one.test", "outside-1"), ("nobody.test", ""), ("one.example", "")):
        found = ask(lab, DIALLED, port=9444, authority=sni, tls=trusting, sni=sni)
        assert found.server == server, sni


def test_tls_is_originated_with_the_name_that_was_asked_for(lab: Lab) -> None:
    """The certificate of the lab's servers is not one of one.test, and then it is."""
    lab.configure(ORIGINATED)
    assert ask(lab, DIALLED, authority="one.test").status == 503
    lab.configure(ORIGINATED.replace("SIMPLE, ", "SIMPLE, subjectAltNames: [reviews], "))
    found = ask(lab, DIALLED, authority="one.test")
    assert (found.status, found.server, found.seen["tls"], found.seen["sni"]) == (200, "outside-1", True, "one.test")


def test_a_gateway_looks_names_up_too(lab: Lab) -> None:
    lab.configure(WILD, GATEWAY)
    assert ask(lab, "gateway", port=8080, authority="one.test").server == "outside-1"
    assert ask(lab, "gateway", port=8080, authority="nobody.test").status == 503
    assert ask(lab, "gateway", "/rewritten", port=8080, authority="nobody.test").server == "outside-1"


def test_protocols_that_name_no_host_are_refused() -> None:
    for protocol in ("TCP", "MONGO", None):
        port = {**HTTP, "protocol": protocol} if protocol else {"number": 9080, "name": "some"}
        document = entry(hosts=["*.test"], addresses=None, endpoints=None, resolution="DYNAMIC_DNS", ports=[port])
        (found,) = check_raw(document)
        assert found.path == "spec.ports[0].protocol"
        assert "names its host" in found.message
