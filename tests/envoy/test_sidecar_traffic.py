"""Where a Sidecar's listeners are and what they give: Unix sockets, forward proxies, ports that the proxy opens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.client import ask, line, outside
from tests.lab.lab import Lab

NUMBERED = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: numbered}
spec:
  hosts: [numbered.test]
  addresses: [10.97.0.6]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 9500, name: http, protocol: HTTP, targetPort: 9080}
  - {number: 9501, name: tcp, protocol: TCP, targetPort: 9000}
  endpoints: [{address: 10.88.2.1}]
---
"""


def sidecar(spec: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: app, namespace: default}}
spec: {spec}
---
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def test_a_unix_socket_has_all_ports_of_its_hosts(lab: Lab) -> None:
    """The request says which port; a name alone is for the first. What nobody knows ends there."""
    lab.configure(
        sidecar(
            "{egress: [{port: {protocol: HTTP}, bind: 'unix://@files/e.sock', hosts: [./reviews.*, ./ratings.*]}]}"
        ).replace(
            "./reviews.*, ./ratings.*", "./reviews.default.svc.cluster.local, ./ratings.default.svc.cluster.local"
        )
    )
    at = f"unix://{lab.directory}/e.sock"
    assert ask(lab, at, authority="ratings").seen["port"] == 9080
    assert ask(lab, at, authority="ratings:9081").seen["port"] == 9081
    assert ask(lab, at, authority="reviews.default:9081").server.startswith("reviews-")
    assert ask(lab, at, authority="details").status == 502
    assert ask(lab, at, authority="ratings:9000").status == 502
    assert ask(lab, "ratings").server == "", "what only a socket gives is nowhere else"


def test_a_unix_socket_of_bytes(lab: Lab) -> None:
    egress = "{port: {protocol: TCP}, bind: 'unix://@files/t.sock', hosts: ['*/numbered.test']}"
    lab.configure(NUMBERED, sidecar(f"{{egress: [{egress}]}}"))
    assert line(lab, f"unix://{lab.directory}/t.sock")["server"] == "ratings-v1"


def test_a_forward_proxy(lab: Lab) -> None:
    """Applications that know a proxy send it whole URLs."""
    egress = "{port: {number: 15002, protocol: HTTP_PROXY}, captureMode: NONE, hosts: ['./*']}"
    lab.configure(sidecar(f"{{egress: [{egress}]}}"))
    for host, port in (("ratings", 9080), ("ratings.default.svc.cluster.local", 9081)):
        answer = ask(lab, "127.0.0.1", f"http://{host}:{port}/a", 15002, authority="ignored")
        assert (answer.server, answer.seen["port"], answer.seen["path"]) == ("ratings-v1", port, "/a")
    assert ask(lab, "127.0.0.1", "http://nobody.test/", 15002, authority="nobody.test").status == 502


def test_an_opened_port_does_not_call_itself(lab: Lab) -> None:
    """There is nowhere to pass a request for an unknown name on to: it was sent to the proxy."""
    egress = "{port: {number: 9500, protocol: HTTP}, captureMode: NONE, hosts: ['*/numbered.test']}"
    lab.configure(NUMBERED, sidecar(f"{{egress: [{egress}, {{hosts: ['*/*']}}]}}"))
    assert ask(lab, "127.0.0.1", port=9500, authority="numbered.test").server == "ratings-v1"
    assert ask(lab, "127.0.0.1", port=9500, authority="nobody.test").status == 502
    assert line(lab, "127.0.0.1", 9500, say="no request") == {}
    assert ask(lab, "details").server == "details-v1", "other ports are captured as ever"


@pytest.mark.parametrize(("bind", "host"), [("", "127.0.0.1"), ("bind: 127.0.0.7, ", "127.0.0.7")])
def test_nothing_is_captured(lab: Lab, bind: str, host: str) -> None:
    """A listener without a port that opens ports: one for each port of its services, bytes and requests."""
    lab.configure(NUMBERED, sidecar(f"{{egress: [{{captureMode: NONE, {bind}hosts: ['*/numbered.test']}}]}}"))
    assert ask(lab, host, port=9500, authority="numbered.test").server == "ratings-v1"
    assert line(lab, host, 9501)["server"] == "ratings-v1"


def test_streams_at_one_address_are_told_apart_by_server_name(lab: Lab) -> None:
    egress = "{port: {number: 9443, protocol: TLS}, bind: 10.97.0.9, hosts: ['./*']}"
    lab.configure(sidecar(f"{{egress: [{egress}]}}"))
    for name in ("ratings", "details"):
        host = f"{name}.default.svc.cluster.local"
        answer = ask(lab, "10.97.0.9", port=9443, authority=host, tls=lab.certificates.client_context(), sni=host)
        assert answer.server == f"{name}-v1"


def test_an_ingress_port_that_the_proxy_opens(lab: Lab) -> None:
    """It listens at the workload's own address, so calls to others' ports of that number stay what they are."""
    ingress = "{port: {number: 9083, protocol: HTTP}, captureMode: NONE, defaultEndpoint: '127.0.0.1:9080'}"
    entry = NUMBERED.replace("number: 9500", "number: 9083")
    lab.configure(entry, sidecar(f"{{ingress: [{ingress}]}}"))
    captured = outside(lab, port=9083)
    assert (captured.seen["server"], captured.seen["port"]) == ("app", 9080)
    direct = ask(lab, "10.88.0.5", port=9083, source="127.0.0.6")  # a connection that redirection lets through
    assert (direct.seen["server"], direct.seen["port"]) == ("app", 9080)
    assert ask(lab, "10.97.0.6", port=9083, authority="numbered.test").server == "ratings-v1"


def test_an_application_behind_a_unix_socket(lab: Lab) -> None:
    lab.configure()
    lab.listen(0, f"unix://{lab.directory}/app.sock")
    ingress = "{port: {number: 9084, protocol: HTTP}, defaultEndpoint: 'unix://@files/app.sock'}"
    lab.configure(sidecar(f"{{ingress: [{ingress}]}}"))
    assert outside(lab, port=9084).server == f"{lab.directory}/app.sock"


def test_clients_tls_ends_only_where_that_of_the_mesh_is_off(lab: Lab) -> None:
    files = "serverCertificate: '@files/server.pem', privateKey: '@files/server.key'"
    ingress = f"{{port: {{number: 9443, protocol: HTTPS}}, tls: {{mode: SIMPLE, {files}}}}}"
    off = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: app}
spec: {mtls: {mode: DISABLE}}
---
"""
    how: dict[str, Any] = {"port": 9443, "tls": lab.certificates.client_context(), "sni": "reviews"}
    lab.configure(off, sidecar(f"{{ingress: [{ingress}]}}"))
    ended = outside(lab, **how)
    assert (ended.server, ended.seen["tls"]) == ("app", False)
    assert outside(lab, port=9443).status == 0, "plain traffic is not what the port is for"
    lab.configure(sidecar(f"{{ingress: [{ingress}]}}"))
    assert outside(lab, **how).seen["tls"], "the application ends it"
